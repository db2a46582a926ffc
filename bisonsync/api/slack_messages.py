"""What is posted to Slack: the words of alarms in blocks, within Slack's limits.

Everything stands in plain text objects: no formatting, mention or link can come of a name. Slack still decodes ``&``,
``<`` and ``>`` in them, so these are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Kind = Literal["opening", "worse", "page", "reminder", "recovery"]
Body = dict[str, Any]

MAX_HEADER = 150
MAX_SECTION = 3000
# Slack allows 50; a message that long is read by nobody.
MAX_FINDINGS = 30
MAX_LINE = 300
MAX_DETAIL = 1500
MAX_TEXT = 3000
REPEATED = "(repeated) "
UNBOOKED = " (without the book)"
_UNBOOKED_NOTE = (
    "Sent by {host} from its own memory: the book of alarms in the database cannot be kept. Other hosts may tell the "
    "same. What is over is told when the book goes on."
)

_SIGNS = {"CRITICAL": "🔴", "WARNING": "🟠", "UNKNOWN": "⚪"}
_HEADINGS: dict[Kind, str] = {
    "opening": "{sign} {state}: {what}",
    "worse": "{sign} Worse, now {state}: {what}",
    "page": "{sign} {state} for long, paged again: {what}",
    "reminder": "{sign} Still {state}: {what}",
    "recovery": "✅ Over: {what}",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a message tells.

    ``about`` names the client whose channel it goes to, if it is one's. ``state`` is that of now, of a recovery the
    worst there was. ``findings``: what was found, as subject and detail. ``also`` are the checks that fail because of
    this one, each with the number of its workspaces.
    ``is_unbooked``: told without the book of alarms, by ``host`` where the reader may know.
    """

    kind: Kind
    check: str
    about: str
    state: str
    detail: str
    since: datetime
    at: datetime
    hint: str = ""
    findings: Sequence[tuple[str, str]] = ()
    also: Sequence[tuple[str, int]] = ()
    is_unbooked: bool = False
    host: str = ""


def alarm_message(alarm: Alarm) -> Body:
    """The message of an alarm."""
    check = alarm.check + (UNBOOKED if alarm.is_unbooked else "")
    what = f"{check}: {alarm.about}" if alarm.about else check
    heading = _HEADINGS[alarm.kind].format(sign=_SIGNS.get(alarm.state, "⚪"), state=alarm.state, what=what)
    parts = [
        cut(alarm.detail, MAX_DETAIL),
        *_findings(alarm),
        *([f"Also failing because of this: {_consequences(alarm.also)}"] if alarm.also else []),
        *([f"Next: {cut(alarm.hint, MAX_DETAIL)}"] if alarm.hint else []),
        *([_UNBOOKED_NOTE.format(host=cut(alarm.host, MAX_LINE))] if alarm.host else []),
    ]
    return _message(heading, [part for part in parts if part], _when(alarm))


def check_message(host: str) -> Body:
    """The message by which an operator sees that a channel works."""
    words = "This is a test: nothing is wrong. Alarms of this channel will look like it."
    return _message("Test of bisonsync", [words], cut(f"sent by 'bisonsync alerts test' on {host}", MAX_LINE))


def repeated(body: Body) -> Body:
    """The same message, marked as one that may have been seen before."""
    blocks = [dict(block) for block in body["blocks"]]
    first = dict(blocks[0]["text"])
    blocks[0]["text"] = {**first, "text": REPEATED + first["text"]}
    return {**body, "text": REPEATED + body["text"], "blocks": blocks}


def cut(text: str, limit: int) -> str:
    """At most ``limit`` of ``text`` on one line, as Slack reads it: escaped, and without what steers or hides."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    kept: list[str] = []
    room = limit
    for number, char in enumerate(line):
        escaped = _ESCAPES.get(char, char)
        room -= _length(escaped)
        if room < (1 if number + 1 < len(line) else 0):
            return "".join(kept).rstrip() + "…"
        kept.append(escaped)
    return "".join(kept)


_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _length(text: str) -> int:
    """Nobody says whether Slack counts characters or UTF-16 units: the larger number is safe."""
    return len(text.encode("utf-16-le")) // 2


def _message(heading: str, parts: Sequence[str], footer: str) -> Body:
    """``parts`` and ``footer`` are escaped already."""
    header = cut(heading, MAX_HEADER - len(REPEATED))
    text = header
    for part in (*parts, footer):
        if _length(text) + _length(part) + len("\n" + REPEATED) > MAX_TEXT:
            break
        text += f"\n{part}"
    return {
        "text": text,
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": [
            {"type": "header", "text": _plain(header)},
            *({"type": "section", "text": _plain(part)} for part in parts),
            {"type": "context", "elements": [_plain(footer)]},
        ],
    }


def _plain(text: str) -> Body:
    return {"type": "plain_text", "text": text, "emoji": False}


def _findings(alarm: Alarm) -> list[str]:
    """What was found, a line each, in as many parts as it takes."""
    shown = alarm.findings[:MAX_FINDINGS]
    lines = [f"• {cut(f'{subject}: {detail}' if detail else subject, MAX_LINE - 2)}" for subject, detail in shown]
    if len(alarm.findings) > len(shown):
        lines.append(f"and {len(alarm.findings) - len(shown)} more")
    return _parts(lines)


def _parts(lines: Iterable[str]) -> list[str]:
    """Lines joined to texts that fit into a section each."""
    parts: list[str] = []
    for line in lines:
        joined = f"{parts[-1]}\n{line}" if parts else line
        if parts and _length(joined) <= MAX_SECTION:
            parts[-1] = joined
        else:
            parts.append(line)
    return parts


def _consequences(also: Sequence[tuple[str, int]]) -> str:
    return cut(", ".join(name + (f" ({_number(count)})" if count else "") for name, count in also), MAX_DETAIL)


def _number(count: int) -> str:
    return f"{count} workspace{'' if count == 1 else 's'}"


def _when(alarm: Alarm) -> str:
    lasted = _span(alarm.at - alarm.since)
    if alarm.kind == "recovery":
        return f"from {_time(alarm.since)} to {_time(alarm.at)} UTC, {lasted}"
    return f"since {_time(alarm.since)} UTC" + (
        f", for {lasted}" if alarm.at - alarm.since >= timedelta(minutes=1) else ""
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _span(length: timedelta) -> str:
    """A length of time in its two largest units."""
    left = max(0, int(length.total_seconds()))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
