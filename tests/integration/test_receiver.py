"""The receiver over HTTP: which answer each delivery gets, what is stored, and what it says of it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cli
import psycopg
import pytest
from conftest import database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from receiving import (
    INSTANCES,
    Receiver,
    add_secret,
    body,
    counted,
    deliveries,
    event,
    receiver,
    register,
    retire_secret,
)

from bisonsync.payloads import MAX_BYTES

pytestmark = pytest.mark.stock

Connection = psycopg.Connection[Any]


@dataclass
class Shared:
    """One receiver for all tests that do not harm it, and its database."""

    dsn: str
    conn: Connection
    secrets: dict[int, str]
    receiver: Receiver


@pytest.fixture(scope="module")
def shared(server: Connection, server_dsn: str, template: str) -> Iterator[Shared]:
    with database(server, server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        secrets = register(conn)
        with receiver(dsn) as running:
            yield Shared(dsn, conn, secrets, running)


@pytest.fixture
def conn(shared: Shared) -> Connection:
    """A connection to an inbox that is empty."""
    shared.conn.execute("TRUNCATE webhook_delivery_log, webhook_event_keys, client_metrics, client_leads")
    return shared.conn


@pytest.fixture
def db(shared: Shared, conn: Connection) -> str:
    return shared.dsn


@pytest.fixture
def secrets(shared: Shared, conn: Connection) -> dict[int, str]:
    return shared.secrets


@pytest.fixture
def running(shared: Shared, conn: Connection) -> Receiver:
    shared.receiver.said.clear()
    return shared.receiver


# What is stored


def test_a_delivery_is_answered_once_it_is_stored_and_applied(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    answer = running.post(secrets[1], body(1), Content_Type="text/nonsense")

    assert (answer.status, answer.text) == (200, "processed\n")
    assert deliveries(conn) == [("processed", 1)]
    assert conn.execute("SELECT source, hook_instance, hook_workspace_id FROM webhook_delivery_log").fetchall() == [
        ("receiver", "sim", 1)
    ]
    assert counted(conn) == 1


def test_f24_the_same_delivery_46_times_counts_once(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    answers = [running.post(secrets[1], body(1)).text for _ in range(46)]

    assert answers == ["processed\n"] + ["duplicate\n"] * 45
    assert (len(deliveries(conn)), counted(conn)) == (46, 1)


def test_f19_what_comes_to_the_address_for_tests_counts_nowhere(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    answer = running.post(secrets[1], body(1), test=True)

    assert (answer.status, answer.text) == (200, "test\n")
    assert deliveries(conn) == [("test", 1)]
    assert (counted(conn), running.post(secrets[1], body(1)).text) == (0, "processed\n")


@pytest.mark.parametrize("keep", ["true", "false"])
def test_mail_bodies_are_stored_only_where_the_settings_say_so(db: str, conn: Connection, keep: str) -> None:
    secret = register(conn)[1]
    odd = b'{"event": {"type": 5, "n": 1e999}, "data": [{"thread": [{"text_body": "secret"}]}]}'
    with receiver(db, BISONSYNC_WEBHOOKS__STORE_BODIES=keep) as running:
        assert running.post(secret, odd).text == "dead\n"

    stored = conn.execute(
        "SELECT payload::text LIKE '%secret%', convert_from(payload_raw, 'UTF8') LIKE '%1e999%secret%' FROM"
        " webhook_delivery_log"
    ).fetchall()
    assert stored == [(keep == "true", keep == "true")]


def test_a_payload_of_another_workspace_than_the_secrets_is_never_applied(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    answer = running.post(secrets[1], body(1, workspace=2))

    assert (answer.status, answer.text) == (200, "mismatch\n")
    assert counted(conn) == 0


@pytest.mark.parametrize(
    "text", ["null", "[]", '"text"', "5", "{}", '{"event": 1}', '{"event": {"type": 5}, "data": []}']
)
def test_json_of_the_wrong_shape_is_kept_and_not_sent_again(
    running: Receiver, secrets: dict[int, str], conn: Connection, text: str
) -> None:
    answer = running.post(secrets[1], text.encode())

    assert (answer.status, answer.text) == (200, "dead\n")
    assert [status for status, _ in deliveries(conn)] == ["dead"]


def test_what_jsonb_cannot_hold_is_applied_and_kept_as_it_came(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    sent = body(1, note="NUL and half a pair: @").replace(b"@", b"\\u0000\\ud800")

    assert running.post(secrets[1], sent).text == "processed\n"

    assert conn.execute("SELECT payload_raw FROM webhook_delivery_log").fetchall() == [(sent,)]


# What is refused


def test_a_wrong_secret_is_not_found_and_nothing_is_stored(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    wrong = [secrets[1][:-1], secrets[1] + "x", secrets[1].swapcase(), "%00", "x" * 5_000, secrets[1] + "/", "ä%C3%A4"]

    answers = [running.post(secret.replace("ä", ""), body(1)) for secret in wrong]

    assert {answer.status for answer in answers} == {404}
    assert deliveries(conn) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_delivers(running: Receiver, secrets: dict[int, str], method: str) -> None:
    answers = [running.ask(method, f"/hooks/{secret}") for secret in (secrets[1], "wrong")]

    # The same for a right and a wrong secret.
    assert [(answer.status, answer.headers["allow"]) for answer in answers] == [(405, "POST")] * 2
    assert running.ask("POST", "/healthz").status == 405


@pytest.mark.parametrize("path", ["/", "/hooks", "/hooks/", "/hook/x", "/docs", "/healthz/", "//hooks/x"])
def test_no_other_address_is_served(running: Receiver, path: str) -> None:
    assert running.ask("POST", path, b"{}").status == 404


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "not JSON: Nothing at line 1, column 1\n"),
        (b"a=1&b=2", "not JSON: Expecting value at line 1, column 1\n"),
        (b'{"a": NaN}', "not JSON: NaN is no number there\n"),
        (b'"\xff"', "not UTF-8: byte 2 fits nowhere\n"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64\n"),
        (b"[" * 2_000_000, "nested deeper than 64\n"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(
    running: Receiver, secrets: dict[int, str], conn: Connection, sent: bytes, reason: str
) -> None:
    answer = running.post(secrets[1], sent)

    assert (answer.status, answer.text) == (400, reason)
    assert deliveries(conn) == []


def test_takes_16_mebibytes_and_no_byte_more(running: Receiver, secrets: dict[int, str], conn: Connection) -> None:
    largest = body(1, note="x" * (MAX_BYTES - len(body(1, note=""))))
    assert len(largest) == MAX_BYTES

    assert running.post(secrets[1], largest).text == "processed\n"
    for too_large in (largest + b" ", iter([largest, b" "])):
        answer = running.post(secrets[1], too_large)
        assert (answer.status, answer.text) == (413, "larger than 16 MiB\n")

    assert len(deliveries(conn)) == 1


# Packed bodies


@pytest.mark.parametrize("coding", ["gzip", "GZip", "x-gzip", "identity, gzip"])
def test_a_packed_body_is_unpacked(running: Receiver, secrets: dict[int, str], conn: Connection, coding: str) -> None:
    # In two parts, as some that write a stream leave it.
    sent = gzip.compress(body(1)[:100]) + gzip.compress(body(1)[100:])

    assert running.post(secrets[1], sent, Content_Encoding=coding).text == "processed\n"

    assert counted(conn) == 1


def test_a_small_body_that_unpacks_to_more_than_allowed_is_refused(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    largest = body(1, note="x" * (MAX_BYTES - len(body(1, note=""))))

    taken = running.post(secrets[1], gzip.compress(largest), Content_Encoding="gzip")
    too_large = running.post(secrets[1], gzip.compress(largest + b" "), Content_Encoding="gzip")

    assert taken.text == "processed\n"
    assert (too_large.status, too_large.text) == (413, "larger than 16 MiB\n")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(b'{"a": 1}', "it cannot be unpacked", id="plain"),
        pytest.param(b"", "its end is missing", id="empty"),
        pytest.param(gzip.compress(b"{}")[:-1], "its end is missing", id="cut off"),
        pytest.param(gzip.compress(b"{}") + b"{}", "it cannot be unpacked", id="more behind"),
        pytest.param(gzip.compress(b"{}")[:-5] + b"xxxxx", "it cannot be unpacked", id="wrong sum"),
        pytest.param(gzip.compress(b"") * 101, "it has more than 100 parts", id="many parts"),
    ],
)
def test_what_says_gzip_and_is_none_is_refused_in_one_line(
    running: Receiver, secrets: dict[int, str], conn: Connection, sent: bytes, reason: str
) -> None:
    answer = running.post(secrets[1], sent, Content_Encoding="gzip")

    assert (answer.status, answer.text) == (400, f"not gzip: {reason}\n")
    assert deliveries(conn) == []


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br"])
def test_what_is_packed_otherwise_is_refused_with_what_is_taken(
    running: Receiver, secrets: dict[int, str], conn: Connection, coding: str
) -> None:
    answer = running.post(secrets[1], body(1), Content_Encoding=coding)

    assert (answer.status, answer.text) == (415, "send the body as it is, or with Content-Encoding: gzip\n")
    assert answer.headers["accept-encoding"] == "gzip"
    assert deliveries(conn) == []


# Lengths


def test_a_length_beyond_all_bounds_is_refused_before_anything_is_read(
    running: Receiver, secrets: dict[int, str]
) -> None:
    for length in (MAX_BYTES + 1, 10**18):
        with running.connect() as sock:
            sock.sendall(f"POST /hooks/{secrets[1]} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())

            assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    with running.connect() as sock:
        sock.sendall(f"POST /hooks/{secrets[1]} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())

    cli.wait_until(lambda: " 499 " in running.log, "it is noted")
    assert running.post(secrets[1], body(1)).status == 200
    assert len(deliveries(conn)) == 1


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST /hooks/\xc3\xa4 HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_breaks_nothing(running: Receiver, secrets: dict[int, str], sent: bytes) -> None:
    with running.connect() as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1_000)

    assert running.post(secrets[1], body(1)).status == 200
    assert "Traceback" not in running.log


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    ("event",),
    ("data",),
    *(("event", key) for key in event(1)["event"]),
    *(("data", key) for key in event(1)["data"]),
]
PATHS += [("data", "campaign_event", "id"), ("data", "campaign_event", "created_at"), ("data", "lead", "email")]
GONE = object()


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """An event of which some parts are anything, or missing; or broken bytes."""
    made: Any = event(
        draw(st.integers(1, 5)), kind=draw(st.sampled_from(["EMAIL_SENT", "lead_replied", "TAG_ATTACHED"]))
    )
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=3)):
        value = draw(JSON | st.just(GONE))
        *above, last = path
        parent = made
        for key in above:
            parent = parent.get(key) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            parent.pop(last, None) if value is GONE else parent.update({last: value})
    text = json.dumps(made, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=3)) + text[at + 1 :]
    return text


@given(sent=mangled())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_is_stored_or_refused(
    running: Receiver, secrets: dict[int, str], conn: Connection, sent: bytes
) -> None:
    before = len(deliveries(conn))

    answer = running.post(secrets[1], sent)

    assert answer.status in (200, 400), answer.text
    after = deliveries(conn)
    assert len(after) - before == (answer.status == 200)
    # An event counts if and only if it was processed.
    processed = conn.execute(
        "SELECT count(*) FROM webhook_delivery_log WHERE status = 'processed' AND event_type = 'email_sent'"
    ).fetchone()
    assert processed == (counted(conn),)


# Secrets


def test_a_new_secret_works_at_once_and_a_retired_one_soon_not_any_more(
    running: Receiver, secrets: dict[int, str], conn: Connection
) -> None:
    new = add_secret(conn, 1)

    cli.wait_until(lambda: running.post(new, body(1)).status == 200, "the new secret is known")
    retire_secret(conn, new)
    cli.wait_until(lambda: running.post(new, body(1)).status == 404, "the retired secret is forgotten")


def test_30_of_30_first_deliveries_to_secrets_just_made_are_taken(running: Receiver, conn: Connection) -> None:
    statuses = [running.post(add_secret(conn, 1), body(number)).status for number in range(30)]

    assert statuses == [200] * 30


def test_secrets_may_stand_in_the_settings(db: str, conn: Connection, tmp_path: Path) -> None:
    config = tmp_path / "bisonsync.toml"
    config.write_text('[webhooks.secrets]\n"sim/2" = "from-the-settings-0123456789"\n')
    config.chmod(0o600)

    with receiver(db, "-c", str(config)) as running:
        answer = running.post("from-the-settings-0123456789", body(1, workspace=2))

    assert answer.text == "processed\n"
    assert deliveries(conn) == [("processed", 2)]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_and_nothing_of_a_payload_is_shown_anywhere(
    db: str, secrets: dict[int, str], conn: Connection, form: str
) -> None:
    with receiver(db, "--log-format", form, "--workers", "2") as running:
        marked = body(1, note="CONFIDENTIAL-BODY")
        for sent in (marked, b"[" + marked, b'{"CONFIDENTIAL-BODY": \x00}', b'"CONFIDENTIAL-BODY'):
            running.post(secrets[1], sent, X_Mark="CONFIDENTIAL-HEADER")
            running.post("CONFIDENTIAL-WRONG", sent)
        for path in ("/hook/", "/hooks/", "//hooks/", "/hooks/x/", "/healthz?"):
            running.ask("POST", f"{path}CONFIDENTIAL-PATH?q=CONFIDENTIAL-QUERY", marked)
            running.ask("GET", f"{path}{secrets[1]}/test/more")
        with running.connect() as sock:
            sock.sendall(b"POST /hooks/CONFIDENTIAL-PATH HTTP/9.9\r\nCONFIDENTIAL-HEADER\r\n\r\n")
            sock.recv(1_000)
        health = running.ask("GET", "/healthz").text
        arguments = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family(running.process.pid))
        running.stop()
        assert running.process.stdout is not None
        shown = running.log + running.process.stdout.read() + health + arguments.decode()

    assert "receive-webhooks" in shown
    assert "CONFIDENTIAL" not in shown
    assert not any(secret in shown for secret in secrets.values())
    assert len(deliveries(conn)) == 1


def family(pid: int) -> set[int]:
    """A process and all that come from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


