"""Keeps one subscription of ours in each workspace: makes it, looks after it, tries it, removes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bisonsync.errors import ApiUnavailable, BisonsyncError, ConfigError
from bisonsync.jobs.webhooks.desk import Desk, Wanted
from bisonsync.polling import crew
from bisonsync.polling.results import verdict_of
from bisonsync.polling.visit import Visit
from bisonsync.run import Problem, Result, WorkspaceOutcome, WorkspacesRun, WorkspaceVerdict
from bisonsync.store import webhook_secrets
from bisonsync.store.db import Connection
from bisonsync.store.registry import WorkspaceRow
from bisonsync.store.webhook_secrets import TestDelivery
from bisonsync.subscriptions import mask_url, spellings

__all__ = ["COUNTS", "Wanted", "ensure", "list_webhooks", "remove", "test", "verify"]

DIFFERENT = 9
LOOK_SECONDS = 0.5
_ALL = ("workspaces_total", "workspaces_ok", "workspaces_failed")
COUNTS: Mapping[str, tuple[str, ...]] = {
    "ensure": (*_ALL, "created", "updated", "kept", "doubles", "doubles_removed", "foreign"),
    "list": (*_ALL, "webhooks", "ours"),
    "verify": (*_ALL, "differences"),
    "test": (*_ALL, "arrived"),
    "remove": (*_ALL, "removed"),
}
_ENSURE = "run 'bisonsync webhooks ensure'"
_DOUBLES = "run 'bisonsync webhooks ensure --remove-doubles'"
_FOREIGN = "look whose it is; 'bisonsync webhooks verify --allow-foreign' leaves such out"

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Report:
    """What was found and done in one workspace. ``webhooks`` and ``changes`` are as --json shows them."""

    verdict: WorkspaceVerdict
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    webhooks: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    changes: tuple[str, ...] = ()


def ensure(run: WorkspacesRun, wanted: Wanted, *, remove_doubles: bool = False) -> Result:
    """Give each workspace exactly one subscription to what is wanted and its host knows.

    The SHA-256 of a new secret is committed before the platform hears of it; a change is asked for once, and looked for
    in the list when its answer is lost. Doubles go only with ``remove_doubles``, what is not ours never.
    """
    wanted.require_address()
    desk = Desk(run, wanted)

    def told(counts: Mapping[str, int]) -> str:
        parts = [f"{counts['created']} webhooks made, {counts['updated']} changed, {counts['kept']} right already"]
        if counts["doubles_removed"]:
            parts.append(f"{counts['doubles_removed']} doubles removed")
        if counts["doubles"]:
            parts.append(f"{counts['doubles']} doubles left (ensure --remove-doubles)")
        if counts["foreign"]:
            parts.append(f"{counts['foreign']} of others left alone")
        return ", ".join(parts)

    return _over(desk, "ensure", partial(_ensure, desk, remove_doubles=remove_doubles), told)


def list_webhooks(run: WorkspacesRun, wanted: Wanted) -> Result:
    """Every webhook of each workspace, and whose it is."""
    desk = Desk(run, wanted)
    return _over(desk, "list", partial(_list, desk), lambda _: "")


def verify(run: WorkspacesRun, wanted: Wanted, *, allow_foreign: bool = False) -> Result:
    """Name all in which the webhooks of each workspace are not as they are wanted: each is a problem of exit 9."""
    wanted.require_address()
    desk = Desk(run, wanted)

    def told(counts: Mapping[str, int]) -> str:
        return f"{counts['workspaces_ok']} of {counts['workspaces_total']} workspaces as wanted" + (
            f", {counts['differences']} differences" if counts["differences"] else ""
        )

    return _over(desk, "verify", partial(_verify, desk, allow_foreign=allow_foreign), told)


def test(run: WorkspacesRun, wanted: Wanted, *, wait_seconds: float) -> Result:
    """Have each workspace's host deliver its sample to our test address, and wait until the log has it."""
    wanted.require_address()
    desk = Desk(run, wanted)

    def told(counts: Mapping[str, int]) -> str:
        return f"{counts['arrived']} of {counts['workspaces_total']} test deliveries arrived"

    return _over(desk, "test", partial(_test, desk, wait_seconds=wait_seconds), told)


