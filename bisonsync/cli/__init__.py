"""The command line: which commands there are. Each is imported when it is called, not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from bisonsync.cli.options import global_options

# Each in a module of its name.
_COMMANDS = (
    "poll-accounts",
    "poll-campaigns",
    "poll-warmup",
    "pull-events",
    "snapshot-providers",
    "rebuild-counters",
    "health",
    "prune",
    "dashboard",
    "inbox",
    "dead-letters",
    "alerts",
    "runs",
    "init",
    "migrate",
    "workspaces",
    "webhooks",
    "config",
    "db",
    "schedule",
    "receive-webhooks",
    "replay-webhooks",
    "demo",
    "sandbox",
)


class LazyGroup(TyperGroup):
    """Knows the commands by name and imports one when it is needed."""

    names: ClassVar[tuple[str, ...]] = _COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # As the monitoring plugins have it, wherever in the line of health the mistake is.
            if "health" in words and getattr(error, "exit_code", None) == 2:
                error.__dict__["exit_code"] = 3
            raise

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.names:
            return None
        name = cmd_name.replace("-", "_")
        commands: typer.Typer = getattr(import_module(f"bisonsync.cli.{name}"), name)
        command = typer.main.get_command(commands)
        command.name = cmd_name
        return command


def _show_version(wanted: bool) -> None:
    if wanted:
        from bisonsync import __version__

        typer.echo(f"bisonsync {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Start with 'bisonsync demo'. Exit codes and every setting: README.md.",
)


@app.callback()
@global_options
def bisonsync(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_show_version),
) -> None:
    """Mirror Email Bison into Postgres: fresh, complete, and says so when it is not.

    Global options may stand before or after the command.
    """