# What it says


def test_each_request_is_one_line(running: Receiver, secrets: dict[int, str]) -> None:
    sent = body(1)
    running.post(secrets[1], sent)
    running.post(secrets[2], sent, test=True)
    running.post("wrong", sent)
    running.ask("GET", "/healthz")
    running.ask("GET", "/favicon.ico")

    cli.wait_until(lambda: len(running.said) >= 5, "every line is there")
    told = [line.split()[1:-2] for line in running.said]
    assert told == [
        ["POST", "/hooks/…", "sim/1", "200", "processed", str(len(sent)), "B"],
        ["POST", "/hooks/…/test", "sim/2", "200", "test", str(len(sent)), "B"],
        ["POST", "/hooks/…", "-", "404", "-", "0", "B"],
        ["GET", "/healthz", "-", "200", "-", "0", "B"],
        ["GET", "/…", "-", "404", "-", "0", "B"],
    ]


def test_lines_are_json_where_that_is_wanted(db: str, secrets: dict[int, str]) -> None:
    sent = body(1)
    with receiver(db, "--log-format", "json") as running:
        running.post(secrets[1], sent)
        cli.wait_until(lambda: len(running.said) >= 2, "the line is there")
        line = json.loads(running.said[1])

    assert line.pop("time").endswith("Z")
    assert line.pop("ms") > 0
    assert line == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "path": "/hooks/…",
        "workspace": "sim/1",
        "status": 200,
        "bytes": len(sent),
        "delivery": "processed",
    }


