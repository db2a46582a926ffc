"""The three shapes of a run: over workspaces, alone on all hosts, over instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bisonsync.errors import ArgumentRefused, ConfigError
from bisonsync.keys import WorkspaceKey
from bisonsync.run import Claim, InstanceAccess, Result, Run, SetupRun, WorkspacesRun, hand_out
from bisonsync.runner import ledger
from bisonsync.runner.claims import SharedWorkspaces
from bisonsync.runner.leasing import LeaseKeeper
from bisonsync.runner.left_out import with_left_out
from bisonsync.runner.selection import choose
from bisonsync.runner.session import Session
from bisonsync.runner.stopping import until_stopped

if TYPE_CHECKING:
    from bisonsync.store.db import Connection
    from bisonsync.store.leases import Lease
    from bisonsync.store.registry import WorkspaceRow
    from bisonsync.store.tokens import TokenRow

UnderLeases = Callable[["Sequence[WorkspaceRow]", "Mapping[WorkspaceKey, Lease]"], Result]
# The workspaces that -w and --instance mean, of those that are registered.
Pick = Callable[["Sequence[WorkspaceRow]", Sequence[str], Sequence[str]], "list[WorkspaceRow]"]


def over_workspaces(
    session: Session,
    body: Callable[[WorkspacesRun], Result],
    *,
    pick: Pick = choose,
    resource: str | None = None,
    leased: bool = True,
    in_ledger: bool = True,
) -> Result:
    """Run ``body`` over the chosen workspaces, under leases and with a ledger row (neither in a dry run).

    ``pick`` chooses by -w and --instance, by default those that are active. What reads the list ``resource`` of each
    shares them with other hosts, unless somebody wants just these (-w) or waits for them (--lock-wait). What writes
    nothing of a workspace needs no lease; what only looks needs no ledger row.
    """
    from bisonsync.store import registry

    _begin(session, in_ledger=in_ledger)
    options = session.options
    rows = pick(session.bookkeeping.run(registry.list_workspaces), options.workspaces, options.instances)
    if not leased or options.dry_run:
        return body(_workspaces_run(session, rows, {}, hand_out(rows)))
    if resource is None or options.workspaces or options.lock_wait_seconds:
        return with_leases(
            session, rows, lambda held, leases: body(_workspaces_run(session, held, leases, hand_out(held)))
        )
    shared = SharedWorkspaces(LeaseKeeper(session), session.job, resource, rows)
    shared.require_any()
    result = body(_workspaces_run(session, rows, shared.leases, shared.claim))
    return with_left_out(result, shared.left_out(told={outcome.key for outcome in result.workspaces}))


def alone(session: Session, body: Callable[[Run], Result]) -> Result:
    """Run ``body`` as the only run of this job on any host, with a ledger row (neither in a dry run).

    Its one lease is of no workspace. Raises LeaseBusy when another run has it.
    """
    _begin(session)
    lease = None if session.options.dry_run else LeaseKeeper(session).take_for_job(session.job)
    return body(Run(**_basics(session), lease=lease))


def over_instances(session: Session, body: Callable[[SetupRun], Result], *, names: Sequence[str] = ()) -> Result:
    """Run ``body`` over the configured instances (those of --instance, or ``names``), with a ledger row."""
    from bisonsync.runner import upkeep
    from bisonsync.runner.clients import open_client
    from bisonsync.store import leases

    wanted = [name.lower() for name in (names or session.options.instances)]
    configured = session.settings.instances
    unknown = [name for name in wanted if name not in configured]
    hint = "add [instances.NAME] with base_url and api_key_file, or set BISONSYNC_INSTANCES__NAME__BASE_URL"
    if unknown:
        raise ArgumentRefused(f"instance {unknown[0]!r} is not in the settings", hint=hint)
    if not configured:
        raise ConfigError("no instance is in the settings", hint=hint)
    _begin(session)
    if session.is_in_ledger:
        session.bookkeeping.run(lambda conn: upkeep.write_settings(session, conn))
    deadline = session.start_deadline()
    instances = {
        name: InstanceAccess(
            client=open_client(session, name, instance, deadline=deadline),
            api_key=instance.api_key.get_secret_value() if instance.api_key else None,
            workspace_keys={number: own.api_key.get_secret_value() for number, own in instance.workspaces.items()},
            concurrency=instance.concurrency,
        )
        for name, instance in configured.items()
        if not wanted or name in wanted
    }
    run = SetupRun(
        run_id=session.run_id,
        host=leases.host_name(),
        bookkeeping=session.bookkeeping,
        instances=instances,
        dry_run=session.options.dry_run,
        max_shrink=session.settings.polling.max_shrink,
    )
    return until_stopped(session, lambda: body(run))


def setup_run(session: Session) -> SetupRun:
    """For commands that change the registry without asking the API."""
    return SetupRun(session.run_id, "", session.bookkeeping, {}, session.options.dry_run, 0.0)


def with_leases(session: Session, rows: Sequence[WorkspaceRow], body: UnderLeases) -> Result:
    """Do ``body`` with those of ``rows`` whose lease for this job is ours now; with all in a dry run.

    Raises LeaseBusy.
    """
    if session.options.dry_run:
        return body(rows, {})
    taken = LeaseKeeper(session).take(session.job, rows)
    held = [row for row in rows if row.key in taken.leases]
    return with_left_out(body(held, taken.leases), taken.left_out)


def _begin(session: Session, *, in_ledger: bool = True) -> None:
    session.wait_for_jitter()
    if session.options.dry_run or not in_ledger:
        session.require_schema()
    else:
        ledger.open_run(session)


def _basics(session: Session) -> dict[str, Any]:
    """What every run is given."""
    return {
        "job": session.job,
        "run_id": session.run_id,
        "started_at": session.started_at,
        "clock": session.clock,
        "deadline": session.start_deadline(),
        "db": session.db,
        "bookkeeping": session.bookkeeping,
        "dry_run": session.options.dry_run,
        "progress": session.show_progress,
    }


def _workspaces_run(
    session: Session, rows: Sequence[WorkspaceRow], held: Mapping[WorkspaceKey, Lease], claim: Claim
) -> WorkspacesRun:
    from bisonsync.runner import upkeep
    from bisonsync.runner.access import access_of
    from bisonsync.runner.clients import open_client
    from bisonsync.store import tokens

    basics = _basics(session)
    configured = session.settings.instances
    clients = {
        name: open_client(session, name, configured[name], deadline=basics["deadline"])
        for name in sorted({row.bison_instance for row in rows})
        if name in configured
    }

    def prepare(conn: Connection) -> list[TokenRow]:
        if session.is_in_ledger:
            upkeep.write_settings(session, conn)
        return tokens.list_tokens(conn)

    stored = {row.key: row.token for row in session.bookkeeping.run(prepare)}
    return WorkspacesRun(
        **basics,
        workspaces=tuple(rows),
        leases=held,
        claim=claim,
        clients=clients,
        concurrency={name: configured[name].concurrency for name in clients},
        access={row.key: access_of(row.key, configured.get(row.bison_instance), stored.get(row.key)) for row in rows},
    )
