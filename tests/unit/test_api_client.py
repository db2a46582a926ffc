"""The conversation with one instance: what is tried again, what is named, what ends it early, what is counted."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest
from conversation import (
    EMPTY_LIST,
    TOKEN,
    WHO,
    HandClock,
    always,
    ask,
    client_of,
    endless_budget,
    host,
    in_turn,
    page,
    read_request,
    response,
)
from hypothesis import given
from hypothesis import strategies as st

from bisonsync.api.budget import Grant, RateBudget, Told
from bisonsync.api.client import InstanceClient
from bisonsync.api.conversation import EndpointStats
from bisonsync.errors import ApiRefused, ApiUnavailable, BisonsyncError, CredentialsError, DeadlineExceeded, Stopped
from bisonsync.retry import RETRY_AFTER_CAP_SECONDS

FAILED = httpx.Response(503)
LIMITED = httpx.Response(429, headers={"retry-after": "7"})
HTML = httpx.Response(200, html="<!doctype html><title>Down for maintenance</title>")
USER = httpx.Response(200, json={"data": {"id": 1, "team": {"id": 5, "name": " Acme "}}})


def figures(client: InstanceClient, endpoint: str = "GET /api/sender-emails") -> tuple[int, int, int, int]:
    """Requests, retries, rate limits and errors."""
    stats = client.stats[endpoint]
    assert len(stats.times_ms) == stats.requests
    return stats.requests, stats.retries, stats.rate_limited, stats.errors


def switch(client: InstanceClient) -> None:
    client.switch_workspace(TOKEN, 5, who=WHO)


def mint(client: InstanceClient) -> str:
    return client.create_token(TOKEN, 5, "bisonsync", who=WHO).plain_text_token


# What is tried again


@pytest.mark.parametrize(
    "fault",
    [
        FAILED,
        HTML,
        httpx.Response(200, json={"data": {"success": False, "message": "Busy."}}),
        httpx.Response(200, json={"data": {}}),
        httpx.Response(408),
        httpx.Response(425),
        httpx.ConnectError("Connection refused"),
        httpx.ReadTimeout("timed out"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
)
def test_a_fault_that_may_pass_is_tried_again(fault: httpx.Response | Exception):
    clock = HandClock()
    client = client_of(in_turn(fault, fault, page(1)), clock)

    assert ask(client).rows == [{"id": 1}]

    assert figures(client) == (3, 2, 0, 2)
    assert len(clock.slept) == 2
    assert all(0.5 <= pause <= 2.0 for pause in clock.slept)


def test_f25_html_with_status_200_is_retried_then_reported():
    client = client_of(in_turn(HTML))

    with pytest.raises(ApiUnavailable) as caught:
        ask(client)

    assert caught.value.message == (
        "instance sim: GET /api/sender-emails: HTTP 200 with an HTML page instead of JSON after 3 attempts"
    )
    assert figures(client) == (3, 2, 0, 3)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 422])
def test_a_refusal_is_final(status: int):
    client = client_of(in_turn(httpx.Response(status, json={"message": "No."}), page(1)))

    with pytest.raises(ApiRefused, match=f"GET /api/sender-emails was refused with HTTP {status}: No"):
        ask(client)

    assert figures(client) == (1, 0, 0, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_final_and_named(status: int):
    client = client_of(in_turn(httpx.Response(status), page(1)))

    with pytest.raises(CredentialsError, match=WHO):
        ask(client)

    assert figures(client) == (1, 0, 0, 1)


def test_the_query_is_not_in_messages():
    client = client_of(in_turn(httpx.Response(404)))

    with pytest.raises(ApiRefused) as caught:
        client.get_page("/api/leads", {"search": "sam@example.com"}, token=TOKEN, who=WHO)

    assert "sam" not in caught.value.message


UNSAFE = pytest.mark.parametrize("call", [switch, mint])


@UNSAFE
@pytest.mark.parametrize(
    "fault",
    [FAILED, HTML, LIMITED, httpx.ReadTimeout("timed out"), httpx.ConnectError("refused"), httpx.ReadError("x")],
)
def test_f20_an_unsafe_request_is_never_retried(
    call: Callable[[InstanceClient], Any], fault: httpx.Response | Exception
):
    asked: list[str] = []
    answer = in_turn(fault)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return answer(request)

    with pytest.raises(ApiUnavailable):
        call(client_of(handle))

    assert asked == ["POST"]


@UNSAFE
def test_f20_a_connection_reset_after_an_unsafe_request_is_not_asked_again(call: Callable[[InstanceClient], Any]):
    asked: list[bytes] = []

    def take_and_hang_up(connection: socket.socket) -> None:
        asked.append(read_request(connection))

    with host(take_and_hang_up) as url:
        client = client_of(url)
        with pytest.raises(ApiUnavailable, match="sent once: it may have been carried out"):
            call(client)
        client.close()

    assert len(asked) == 1


@pytest.mark.parametrize("fault", [httpx.ConnectError("refused"), httpx.ConnectTimeout("x"), LIMITED])
def test_an_unsafe_request_that_cannot_have_arrived_says_so(fault: httpx.Response | Exception):
    with pytest.raises(ApiUnavailable, match="was not carried out"):
        mint(client_of(in_turn(fault)))


# Waiting


def test_retry_after_is_waited_for_and_slows_the_whole_instance():
    clock = HandClock()
    told: list[float] = []
    client = client_of(in_turn(LIMITED, page(1)), clock, budget=endless_budget(clock, told))

    ask(client)

    assert clock.slept == [7.0]
    assert told == [7.0]
    assert figures(client) == (2, 1, 1, 1)


@pytest.mark.parametrize(("call", "error"), [(ask, DeadlineExceeded), (switch, ApiUnavailable)])
def test_the_last_429_slows_the_instance_too(call: Callable[[InstanceClient], Any], error: type[Exception]):
    clock = HandClock()
    told: list[float] = []
    client = client_of(in_turn(LIMITED), clock, budget=endless_budget(clock, told), attempts=1)

    with pytest.raises(error, match="HTTP 429"):
        call(client)

    assert len(told) == client.stats[next(iter(client.stats))].requests


@pytest.mark.parametrize(
    ("headers", "noted"),
    [
        ({"X-RateLimit-Limit": "3000", "x-ratelimit-remaining": "12"}, (3000, 12)),
        ({"x-ratelimit-limit": "many", "x-ratelimit-remaining": "-1"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_what_every_answer_tells_of_the_rate_is_noted(headers: dict[str, str], noted: tuple[int | None, int | None]):
    clock = HandClock()
    told: list[Told | None] = []
    budget = RateBudget(
        lambda wanted, told: Grant(wanted, 0.0),
        lambda left, report: told.append(report),
        lambda seconds, told: None,
        clock=clock,
        block_size=10,
    )
    answer = httpx.Response(200, headers=headers, json={"data": [], "meta": {}})
    client = client_of(in_turn(answer), clock, budget=budget)

    ask(client)
    client.close()

    assert told == [Told(1, 1, *noted)]


def test_other_faults_slow_nobody_else():
    clock = HandClock()
    told: list[float] = []

    ask(
        client_of(
            in_turn(httpx.Response(503, headers={"retry-after": "7"}), page(1)),
            clock,
            budget=endless_budget(clock, told),
        )
    )

    assert clock.slept == [7.0]
    assert told == []


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("Fri, 01 Jan 2100 00:00:00 GMT", [RETRY_AFTER_CAP_SECONDS]),
        ("99999999", [RETRY_AFTER_CAP_SECONDS]),
        ("Thu, 01 Jan 2026 00:00:09 GMT", [9.0]),
    ],
)
def test_an_absurd_wait_is_capped(asked: str, waits: list[float]):
    clock = HandClock()

    ask(client_of(in_turn(httpx.Response(429, headers={"retry-after": asked}), page(1)), clock))

    assert clock.slept == waits


@pytest.mark.parametrize("asked", ["-5", "0", "inf", "nan", "soon"])
def test_a_wait_that_makes_no_sense_becomes_the_usual_pause(asked: str):
    clock = HandClock()

    ask(client_of(in_turn(httpx.Response(429, headers={"retry-after": asked}), page(1)), clock))

    assert 0.5 <= clock.slept[0] <= 1.0


def test_a_host_that_asks_for_patience_gets_it_until_the_deadline():
    client = client_of(in_turn(*[LIMITED] * 80, page(1)), attempts=3)

    assert ask(client).total == 1


def test_the_deadline_ends_it_when_the_next_try_would_be_later():
    clock = HandClock()
    client = client_of(in_turn(LIMITED), clock, deadline=10.0)

    with pytest.raises(DeadlineExceeded, match="after: HTTP 429"):
        ask(client)

    assert clock.slept == [7.0]
    assert figures(client) == (2, 1, 2, 2)


def test_nothing_is_sent_after_the_deadline():
    clock = HandClock()
    client = client_of(in_turn(page(1)), clock, deadline=10.0)
    clock.pass_time(10)

    with pytest.raises(DeadlineExceeded, match="the run's deadline has come"):
        ask(client)

    assert figures(client) == (0, 0, 0, 0)


def test_a_request_cut_by_the_deadline_is_the_deadlines_fault():
    clock = HandClock()

    def hang(request: httpx.Request) -> httpx.Response:
        clock.pass_time(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("timed out")

    with pytest.raises(DeadlineExceeded):
        ask(client_of(hang, clock, deadline=10.0, attempts=1))

    assert clock.monotonic() == 10.0


def test_time_outs_fit_into_the_deadline():
    seen: list[dict[str, float]] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return page(1)

    ask(client_of(look, deadline=900.0))
    ask(client_of(look, deadline=3.0))

    assert seen[0] == {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 5.0}
    assert set(seen[1].values()) == {3.0}


def test_a_stopped_run_asks_nothing_more():
    clock = HandClock()
    client = client_of(in_turn(FAILED), clock)
    clock.stopped_by = signal.SIGTERM

    with pytest.raises(Stopped):
        ask(client)

    assert figures(client) == (0, 0, 0, 0)


def test_each_try_takes_from_the_budget_and_what_is_left_goes_back():
    clock = HandClock()
    left: list[int] = []
    budget = RateBudget(
        lambda wanted, told: Grant(10, 0.0),
        lambda tokens, told: left.append(tokens),
        lambda seconds, told: None,
        clock=clock,
        block_size=10,
    )
    client = client_of(in_turn(FAILED, FAILED, page(1)), clock, budget=budget)

    ask(client)
    client.close()

    assert left == [7]


# One owner's time


def test_an_owner_may_keep_the_api_busy_only_so_long():
    clock = HandClock()

    def slow(request: httpx.Request) -> httpx.Response:
        clock.pass_time(20)
        return page(1)

    client = client_of(slow, clock)
    meter = client.meter(45.0, name="workspace sim/5")

    for _ in range(3):
        ask(client, meter=meter)
    with pytest.raises(ApiUnavailable, match="workspace sim/5 kept the API busy for longer than its 45 s"):
        ask(client, meter=meter)

    assert figures(client)[0] == 3
    assert ask(client).total == 1


def test_an_owners_request_is_cut_when_its_time_is_up():
    clock = HandClock()
    waits: list[float] = []

    def hang(request: httpx.Request) -> httpx.Response:
        waits.append(request.extensions["timeout"]["read"])
        clock.pass_time(waits[-1])
        raise httpx.ReadTimeout("timed out")

    client = client_of(hang, clock)

    with pytest.raises(ApiUnavailable, match="kept the API busy"):
        ask(client, meter=client.meter(45.0, name="workspace sim/5"))

    assert waits == pytest.approx([30.0, 15.0])


def test_pauses_and_waits_for_budget_are_not_the_owners_time():
    clock = HandClock()
    client = client_of(in_turn(*[LIMITED] * 8, page(1)), clock)

    assert ask(client, meter=client.meter(1.0, name="workspace sim/5")).total == 1

    assert clock.monotonic() == 56.0


def test_requests_side_by_side_count_once():
    clock = HandClock()
    meter = client_of(in_turn(page(1)), clock).meter(10.0, name="workspace sim/5")

    assert meter.enter() == 10.0
    clock.pass_time(4)
    assert meter.enter() == 10.0
    clock.pass_time(4)
    meter.leave()
    meter.leave()
    clock.pass_time(100)

    assert meter.enter() == 110.0
    meter.limit_seconds = 20.0
    assert meter.enter() == 120.0


# The breaker


def test_after_failures_in_a_row_the_rest_is_not_asked():
    client = client_of(in_turn(FAILED), failures_before_giving_up=2)
    for _ in range(2):
        with pytest.raises(ApiUnavailable, match="HTTP 503 after 3 attempts"):
            ask(client)

    with pytest.raises(ApiUnavailable, match="not asked any more after 2 failures in a row, the last: HTTP 503"):
        ask(client)
    with pytest.raises(ApiUnavailable, match="not asked any more"):
        mint(client)

    assert figures(client)[0] == 6


@pytest.mark.parametrize("answer", [page(1), httpx.Response(404), httpx.Response(401)])
def test_an_answer_of_any_kind_shows_that_the_host_is_up(answer: httpx.Response):
    client = client_of(in_turn(FAILED, answer, FAILED, page(1)), failures_before_giving_up=2, attempts=1)

    for _ in range(3):
        with contextlib.suppress(BisonsyncError):
            ask(client)

    assert ask(client).total == 1


def test_calls_under_way_end_when_the_breaker_opens():
    clock = HandClock()
    client = client_of(in_turn(FAILED), clock, failures_before_giving_up=1, attempts=1)
    patient = client_of(in_turn(FAILED), clock)
    patient._conversation._breaker = client._conversation._breaker
    sleep = clock.sleep

    def fail_meanwhile(seconds: float) -> None:
        sleep(seconds)
        with pytest.raises(ApiUnavailable):
            ask(client)

    clock.sleep = fail_meanwhile

    with pytest.raises(ApiUnavailable, match="not asked any more"):
        ask(patient)

    assert figures(patient)[0] == 1


def test_owners_whose_time_ran_out_on_a_hanging_host_open_the_breaker():
    clock = HandClock()

    def hang(request: httpx.Request) -> httpx.Response:
        clock.pass_time(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("timed out")

    client = client_of(hang, clock, failures_before_giving_up=2, deadline=1e6)
    for name in ("workspace sim/1", "workspace sim/2"):
        with pytest.raises(ApiUnavailable, match="kept the API busy"):
            ask(client, meter=client.meter(45.0, name=name))

    with pytest.raises(ApiUnavailable, match="not asked any more"):
        ask(client, meter=client.meter(45.0, name="workspace sim/3"))


# Endpoints


@pytest.mark.parametrize("key", ["team", "workspace"])
def test_the_acting_workspace_stands_under_either_key(key: str):
    user = httpx.Response(200, json={"data": {"id": 1, key: {"id": "5", "name": " Acme "}}})

    acting = client_of(in_turn(user)).get_acting_workspace(TOKEN, who=WHO)

    assert (acting.id, acting.name) == (5, "Acme")


@pytest.mark.parametrize("data", [None, [], {}, {"id": 5}, {"team": None}, {"team": {"name": "Acme"}}, {"team": 5}])
def test_an_account_without_its_workspace_is_no_answer(data: Any):
    with pytest.raises(ApiUnavailable, match="JSON of another shape"):
        client_of(in_turn(httpx.Response(200, json={"data": data}))).get_acting_workspace(TOKEN, who=WHO)


def test_a_page_is_asked_for_by_its_query():
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return page(1)

    client = client_of(handle)
    client.get_page("/api/sender-emails", {"page": 3}, token=TOKEN, who=WHO)
    client.get_page("/api/sender-emails", {"cursor": "a b&c"}, token=TOKEN, who=WHO)
    client.get_page("/api/workspaces", {}, token=TOKEN, who=WHO)

    assert asked == [
        "https://send.example.com/api/sender-emails?page=3",
        "https://send.example.com/api/sender-emails?cursor=a+b%26c",
        "https://send.example.com/api/workspaces",
    ]


def test_switching_and_minting_say_what_they_want():
    asked: list[tuple[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={"data": {"id": 3, "name": "x", "plain_text_token": "3|new"}})

    client = client_of(handle)
    switch(client)

    assert mint(client) == "3|new"
    assert asked == [
        ("/api/workspaces/v1.1/switch-workspace", {"team_id": 5}),
        ("/api/workspaces/v1.1/5/api-tokens", {"name": "bisonsync"}),
    ]


def test_costs_are_counted_by_endpoint_whatever_the_ids():
    client = client_of(in_turn(page(1)))
    for number in (5, 6):
        client.get_page(f"/api/campaigns/{number}/sender-emails", {"page": 1}, token=TOKEN, who=WHO)

    assert set(client.stats) == {"GET /api/campaigns/{id}/sender-emails"}
    assert figures(client, "GET /api/campaigns/{id}/sender-emails") == (2, 0, 0, 0)


def test_costs_are_counted_right_from_many_threads():
    client = client_of(in_turn(page(1)))
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(30)
        for number in range(50):
            client.get_page(f"/api/list-{number % 7}", {"page": 1}, token=TOKEN, who=WHO)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    total = sum((stats.requests for stats in client.stats.values()), EndpointStats().requests)
    assert (len(client.stats), total) == (7, 400)


def test_the_whole_stack_asks_a_real_host():
    with host(always(response(EMPTY_LIST))) as url:
        client = client_of(url)

        assert ask(client).total == 0

        client.close()


# Daily numbers


def test_daily_numbers_are_asked_for_by_mailbox_and_read_by_label():
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        rows = [{"label": "Sent", "dates": [["2026-01-05", "3"]]}, {"label": "Replied", "dates": []}]
        return httpx.Response(200, json={"data": rows})

    client = client_of(answer)

    stats = client.get_daily_stats(TOKEN, [9, 4], date(2026, 1, 5), date(2026, 1, 7), who=WHO)

    assert (stats.sent, stats.replied, stats.bounced) == ({date(2026, 1, 5): 3}, {}, None)
    assert list(asked[0].url.params.multi_items()) == [
        ("start_date", "2026-01-05"),
        ("end_date", "2026-01-07"),
        ("sender_email_ids[]", "9"),
        ("sender_email_ids[]", "4"),
    ]
    assert figures(client, "GET /api/campaign-events/stats") == (1, 0, 0, 0)


def test_daily_numbers_of_a_wrong_shape_are_asked_for_again_then_refused():
    wrong = httpx.Response(200, json={"data": [{"label": "Sent", "dates": [["2026-01-05", -1]]}]})
    client = client_of(in_turn(wrong))

    with pytest.raises(ApiUnavailable, match=r"JSON of another shape: DailyStats\.sent"):
        client.get_daily_stats(TOKEN, [9], date(2026, 1, 5), date(2026, 1, 5), who=WHO)

    assert figures(client, "GET /api/campaign-events/stats")[0] == 3


# Secrets


@pytest.mark.parametrize("token", ["", "12|abc def", "12|abc\n", "12|abcdé", "12|abc\x00", "12|abc\x7f"])
def test_what_no_header_can_carry_is_refused_without_being_quoted(token: str):
    client = client_of(in_turn(page(1)))

    with pytest.raises(CredentialsError, match=WHO) as caught:
        client.get_page("/api/sender-emails", {}, token=token, who=WHO)

    assert not token or token not in f"{caught.value.message}{caught.value.hint}"
    assert not client.stats


SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12, max_size=60)
ERRORS = [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.ProxyError]


@given(st.integers(1, 9999), SECRETS, st.text(), st.sampled_from(ERRORS) | st.integers(200, 599), st.booleans())
def test_no_secret_in_any_error(number: int, secret: str, text: str, fault: type[Exception] | int, is_safe: bool):
    token = f"{number}|{secret}"
    said = f"{text} Bearer {token}"
    if isinstance(fault, int):
        answer = in_turn(httpx.Response(fault, json={"success": False, "message": said, "retry_after": said}))
    else:
        answer = in_turn(fault(said))
    client = client_of(answer)

    with pytest.raises(BisonsyncError) as caught:
        if is_safe:
            client.get_page("/api/sender-emails", {}, token=token, who=WHO)
        else:
            client.create_token(token, 5, "bisonsync", who=WHO)

    assert secret not in f"{caught.value} {caught.value.message} {caught.value.hint} {caught.value!r}"
