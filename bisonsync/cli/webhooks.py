"""Webhooks: ensure, list, verify, test, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import Command, global_options, group, seconds
from bisonsync.runner import Options, Session, execute, scopes
from bisonsync.runner.selection import choose, find_workspaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bisonsync.jobs.webhooks import Wanted
    from bisonsync.run import Result, WorkspacesRun
    from bisonsync.store.registry import WorkspaceRow

webhooks = group(no_args_is_help=True, add_completion=False)


@webhooks.callback()
@global_options
def webhooks_() -> None:
    """The platform's subscriptions that deliver to 'receive-webhooks'.

    Each workspace has one, under a secret of its own. What is not ours is
    never touched; secrets are masked wherever an address is shown.

    \b
    Example:
      bisonsync webhooks ensure && bisonsync webhooks test
    """


@webhooks.command("ensure", cls=Command)
@global_options
def ensure(
    options: Options,
    remove_doubles: Annotated[
        bool, typer.Option("--remove-doubles", help="Delete further subscriptions of ours, which deliver again.")
    ] = False,
) -> None:
    """Give each active workspace its subscription, as the settings want it.

    Makes what is missing, changes what differs. [webhooks] public_url says
    where deliveries arrive, [webhooks] events which; types that a host does
    not know are named and left out.

    \b
    Example:
      bisonsync webhooks ensure --dry-run
      bisonsync webhooks ensure --remove-doubles
    """

    def body(run: WorkspacesRun, wanted: Wanted) -> Result:
        from bisonsync.jobs import webhooks as job

        return job.ensure(run, wanted, remove_doubles=remove_doubles)

    _execute(options, "ensure", body)


@webhooks.command("list", cls=Command)
@global_options
def list_(options: Options) -> None:
    """Show every subscription of each active workspace, and whose it is.

    ours delivers to us; double and retired are ours and should go; foreign
    is somebody else's.

    \b
    Example:
      bisonsync webhooks list -w 17
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import webhooks as job

        result = scopes.over_workspaces(
            session, lambda run: job.list_webhooks(run, _wanted(session)), leased=False, in_ledger=False
        )
        session.output.table(
            ["workspace", "id", "kind", "name", "address", "events", "note"],
            [
                [
                    entry["workspace"],
                    str(entry["id"]),
                    entry["kind"],
                    entry["name"],
                    entry["url"],
                    str(len(entry["events"])),
                    entry["note"],
                ]
                for entry in result.details.get("webhooks", [])
            ],
            right=(1, 5),
            spare=(6, 3),
        )
        return result

    execute(options, "webhooks-list", body)


@webhooks.command("verify", cls=Command)
@global_options
def verify(
    options: Options,
    allow_foreign: Annotated[
        bool, typer.Option("--allow-foreign", help="Somebody else's subscriptions are no difference.")
    ] = False,
) -> None:
    """Compare the subscriptions with what is wanted; exit 9 names differences.

    Missing ones, drift of address, name or events, doubles, and those that
    are not ours. Changes nothing.

    \b
    Example:
      bisonsync webhooks verify --json
    """

    def body(run: WorkspacesRun, wanted: Wanted) -> Result:
        from bisonsync.jobs import webhooks as job

        return job.verify(run, wanted, allow_foreign=allow_foreign)

    _execute(options, "verify", body, leased=False)


@webhooks.command("test", cls=Command)
@global_options
def test(
    options: Options,
    wait: Annotated[
        str, typer.Option("--wait", metavar="20s", help="How long to wait for the delivery to arrive.")
    ] = "20s",
) -> None:
    """Let the platform send a test event, and wait until it has arrived.

    It goes to the same address with /test behind it: it is kept with status
    test, and never counts.

    \b
    Example:
      bisonsync webhooks test -w 17
    """
    wait_seconds = seconds(wait, "--wait") or 0.0

    def body(run: WorkspacesRun, wanted: Wanted) -> Result:
        from bisonsync.jobs import webhooks as job

        return job.test(run, wanted, wait_seconds=wait_seconds)

    _execute(options, "test", body, leased=False)


@webhooks.command("remove", cls=Command)
@global_options
def remove(
    options: Options,
    every: Annotated[bool, typer.Option("--all", help="In every active workspace.")] = False,
) -> None:
    """Delete the subscriptions of ours, and retire their secrets.

    Asks for -w or --all. A disabled workspace can be named with -w.

    \b
    Example:
      bisonsync webhooks remove -w 17
    """

    def pick(rows: Sequence[WorkspaceRow], names: Sequence[str], instances: Sequence[str]) -> list[WorkspaceRow]:
        return (find_workspaces if names else choose)(rows, names, instances)

    def body(run: WorkspacesRun, wanted: Wanted) -> Result:
        from bisonsync.jobs import webhooks as job

        return job.remove(run, wanted)

    def guarded(session: Session) -> Result:
        from bisonsync.errors import GuardRefused, UsageError

        if not options.workspaces and not every:
            raise GuardRefused(
                "which subscriptions to remove is not said", hint="name a workspace with -w, or give --all"
            )
        if options.workspaces and every:
            raise UsageError("-w and --all contradict each other", hint="give one of them")
        return scopes.over_workspaces(session, lambda run: body(run, _wanted(session)), pick=pick)

    execute(options, "webhooks-remove", guarded)


def _execute(
    options: Options, command: str, body: Callable[[WorkspacesRun, Wanted], Result], *, leased: bool = True
) -> None:
    def over(session: Session) -> Result:
        return scopes.over_workspaces(session, lambda run: body(run, _wanted(session)), leased=leased)

    execute(options, f"webhooks-{command}", over)


def _wanted(session: Session) -> Wanted:
    """The jobs' part of the settings."""
    from bisonsync.jobs.webhooks import Wanted
    from bisonsync.keys import WorkspaceKey

    settings = session.settings.webhooks
    secrets = {WorkspaceKey.parse(name): secret.get_secret_value() for name, secret in settings.secrets.items()}
    return Wanted(settings.public_url, tuple(settings.events), secrets)
