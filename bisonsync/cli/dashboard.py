"""Looking at the mirror: dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute
from bisonsync.runner.selection import find_workspaces

if TYPE_CHECKING:
    from bisonsync.jobs.dashboard import Accounts, Figures, WorkspaceAccounts
    from bisonsync.keys import WorkspaceKey
    from bisonsync.output import Output
    from bisonsync.run import Problem, Result
    from bisonsync.store.dashboards import FreshnessRow

dashboard = group(invoke_without_command=True, add_completion=False)


@dashboard.callback()
@global_options
def dashboard_(ctx: typer.Context, options: Options) -> None:
    """Show the mirror in figures, and how fresh it is. Bare: accounts.

    \b
    Example:
      bisonsync dashboard
      bisonsync dashboard freshness -w 17
    """
    if ctx.invoked_subcommand is None:
        _accounts(options)


@dashboard.command("accounts", cls=Command)
@global_options
def dashboard_accounts(options: Options) -> None:
    """Show the accounts of each workspace, by connection and provider.

    Sent, replies and bounces are those of the accounts' whole life. The reply
    rate is unique replies in percent of mails sent.

    \b
    Example:
      bisonsync dashboard accounts --instance maverick
    """
    _accounts(options)


@dashboard.command("freshness", cls=Command)
@global_options
def dashboard_freshness(options: Options) -> None:
    """Show how old each list of each workspace is, and whether it is complete.

    fresh: read completely within its interval; stale: within twice that;
    very stale: longer ago; never: not once.

    \b
    Example:
      bisonsync dashboard freshness --json
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import dashboard as job
        from bisonsync.output import age_text
        from bisonsync.run import Result

        rows = job.freshness(session.bookkeeping, _chosen(session))
        columns = ["workspace", "id", "list", "state", "last\nattempt", "last\ncomplete\nread", "every", "records"]
        session.output.table(
            [*columns, "failures\nin a row", *([] if session.output.on_terminal else ["last error"])],
            [
                [
                    row.name or "",
                    str(row.key),
                    row.resource,
                    _words(row.state),
                    row.verdict or "none",
                    age_text(row.age_seconds, units=1),
                    age_text(row.interval_seconds),
                    _records(session.output, row),
                    str(row.consecutive_failures),
                    *([] if session.output.on_terminal else [row.last_error or ""]),
                ]
                for row in rows
            ],
            right=(5, 6, 7, 8),
            spare=(8, 7, 6, 1),
        )
        if session.output.on_terminal:
            session.output.facts(_last_errors(rows))
        counts = {state: sum(row.state == state for row in rows) for state in ("fresh", "stale", "very_stale", "never")}
        counts |= {"lists": len(rows), "incomplete": sum(not row.is_complete for row in rows)}
        problems = () if rows else (_no_workspace(),)
        return Result(counts, problems=problems, details={"freshness": [_freshness_json(row) for row in rows]})

    execute(options, "dashboard-freshness", body)


@dashboard.command("providers", cls=Command)
@global_options
def dashboard_providers(options: Options) -> None:
    """Show what each provider's accounts do: mails, replies, bounces, cost.

    From the last day that snapshot-providers recorded, and the 7 and 30 days
    that end with it. Rates are unique replies and bounces in percent of mails
    sent. The change is that of the 7-day reply rate to the week before: drop,
    lower and higher are more than chance, steady may be chance.

    \b
    Example:
      bisonsync dashboard providers --instance maverick
    """

    def body(session: Session) -> Result:
        from bisonsync.cli.dashboard_providers import show
        from bisonsync.errors import UsageError

        if options.workspaces:
            raise UsageError(
                "the days of providers are kept per instance, not per workspace",
                hint="use --instance, or the SQL function performance_by('workspace', from_date, to_date)",
            )
        keys = _chosen(session)
        return show(session, None if keys is None else sorted({instance for instance, _ in keys}))

    execute(options, "dashboard-providers", body)


def _accounts(options: Options) -> None:
    def body(session: Session) -> Result:
        from bisonsync.jobs import dashboard as job
        from bisonsync.run import Problem, Result

        shown = job.accounts(session.bookkeeping, _chosen(session))
        problems: tuple[Problem, ...] = ()
        if not shown.workspaces:
            problems = (_no_workspace(),)
        elif all(workspace.as_of is None for workspace in shown.workspaces):
            problems = (
                Problem("empty", "no workspace was ever read completely", "run 'bisonsync poll-accounts'", exit_code=0),
            )
        if shown.workspaces:
            _show_accounts(session, shown)
        if shown.needing_attention and not problems:
            number, all_ = len(shown.needing_attention), len(shown.workspaces)
            if session.output.on_terminal:
                session.output.text("")
            message = f"{number} of {all_} workspaces {'is' if number == 1 else 'are'} not fresh and complete"
            session.output.log(f"{message} → bisonsync dashboard freshness", level="warning")
        counts = {"workspaces_total": len(shown.workspaces), **_figures_json(shown.totals)}
        details = {
            "accounts": [_workspace_json(workspace) for workspace in shown.workspaces],
            "providers": [{"provider": name, **_figures_json(figures)} for name, figures in shown.providers.items()],
            "totals": _figures_json(shown.totals),
        }
        counts.pop("reply_rate")
        return Result(counts, problems=problems, details=details)

    execute(options, "dashboard-accounts", body)


