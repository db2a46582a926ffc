"""Workspaces: discover, list, add, enable, disable, verify, mint-tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute, scopes
from bisonsync.runner.selection import choose, find_workspaces

if TYPE_CHECKING:
    from bisonsync.run import Result, SetupRun
    from bisonsync.store.registry import WorkspaceRow

workspaces = group(no_args_is_help=True)


@workspaces.callback()
@global_options
def workspaces_() -> None:
    """The registry of workspaces and their tokens.

    \b
    Example:
      bisonsync workspaces discover && bisonsync workspaces mint-tokens
    """


@workspaces.command("discover", cls=Command)
@global_options
def discover(options: Options) -> None:
    """Register the workspaces that a super-admin key can see.

    New ones are active at once; new names are noted; what has vanished is
    noted and goes on being read until it is disabled.

    \b
    Example:
      bisonsync workspaces discover --instance maverick
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs.workspaces import discover as job

        return scopes.over_instances(session, job.discover)

    execute(options, "workspaces-discover", body)


@workspaces.command("mint-tokens", cls=Command)
@global_options
def mint_tokens(options: Options) -> None:
    """Make an api-user token for each active workspace without a valid one.

    Needs a super-admin key. Tokens are stored in a schema that no API role
    can see; the intent is stored before the API is asked.

    \b
    Example:
      bisonsync workspaces mint-tokens --dry-run
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs.workspaces import tokens as job

        def mint(run: SetupRun) -> Result:
            return scopes.with_leases(session, _chosen(session), lambda rows, _: job.mint_tokens(run, rows))

        return scopes.over_instances(session, mint)

    execute(options, "workspaces-mint-tokens", body)


@workspaces.command("verify", cls=Command)
@global_options
def verify(options: Options) -> None:
    """Ask each token in which workspace it acts.

    \b
    Example:
      bisonsync workspaces verify --json
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs.workspaces import tokens as job

        result = scopes.over_instances(session, lambda run: job.verify(run, _chosen(session)))
        rows = [[token["workspace"], token["state"]] for token in result.details["tokens"]]
        if not options.quiet:
            session.output.table(["workspace", "token"], rows)
        return result

    execute(options, "workspaces-verify", body)


@workspaces.command("list", cls=Command)
@global_options
def list_(options: Options) -> None:
    """Show the registered workspaces.

    \b
    Example:
      bisonsync workspaces list
    """

    def body(session: Session) -> Result:
        from bisonsync.output import time_text
        from bisonsync.run import Result

        rows = find_workspaces(_registered(session), options.workspaces, options.instances)
        session.output.table(
            ["instance", "id", "name", "active", "token", "accounts", "last complete read (UTC)", "note"],
            [
                [
                    row.bison_instance,
                    str(row.bison_workspace_id),
                    row.workspace_name,
                    "yes" if row.is_active else "no",
                    row.token_status or "none",
                    str(row.accounts_total),
                    time_text(row.last_complete_at),
                    _note(row),
                ]
                for row in rows
            ],
            right=(1, 5),
        )
        listed = [
            {
                "instance": row.bison_instance,
                "id": row.bison_workspace_id,
                "name": row.workspace_name,
                "is_active": row.is_active,
                "token": row.token_status,
                "accounts": row.accounts_total,
                "last_complete_at": row.last_complete_at,
                "vanished_at": row.vanished_at,
                "previous_name": row.previous_name,
            }
            for row in rows
        ]
        return Result({"workspaces_total": len(rows)}, details={"registered": listed})

    execute(options, "workspaces-list", body)


@workspaces.command("add", cls=Command)
@global_options
def add(
    options: Options,
    workspace_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="The workspace's id.")],
    name: Annotated[str | None, typer.Option("--name", help="Its name; a token tells it by itself.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="PATH", help="A file with its token; - reads stdin.")
    ] = None,
) -> None:
    """Register one workspace by hand.

    \b
    Example:
      bisonsync workspaces add 17 --instance maverick --token-file 17.key
    """

    def body(session: Session) -> Result:
        from bisonsync.errors import UsageError
        from bisonsync.jobs.workspaces import registration as job

        if len(options.instances) > 1:
            raise UsageError("a workspace belongs to one instance", hint="give --instance once")
        token = _read_token(token_file) if token_file else None

        def work(run: SetupRun) -> Result:
            instances = list(run.instances)
            if len(instances) != 1:
                raise UsageError(
                    f"several instances are configured: {', '.join(instances)}", hint="name one with --instance"
                )
            return job.add(run, instances[0], workspace_id, name=name, token=token)

        return scopes.over_instances(session, work)

    execute(options, "workspaces-add", body)


@workspaces.command("enable", cls=Command)
@global_options
def enable(
    options: Options, workspaces: Annotated[list[str], typer.Argument(metavar="ID|NAME...", help="Which ones.")]
) -> None:
    """Read these workspaces from now on.

    \b
    Example:
      bisonsync workspaces enable 17 "Client One"
    """
    _switch(options, workspaces, active=True)


@workspaces.command("disable", cls=Command)
@global_options
def disable(
    options: Options, workspaces: Annotated[list[str], typer.Argument(metavar="ID|NAME...", help="Which ones.")]
) -> None:
    """Stop reading these workspaces; their rows stay.

    \b
    Example:
      bisonsync workspaces disable maverick/17
    """
    _switch(options, workspaces, active=False)


def _switch(options: Options, names: list[str], *, active: bool) -> None:
    def body(session: Session) -> Result:
        from bisonsync.jobs.workspaces import registration as job

        rows = find_workspaces(_registered(session), names, options.instances)
        return job.set_active(scopes.setup_run(session), rows, active=active)

    execute(options, "workspaces-enable" if active else "workspaces-disable", body)


def _registered(session: Session) -> list[WorkspaceRow]:
    from bisonsync.store import registry

    session.require_schema()
    return session.bookkeeping.run(registry.list_workspaces)


def _chosen(session: Session) -> list[WorkspaceRow]:
    return choose(_registered(session), session.options.workspaces, session.options.instances)


def _note(row: WorkspaceRow) -> str:
    if row.vanished_at:
        return "vanished from the host's list"
    return f"was {row.previous_name}" if row.previous_name else ""


def _read_token(path: Path) -> str:
    from bisonsync.errors import ConfigError

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token file {path} cannot be read: {error}", hint="give a text file with the token"
        ) from None
    token = text.strip()
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise ConfigError(
            f"the token file {path} does not hold one token", hint="it must hold the token and nothing else"
        )
    return token
