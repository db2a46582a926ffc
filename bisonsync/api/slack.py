"""Posts messages to Slack's incoming webhooks. Their addresses are secrets: no error, log or exception shows one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from bisonsync.api.answers import retry_after_seconds
from bisonsync.api.http import Answer, Http
from bisonsync.api.quoting import quote
from bisonsync.errors import ConfigError
from bisonsync.retry import Transient

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 10.0
DEFAULT_RETRY_AFTER_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
# Refused for what it says, not for where it goes.
_ABOUT_THE_MESSAGE = frozenset({400, 413, 422})
# A gateway's or a server's accident, after which the message may be there all the same; 503 says that it is not.
_NOT_DONE = frozenset({503})
# Slack gives its reason as one word such as channel_is_archived.
_REASON = re.compile(r"[a-z][a-z_]{2,59}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one message.

    ``may_have_arrived``: no answer that could be believed. ``is_refused``: trying soon again would not help.
    ``is_about_message``: other messages may fare better. ``retry_after_seconds``: what a 429 asked for.
    """

    is_delivered: bool
    error: str = ""
    may_have_arrived: bool = False
    is_refused: bool = False
    is_about_message: bool = False
    retry_after_seconds: float | None = None


class SlackSender:
    """Posts to webhooks by the names of their channels, one message a call; never raises for what Slack does."""

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        user_agent: str,
        monotonic: Callable[[], float],
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        self._paths: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._monotonic = monotonic
        self._patience = connect_timeout_seconds + read_timeout_seconds
        for channel, url in urls.items():
            parts = urlsplit(url)
            self._origins[channel] = f"{parts.scheme}://{parts.netloc}"
            self._paths[channel] = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._https = {
            origin: Http(
                origin,
                user_agent=user_agent,
                connect_timeout_seconds=connect_timeout_seconds,
                read_timeout_seconds=read_timeout_seconds,
                monotonic=monotonic,
            )
            for origin in set(self._origins.values())
        }

    @property
    def channels(self) -> frozenset[str]:
        """The names of the channels that are set up."""
        return frozenset(self._paths)

    def neighbours(self, channel: str) -> frozenset[str]:
        """The channels on the same host, itself included: they are down and up together."""
        return frozenset(name for name, origin in self._origins.items() if origin == self._origins[channel])

    def send(self, channel: str, body: Mapping[str, Any], *, now: datetime) -> Delivery:
        """Post one message. ``now`` is for a Retry-After that is a date."""
        try:
            answer = self._https[self._origins[channel]].send(
                "POST",
                self._paths[channel],
                token="",
                give_up_at=self._monotonic() + self._patience,
                body=json.dumps(body).encode(),
            )
        except Transient as fault:
            return Delivery(False, self._clean(fault.reason, channel), may_have_arrived=fault.was_sent)
        except ConfigError as error:
            return Delivery(False, self._clean(error.message, channel))
        except httpx.InvalidURL:
            return Delivery(False, "the address of its webhook cannot be used", is_refused=True)
        return self._judge(answer, channel, now)

    def _judge(self, answer: Answer, channel: str, now: datetime) -> Delivery:
        status = answer.status
        said = answer.body[:200].decode("utf-8", "replace").strip()
        if 200 <= status < 300:
            if said == "ok":
                return Delivery(True)
            return Delivery(False, f"HTTP {status}, but not the word ok", may_have_arrived=True, is_refused=True)
        if status == 429:
            asked = retry_after_seconds(answer, now) or DEFAULT_RETRY_AFTER_SECONDS
            wait = min(asked, LONGEST_RETRY_AFTER_SECONDS)
            return Delivery(False, "HTTP 429: too many messages", retry_after_seconds=wait)
        error = f"HTTP {status}"
        if _REASON.fullmatch(said) and said not in self._paths[channel]:
            error += f" ({said})"
        if status >= 500 or status < 200:
            return Delivery(False, error, may_have_arrived=status not in _NOT_DONE)
        return Delivery(False, error, is_refused=True, is_about_message=status in _ABOUT_THE_MESSAGE)

    def _clean(self, reason: str, channel: str) -> str:
        """A reason without any part of the address, should the other side have echoed it."""
        for part in re.split(r"[/?&=]", self._paths[channel]):
            if len(part) > 3:
                reason = quote(reason, secret=part)
        return reason