def test_a_log_that_nobody_reads_stops_no_delivery(db: str, secrets: dict[int, str], conn: Connection) -> None:
    with receiver(db) as running:
        running.hush()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)) as connection:
            # More than a pipe holds.
            for _ in range(2_000):
                connection.request("GET", "/")
                connection.getresponse().read()

        assert running.post(secrets[1], body(1)).status == 200


def test_health_tells_version_and_whether_it_could_write(running: Receiver, secrets: dict[int, str]) -> None:
    from bisonsync import __version__

    running.post(secrets[1], body(1))
    answer = running.ask("GET", "/healthz")
    told = json.loads(answer.text)

    assert answer.status == 200
    assert datetime.fromisoformat(told.pop("last_stored_at")).tzinfo is not None
    assert told == {
        "status": "ok",
        "version": __version__,
        "database": "ok",
        "reason": None,
        "last_write_ok": True,
        "waiting": 0,
    }


# Beginning and end


def test_begins_only_on_a_migrated_database(empty_db: str) -> None:
    done = cli.run_cli(["receive-webhooks", "--port", "0"], cli.environment(empty_db, **INSTANCES))

    assert done.returncode == 6
    assert "bisonsync migrate" in done.stderr


def test_says_what_is_missing_when_the_extra_is_not_installed(db: str) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from bisonsync.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "receive-webhooks", "--port", "0"],
        env=cli.environment(db, **INSTANCES),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 4
    assert "pip install 'bisonsync[serve]'" in done.stderr