def remove(run: WorkspacesRun, wanted: Wanted) -> Result:
    """Remove what is ours in each workspace, and take no deliveries any more under its stored secrets."""
    desk = Desk(run, wanted)
    given = sum(row.key in wanted.secrets for row in run.workspaces)
    still = f"; {given} secrets stand in the settings and go on being taken" if given else ""
    return _over(desk, "remove", partial(_remove, desk), lambda counts: f"{counts['removed']} webhooks removed{still}")


def _ensure(desk: Desk, visit: Visit, *, remove_doubles: bool) -> _Report:
    look = desk.look(visit)
    events = desk.events(look)
    ours, doubles = look.ours, look.of("double", "retired")
    changes = [] if ours is None else desk.changes(ours, events)
    action = "created" if ours is None else "updated" if changes else "kept"
    problems: list[Problem] = []
    if not desk.run.dry_run:
        if action != "kept":
            kept, secret = desk.create(look, events) if ours is None else desk.replace(look, ours, events)
            if left := desk.changes_left(kept, secret, events):
                message = f"the host was told otherwise, but our webhook {', '.join(left)}"
                problems.append(Problem("drift", message, "run 'bisonsync webhooks verify'", look.name))
        if remove_doubles:
            desk.remove(look, doubles)
    counts = {
        action: 1,
        "doubles_removed" if remove_doubles else "doubles": len(doubles),
        "foreign": len(look.of("foreign")),
    }
    return _Report("complete", counts, look.listed(), tuple(problems), tuple(changes))


def _list(desk: Desk, visit: Visit) -> _Report:
    look = desk.look(visit)
    return _Report("complete", {"webhooks": len(look.found), "ours": len(look.of("ours"))}, look.listed())


def _verify(desk: Desk, visit: Visit, *, allow_foreign: bool) -> _Report:
    look = desk.look(visit)
    events = desk.events(look)
    told: list[tuple[str, str, str]] = []
    if look.ours is None:
        told.append(("missing", "it has no webhook of ours", _ENSURE))
    else:
        told += [("drift", f"our webhook {change}", _ENSURE) for change in desk.changes(look.ours, events)]
    for each in look.of("double", "retired"):
        told.append((each.kind, f"webhook {each.webhook.id} {each.note}", _DOUBLES))
    for each in () if allow_foreign else look.of("foreign"):
        whose = f": it {each.note}" if each.note else ""
        told.append(
            ("foreign", f"webhook {each.webhook.id} to {mask_url(each.webhook.url)} is not ours{whose}", _FOREIGN)
        )
    problems = tuple(Problem(kind, message, hint, look.name, DIFFERENT) for kind, message, hint in told)
    return _Report("incomplete" if problems else "complete", {"differences": len(told)}, look.listed(), problems)


def _test(desk: Desk, visit: Visit, *, wait_seconds: float) -> _Report:
    look = desk.look(visit)
    ours = look.ours
    if ours is None:
        raise ConfigError(f"workspace {look.name} has no webhook of ours to try", hint=_ENSURE)
    event = desk.events(look)[0]
    if desk.run.dry_run:
        return _Report("complete", webhooks=look.listed())
    since = desk.run.bookkeeping.run(webhook_secrets.get_position)
    url, said = desk.test_url(ours), "the host says that it sent it"
    try:
        look.hooks.client.send_test_event(
            look.hooks.token, event, url, who=look.hooks.who, hide=spellings(ours.secret or "")
        )
    except ApiUnavailable as error:
        if error.is_carried_out is False:
            raise
        said = f"the host said: {error.message}"

    def find(conn: Connection) -> TestDelivery | None:
        return webhook_secrets.find_test_delivery(conn, *visit.row.key, since)

    arrived = _wait(desk.run, find, wait_seconds)
    if arrived is not None and arrived.status == "test":
        return _Report("complete", {"arrived": 1}, look.listed())
    problem = _not_arrived(look.name, url, f"within {wait_seconds:.0f} s; {said}", arrived)
    return _Report("failed", {}, look.listed(), (problem,))


