"""Cassettes: answers recorded through the real client, and played to it again.

`BISONSYNC_RECORD=1 pytest tests/unit/test_api_cassettes.py` records all of them anew, each from a sandbox of its own
that is set up as the test says. Nothing else ever asks anybody. What a cassette keeps is scrubbed first, so that it
could be recorded from a real host as well: no token, cookie or secret, nobody's address or name, no other host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vcr
from conversation import HOST, TOKEN, HandClock, client_of

from bisonsync.api.client import InstanceClient
from bisonsync.sandbox import Sandbox

CASSETTES = Path(__file__).parent / "cassettes"
REDACTED = "REDACTED"
IS_RECORDING = bool(os.environ.get("BISONSYNC_RECORD"))

# What says how an answer was sent rather than what it is; the length would be wrong after scrubbing.
_HEADERS_KEPT = {"content-type", "date", "retry-after", "location"}
_SECRET_NAME = re.compile(r"secret|token|password|hash", re.IGNORECASE)
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
_ORIGIN = re.compile(r"https?://[^/\"'\s\\<>]+")
_HOOK_SECRET = re.compile(r"(?<=/hooks/)[^/\"'\s\\?#]+")


@dataclass(frozen=True)
class Recorded:
    """The host to ask, and whose token to ask with; when played, any token is as good as another."""

    url: str
    admin_key: str
    token_of: Callable[[int], str]
    _closing: contextlib.ExitStack

    def client(self, clock: HandClock | None = None) -> InstanceClient:
        """A client of this host, closed with the cassette."""
        client = client_of(self.url, clock)
        self._closing.callback(client.close)
        return client


@contextlib.contextmanager
def cassette(
    name: str, *, prepare: Callable[[Sandbox], object] = lambda _: None, **sandbox: Any
) -> Generator[Recorded]:
    """Play a cassette; or record it from a sandbox with these fields, after ``prepare`` has changed it."""
    path = CASSETTES / f"{name}.yaml"
    if not IS_RECORDING:
        with contextlib.ExitStack() as closing, player().use_cassette(str(path)) as tape:
            yield Recorded(HOST, TOKEN, lambda workspace: TOKEN, closing)
        assert tape.all_played, f"{path.name} holds answers that nobody asked for"
        return
    path.unlink(missing_ok=True)
    tape = player(record_mode="once").use_cassette(str(path))
    with Sandbox(**sandbox) as host, contextlib.ExitStack() as closing, tape:
        prepare(host)
        yield Recorded(host.url, host.super_admin_token, host.mint, closing)


def player(record_mode: str = "none") -> vcr.VCR:
    """A recorder that asks nobody unless it records, and keeps nothing that it should not."""
    return vcr.VCR(
        record_mode=record_mode,
        match_on=["method", "path", "query", "body"],
        filter_headers=[("authorization", REDACTED), "cookie", "user-agent", "host"],
        before_record_request=_scrub_request,
        before_record_response=scrub_response,
        decode_compressed_response=True,
    )


def _scrub_request(request: Any) -> Any:
    request.uri = _ORIGIN.sub(HOST, request.uri)
    return request


def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
    """A copy of a recorded answer without anybody's secret, address or name."""
    headers = {name: value for name, value in response["headers"].items() if name.lower() in _HEADERS_KEPT}
    headers = {name: [_scrub_text(text) for text in value] for name, value in headers.items()}
    body = response["body"]["string"]
    try:
        body = json.dumps(_scrub(json.loads(body))).encode()
    except ValueError:
        body = _scrub_text(body.decode(errors="replace")).encode()
    return {**response, "headers": headers, "body": {"string": body}}


def _scrub(value: Any) -> Any:
    if isinstance(value, dict):
        named = _names(value)
        return {
            key: REDACTED if isinstance(item, str) and _SECRET_NAME.search(key) else named.get(key, _scrub(item))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    return _scrub_text(value) if isinstance(value, str) else value


def _names(value: dict[str, Any]) -> dict[str, Any]:
    """What stands for the names in an object: of people, workspaces and their own tags."""
    if "email" in value:
        host = "mail.example.com" if value.get("imap_server") else None
        return {"name": "Sam Sender", "email_signature": None, "imap_server": host, "smtp_server": host}
    if "personal_team" in value or set(value) == {"name"}:
        return {"name": f"Workspace {value.get('id', '')}"}
    if value.get("default") is False:
        return {"name": f"Tag {value.get('id')}"}
    return {}


def _scrub_text(text: str) -> str:
    # Different addresses stay different.
    text = _ADDRESS.sub(lambda found: f"{hashlib.sha256(found[0].encode()).hexdigest()[:8]}@example.com", text)
    return _ORIGIN.sub(HOST, _HOOK_SECRET.sub(REDACTED, text))
