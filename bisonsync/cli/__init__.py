"""The command line: which commands there are. Each is imported when it is called, not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from bisonsync.cli.options import global_options

_COMMANDS = {
    "poll-accounts": ("poll_accounts", "poll_accounts"),
    "poll-campaigns": ("poll_campaigns", "poll_campaigns"),
    "poll-warmup": ("poll_warmup", "poll_warmup"),
    "pull-events": ("pull", "pull_events"),
    "snapshot-providers": ("snapshots", "snapshot_providers"),
    "rebuild-counters": ("rebuild", "rebuild_counters"),
    "health": ("health", "health"),
    "prune": ("upkeep", "prune"),
    "dashboard": ("dashboard", "dashboard"),
    "inbox": ("inbox", "inbox"),
    "dead-letters": ("dead_letters", "dead_letters"),
    "alerts": ("alerts", "alerts"),
    "runs": ("runs", "runs"),
    "init": ("setup", "init"),
    "migrate": ("setup", "migrate"),
    "workspaces": ("workspaces", "app"),
    "webhooks": ("webhooks", "webhooks"),
    "config": ("setup", "config"),
    "db": ("setup", "db"),
    "schedule": ("schedule", "schedule"),
    "receive-webhooks": ("receive", "receive_webhooks"),
    "replay-webhooks": ("replay", "replay_webhooks"),
    "demo": ("tryout", "demo"),
    "sandbox": ("tryout", "sandbox"),
}


class LazyGroup(TyperGroup):
    """Knows the commands by name and imports one when it is needed."""

    commands_by_name: ClassVar[dict[str, tuple[str, str]]] = _COMMANDS

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
        return list(self.commands_by_name)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands_by_name:
            return None
        module, attribute = self.commands_by_name[cmd_name]
        commands: typer.Typer = getattr(import_module(f"bisonsync.cli.{module}"), attribute)
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