def _wait(
    run: WorkspacesRun, find: Callable[[Connection], TestDelivery | None], wait_seconds: float
) -> TestDelivery | None:
    """Look again and again until a test has come; in the end whatever else has."""
    give_up_at = min(run.clock.monotonic() + wait_seconds, run.deadline)
    while True:
        found = run.bookkeeping.run(find)
        if (found is not None and found.status == "test") or run.clock.monotonic() >= give_up_at:
            return found
        run.clock.sleep(LOOK_SECONDS)


def _not_arrived(workspace: str, url: str, how: str, other: TestDelivery | None) -> Problem:
    if other is None:
        origin = url.partition("/hooks/")[0]
        hint = f"does 'bisonsync receive-webhooks' run, and does public_url lead to it? try: curl {origin}/healthz"
        return Problem("not_arrived", f"no test delivery came {how}", hint, workspace)
    why = f", {other.error_message}" if other.error_message else ""
    message = f"no test delivery came {how}; another one did and ended as {other.status}{why}"
    return Problem("not_arrived", message, "a proxy may cut /test off; see 'bisonsync inbox list'", workspace)


def _remove(desk: Desk, visit: Visit) -> _Report:
    look = desk.look(visit)
    mine = look.of("ours", "double", "retired")
    if not desk.run.dry_run:
        desk.remove(look, mine)
        desk.retire(visit)
    return _Report("complete", {"removed": len(mine)}, look.listed())


def _over(
    desk: Desk, command: str, work: Callable[[Visit], _Report], told: Callable[[Mapping[str, int]], str]
) -> Result:
    """Do the work in every workspace, side by side; an error becomes the workspace's own problem. Raises Stopped."""
    run = desk.run

    def counted(visit: Visit) -> _Report:
        report = work(visit)
        visit.tally.add(1)
        return report

    plan = crew.Plan("workspaces", expected=len(run.workspaces), refusal="nothing was changed")
    visited = crew.over(run, counted, _failed, plan)
    if visited.stop is not None:
        raise visited.stop
    reports = visited.answers
    counts = dict.fromkeys(COUNTS[command], 0)
    for report in reports.values():
        for name, count in report.counts.items():
            counts[name] += count
    counts["workspaces_total"] = len(reports)
    counts["workspaces_ok"] = sum(report.verdict == "complete" for report in reports.values())
    counts["workspaces_failed"] = sum(report.verdict in ("failed", "guarded") for report in reports.values())
    unknown = desk.unknown_events
    said = "".join(f"; {instance} does not know {', '.join(names)}" for instance, names in unknown.items())
    # A difference is told by its own exit code, as long as every workspace could be looked at.
    counts_as_done = command != "verify" or counts["workspaces_failed"] > 0
    return Result(
        counts,
        workspaces=tuple(_outcome(row, reports[row.key], may_count=counts_as_done) for row in run.workspaces),
        summary=told(counts) + said,
        details={
            "webhooks": [entry for report in reports.values() for entry in report.webhooks],
            "changes": {str(key): list(report.changes) for key, report in reports.items() if report.changes},
            "unknown_events": unknown,
        },
    )


def _failed(row: WorkspaceRow, error: BisonsyncError) -> _Report:
    return _Report(verdict_of(error), problems=(Problem.of(error, str(row.key)),))


def _outcome(row: WorkspaceRow, report: _Report, *, may_count: bool) -> WorkspaceOutcome:
    is_done = report.verdict in ("complete", "incomplete")
    return WorkspaceOutcome(
        *row.key,
        row.workspace_name,
        report.verdict,
        report.counts,
        problems=report.problems,
        committed=is_done and may_count,
    )
