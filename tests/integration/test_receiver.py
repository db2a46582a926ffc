"""The receiver over HTTP: which answer each delivery gets, what is stored, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from receiving import Receiver, body, counted, deliveries, receiver, register

Connection = psycopg.Connection[Any]


@pytest.fixture
def secrets(conn: Connection) -> dict[int, str]:
    return register(conn)


@pytest.fixture
def running(db: str, secrets: dict[int, str]) -> Iterator[Receiver]:
    with receiver(db) as made:
        yield made


def test_a_delivery_is_answered_once_it_is_stored_and_applied(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    answer = running.post(secrets[1], body(1))

    assert (answer.status, answer.text) == (200, "processed\n")
    assert deliveries(conn) == [("processed", 1)]
    assert counted(conn) == 1