def _show_accounts(session: Session, shown: Accounts) -> None:
    from bisonsync.output import age_text

    output = session.output
    figures = ["accounts", "connected", "dis-\nconnected", "sent", "replies", "unique\nreplies"]
    figures += ["unique\nreplies\n/ sent %", "bounced"]
    output.table(
        ["workspace", "id", *figures, "last\ncomplete\nread", "state", "providers"],
        [
            [
                workspace.name,
                str(workspace.key),
                *_figures_cells(output, workspace.figures),
                age_text(workspace.age_seconds, units=1),
                _state(workspace.state, workspace.verdict, is_complete=workspace.is_complete),
                ", ".join(f"{provider} {output.number(number)}" for provider, number in workspace.providers.items()),
            ]
            for workspace in shown.workspaces
        ],
        totals=["all", "", *_figures_cells(output, shown.totals), "", "", ""],
        right=range(2, 11),
        spare=(12, 6, 9, 3, 1, 7),
    )
    output.text("")
    output.table(
        ["provider", *figures],
        [[name, *_figures_cells(output, figures)] for name, figures in shown.providers.items()],
        right=range(1, 9),
        spare=(5,),
    )


def _figures_cells(output: Output, figures: Figures) -> list[str]:
    rate = "-" if figures.reply_rate is None else f"{figures.reply_rate:.2f}"
    numbers = (figures.accounts, figures.connected, figures.disconnected, figures.sent, figures.replies)
    shown = [output.number(number) for number in (*numbers, figures.unique_replies)]
    return [*shown, rate, output.number(figures.bounced)]


def _figures_json(figures: Figures) -> dict[str, Any]:
    return {**asdict(figures), "disconnected": figures.disconnected, "reply_rate": figures.reply_rate}


def _workspace_json(workspace: WorkspaceAccounts) -> dict[str, Any]:
    return {
        "instance": workspace.key.bison_instance,
        "id": workspace.key.bison_workspace_id,
        "name": workspace.name,
        **_figures_json(workspace.figures),
        "providers": workspace.providers,
        "state": workspace.state,
        "verdict": workspace.verdict,
        "is_complete": workspace.is_complete,
        "as_of": workspace.as_of,
        "age_seconds": workspace.age_seconds,
    }


def _last_errors(rows: Sequence[FreshnessRow]) -> list[tuple[str, str]]:
    """Why lists were not read completely at the last attempt; they are too long for a column."""
    return [(f"{row.key} {row.resource}", row.last_error) for row in rows if row.last_error]


def _words(state: str) -> str:
    return state.replace("_", " ")


def _state(state: str, verdict: str | None, *, is_complete: bool) -> str:
    """How fresh, and what became of the last attempt where that was not complete."""
    return _words(state) if is_complete or verdict is None else f"{_words(state)},\n{verdict}"


def _records(output: Output, row: FreshnessRow) -> str:
    """What arrived of what there is, at the last attempt."""
    if row.distinct_ids is None:
        return "-"
    arrived = output.number(row.distinct_ids)
    # A host that pages by cursor tells no total.
    return arrived if row.total in (None, row.distinct_ids) else f"{arrived} of {output.number(row.total)}"


def _freshness_json(shown: FreshnessRow) -> dict[str, Any]:
    row = asdict(shown)
    return {"instance": row.pop("bison_instance"), "id": row.pop("bison_workspace_id"), **row}


def _chosen(session: Session) -> Sequence[WorkspaceKey] | None:
    """The workspaces that -w and --instance mean; None without either."""
    from bisonsync.store import registry

    session.require_schema()
    options = session.options
    if not (options.workspaces or options.instances):
        return None
    rows = session.bookkeeping.run(registry.list_workspaces)
    return [row.key for row in find_workspaces(rows, options.workspaces, options.instances)]


def _no_workspace() -> Problem:
    from bisonsync.run import Problem

    return Problem(
        "empty", "no active workspace: there is nothing to show", "run 'bisonsync workspaces discover'", exit_code=0
    )
