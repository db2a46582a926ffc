"""What a look makes of an episode: how each check stands, for all and for each client, and which message is due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, cast

from bisonsync.api.slack_messages import Kind
from bisonsync.checks.check import CRITICAL, NOT_IN_USE, OK, UNKNOWN, CheckResult, Finding, State, worst
from bisonsync.keys import WorkspaceKey
from bisonsync.store.alerts import ClientRow, Episode

# The agency's own channel: [alerts] slack_webhook_url.
MAIN_CHANNEL = ""
MAX_DETAIL = 2000

# Explained: bad, but because of another check that is alarmed. Unseen: nobody could look.
Standing = Literal["bad", "good", "explained", "unseen"]


@dataclass(frozen=True, slots=True)
class Policy:
    """When messages are due. ``channels``: the names of those that are set up, MAIN_CHANNEL among them if it is."""

    channels: frozenset[str] = frozenset()
    after: int = 2
    close_after: int = 2
    reminder: timedelta = timedelta(hours=4)


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a check stands in this look: for all, or for one client with a channel of its own."""

    check: str
    standing: Standing
    state: State
    detail: str
    scope: str = ""
    about: str = ""
    channel: str | None = None
    value: float | None = None
    unit: str = ""
    hint: str = ""
    findings: tuple[Finding, ...] = ()
    also: tuple[tuple[str, int], ...] = ()
    is_beyond_page: bool = False
    caused_by: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The episode it belongs to."""
        return self.check, self.scope


def sight(
    results: Sequence[CheckResult],
    clients: Sequence[ClientRow],
    policy: Policy,
    *,
    alarmed: Iterable[str] = (),
) -> list[Sighting]:
    """How each check stands, and how it stands for each client. ``alarmed``: checks known to be told of already."""
    causes = _Causes(results, frozenset(alarmed))
    channel = MAIN_CHANNEL if MAIN_CHANNEL in policy.channels else None
    seen = [_sight_check(result, causes, channel) for result in results]
    for result in results:
        found: dict[WorkspaceKey, list[Finding]] = {}
        for finding in result.findings:
            if finding.workspace is not None and _is_bad(finding.state):
                found.setdefault(finding.workspace, []).append(finding)
        seen += [_sight_client(result, found.get(client.key, []), client, causes) for client in clients]
    return seen


def follow(
    episode: Episode | None, seen: Sighting, now: datetime, policy: Policy
) -> tuple[Episode | None, Kind | None]:
    """What an observation makes of an open episode (None: there is none), and the message that is due."""
    if episode is not None and episode.last_seen_at == now:
        return episode, None
    if seen.standing == "good":
        return _followed_by_good(episode, now, policy, seen)
    if seen.standing != "bad":
        explained = None if episode is None else replace(episode, last_seen_at=now, caused_by=seen.caused_by)
        return explained, None
    before = episode or Episode(seen.check, seen.scope, seen.state, first_bad_at=now, last_seen_at=now)
    after = replace(
        before,
        state=seen.state,
        last_seen_at=now,
        bad_count=before.bad_count + 1,
        good_count=0,
        value=seen.value if seen.value is not None and math.isfinite(seen.value) else None,
        unit=seen.unit,
        detail=_storable(seen.detail),
        hint=_storable(seen.hint),
        workspaces=list(dict.fromkeys(str(f.workspace) for f in seen.findings if f.workspace is not None)),
        caused_by=None,
    )
    if after.opened_at is None:
        if after.bad_count < policy.after:
            return after, None
        after = replace(after, opened_at=now)
    return _told(after, seen, now, policy)


def joined(book: Episode, told: Episode) -> Episode:
    """An episode of the book with what was told of it elsewhere while the book could not be kept."""
    if told.told_state is None:
        return replace(book, bad_count=max(book.bad_count, told.bad_count))
    return replace(
        book,
        first_bad_at=min(book.first_bad_at, told.first_bad_at),
        bad_count=max(book.bad_count, told.bad_count),
        opened_at=book.opened_at or told.opened_at,
        channel=told.channel if book.told_state is None else book.channel,
        told_state=worst([cast("State", book.told_state or OK), cast("State", told.told_state)]),
        paged_at=book.paged_at or told.paged_at,
        last_message_at=max(
            (at for at in (book.last_message_at, told.last_message_at) if at is not None), default=None
        ),
        reminders=max(book.reminders, told.reminders),
    )


def _followed_by_good(
    episode: Episode | None, now: datetime, policy: Policy, seen: Sighting
) -> tuple[Episode | None, Kind | None]:
    if episode is None:
        return None, None
    after = replace(episode, last_seen_at=now, good_count=episode.good_count + 1, bad_count=0, caused_by=None)
    if after.good_count < policy.close_after:
        return after, None
    after = replace(after, closed_at=now)
    channel = _channel(after, seen, policy)
    if after.told_state is None or channel is None:
        return after, None
    return replace(after, channel=channel, last_message_at=now), "recovery"


def _told(episode: Episode, seen: Sighting, now: datetime, policy: Policy) -> tuple[Episode, Kind | None]:
    """An open episode that is bad now, and the message that is due."""
    channel = _channel(episode, seen, policy)
    kind = _due(episode, seen, now, policy) if channel is not None else None
    if kind is None:
        return episode, None
    return (
        replace(
            episode,
            channel=channel,
            told_state=worst([cast("State", episode.told_state or OK), seen.state]),
            paged_at=episode.paged_at or (now if seen.is_beyond_page else None),
            last_message_at=now,
            reminders=episode.reminders + (kind == "reminder"),
        ),
        kind,
    )


def _due(episode: Episode, seen: Sighting, now: datetime, policy: Policy) -> Kind | None:
    if episode.told_state is None:
        return "opening"
    if seen.is_beyond_page and episode.paged_at is None:
        return "page"
    if seen.state == CRITICAL != episode.told_state:
        return "worse"
    if episode.last_message_at is None or now - episode.last_message_at >= policy.reminder:
        return "reminder"
    return None


def _channel(episode: Episode, seen: Sighting, policy: Policy) -> str | None:
    """Where it was told of before, as long as that is set up: an end is told where the beginning was."""
    return episode.channel if episode.channel in policy.channels else seen.channel


@dataclass(frozen=True, slots=True)
class _Causes:
    """Tells what is explained by a check that is alarmed: no two may excuse each other, or nobody would be told."""

    results: Sequence[CheckResult]
    alarmed: frozenset[str]
    by_name: dict[str, CheckResult] = field(default_factory=dict[str, CheckResult])

    def __post_init__(self) -> None:
        self.by_name.update({result.name: result for result in self.results})

    def explain(self, cause: str | None, check: str) -> bool:
        """Whether ``cause``, or what is behind it, is alarmed itself."""
        visited = {check}
        while cause is not None and cause not in visited:
            visited.add(cause)
            if cause not in self.by_name:
                return cause in self.alarmed
            result = self.by_name[cause]
            if not _is_bad(result.state):
                return False
            if result.caused_by is None:
                return True
            cause = result.caused_by
        return False

    def also(self, check: str, workspace: WorkspaceKey | None = None) -> tuple[tuple[str, int], ...]:
        """The checks that fail because of ``check``, with the number of their workspaces."""
        found: list[tuple[str, int]] = []
        for result in self.results:
            caused = [
                finding
                for finding in result.findings
                if finding.caused_by == check
                and _is_bad(finding.state)
                and (workspace is None or finding.workspace == workspace)
            ]
            is_caused = workspace is None and result.caused_by == check and _is_bad(result.state)
            if result.name != check and (caused or is_caused):
                found.append((result.name, len({finding.workspace for finding in caused if finding.workspace})))
        return tuple(found)


def _is_bad(state: State) -> bool:
    return state not in (OK, NOT_IN_USE)


def _sight_check(result: CheckResult, causes: _Causes, channel: str | None) -> Sighting:
    bad = [finding for finding in result.findings if _is_bad(finding.state)]
    own = tuple(finding for finding in bad if not causes.explain(finding.caused_by, result.name))
    standing: Standing = "good"
    if _is_bad(result.state):
        is_explained = causes.explain(result.caused_by, result.name) or (bad and not own)
        standing = "explained" if is_explained else "bad"
    page = result.thresholds.get("page")
    return Sighting(
        result.name,
        standing,
        # What another check tells of is not told here.
        worst([finding.state for finding in own]) if own and len(own) < len(bad) else result.state,
        result.detail,
        channel=channel,
        value=result.value,
        unit=result.unit,
        hint=result.hint,
        findings=own,
        also=causes.also(result.name),
        # A subject that another check tells of may be the oldest.
        is_beyond_page=any("page" in finding.kinds for finding in own)
        if own
        else page is not None and result.value is not None and result.value > page.value,
        caused_by=(result.caused_by or bad[0].caused_by) if standing == "explained" else None,
    )


def _sight_client(result: CheckResult, bad: Sequence[Finding], client: ClientRow, causes: _Causes) -> Sighting:
    """What concerns one client alone: of nobody else is anything told in its channel."""
    own = tuple(finding for finding in bad if not causes.explain(finding.caused_by, result.name))
    standing: Standing = "bad" if own else "explained" if bad else "good"
    if own and causes.explain(result.caused_by, result.name):
        standing = "explained"
    elif standing == "good" and result.state == UNKNOWN and not result.findings:
        standing = "unseen"
    return Sighting(
        result.name,
        standing,
        worst([finding.state for finding in own or bad]),
        own[0].detail if own else "",
        scope=str(client.key),
        about=client.name,
        channel=client.channel,
        findings=own,
        also=causes.also(result.name, client.key),
        caused_by=(result.caused_by or bad[0].caused_by) if standing == "explained" else None,
    )


def _storable(text: str) -> str:
    """The text as Postgres takes it: no NUL, no lone surrogate."""
    return text[:MAX_DETAIL].replace("\x00", "").encode("utf-8", "replace").decode()