def test_a_port_that_is_taken_is_named(db: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli.run_cli(["receive-webhooks", "--port", port], cli.environment(db, **INSTANCES))

    assert done.returncode == 4
    assert f"127.0.0.1 port {port}" in done.stderr


def test_warns_when_no_secret_is_taken(server: Connection, server_dsn: str, template: str) -> None:
    with database(server, server_dsn, template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            retire_secret(conn, register(conn, [1])[1])
        with receiver(dsn) as running:
            assert "bisonsync webhooks ensure" in running.said[0]


def test_cannot_be_narrowed(db: str) -> None:
    done = cli.run_cli(["receive-webhooks", "-w", "1"], cli.environment(db, **INSTANCES))

    assert done.returncode == 2


def test_a_dry_run_looks_and_serves_nothing(db: str) -> None:
    done = cli.run_cli(["receive-webhooks", "--port", "0", "-n"], cli.environment(db, **INSTANCES))

    assert (done.returncode, done.stderr) == (0, "")
    assert "dry run, nothing written: would listen on http://127.0.0.1:" in done.stdout


def test_a_deadline_ends_it(db: str, secrets: dict[int, str]) -> None:
    with receiver(db, "--deadline", "1s") as running:
        assert running.wait() == 7


def test_keeps_partitions_made_and_the_settings_that_the_rules_need(
    db: str, secrets: dict[int, str], conn: Connection
) -> None:
    with receiver(db, BISONSYNC_REPORTING_TIMEZONE="Europe/Berlin"):
        pass

    assert conn.execute("SELECT reporting_timezone FROM bisonsync_private.webhook_settings").fetchone() == (
        "Europe/Berlin",
    )
    partitions = conn.execute(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'webhook_delivery_log'::regclass"
    ).fetchone()
    assert partitions is not None
    assert partitions[0] >= 9
