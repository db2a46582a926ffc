"""The global options: accepted before or after the command, merged into one Options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bisonsync.durations import parse_duration
from bisonsync.runner import Options

_META = "bisonsync.options"

Config = Annotated[Path | None, typer.Option("-c", "--config", metavar="PATH", help="The configuration file.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", metavar="DSN", help="The database; a DSN with a password is refused.")
]
Workspaces = Annotated[
    list[str] | None,
    typer.Option("-w", "--workspace", metavar="ID|NAME", help="Only this workspace; may be repeated."),
]
Instances = Annotated[
    list[str] | None, typer.Option("--instance", metavar="NAME", help="Only this instance; may be repeated.")
]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Read and plan; write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on success.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what is being done.")]
LogFormat = Annotated[str, typer.Option("--log-format", metavar="text|json", help="The form of lines on stderr.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour; also by NO_COLOR and TERM=dumb.")]
Deadline = Annotated[str | None, typer.Option("--deadline", metavar="4m", help="End the run after so long.")]
Jitter = Annotated[
    str | None, typer.Option("--jitter", metavar="30s", help="Wait up to so long first; stable per host and job.")
]
LockWait = Annotated[
    str | None, typer.Option("--lock-wait", metavar="30s", help="Wait so long for workspaces held by another run.")
]
HeartbeatUrlFile = Annotated[
    str | None,
    typer.Option("--heartbeat-url-file", metavar="PATH", help="Ping the address in this file: begin and end."),
]
SkipIfLocked = Annotated[bool, typer.Option("--skip-if-locked", help="Exit 0 when another run holds everything.")]


def _shape(
    config: Config = None,
    database_url: DatabaseUrl = None,
    workspace: Workspaces = None,
    instance: Instances = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_format: LogFormat = "",
    no_color: NoColor = False,
    deadline: Deadline = None,
    jitter: Jitter = None,
    lock_wait: LockWait = None,
    skip_if_locked: SkipIfLocked = False,
    heartbeat_url_file: HeartbeatUrlFile = None,
) -> None:
    """Carries the signature of the global options."""


_PARAMETERS = [
    parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    for parameter in inspect.signature(_shape, eval_str=True).parameters.values()
]
NAMES = frozenset(parameter.name for parameter in _PARAMETERS)


def global_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command (or a group's callback) the global options beside its own.

    A function with a parameter ``options`` is handed the merged Options, one with ``ctx`` the context.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    names = {parameter.name for parameter in own}
    own = [parameter for parameter in own if parameter.name not in ("ctx", "options")]

    def wrapper(ctx: typer.Context, **given: Any) -> None:
        mine = {name: given.pop(name) for name in NAMES}
        merged = ctx.meta[_META] = _merge(ctx.meta.get(_META, {}), mine)
        if "ctx" in names:
            given["ctx"] = ctx
        if "options" in names:
            given["options"] = _options(merged)
        function(**given)

    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *own, *_PARAMETERS]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapper.__doc__ = function.__doc__
    wrapper.__name__ = function.__name__
    return wrapper


class Command(TyperCommand):
    """A command whose help lists its own options first and the global ones after them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments: list[tuple[str, str]] = []
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif parameter.name in NAMES:
                common.append(record)
            else:
                own.append(record)
        for title, records in (("Arguments", arguments), ("Options", own), ("Global options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def single(name: str, function: Callable[..., None], *, command: type[Command] = Command) -> typer.Typer:
    """A Typer app of one command."""
    commands = group(add_completion=False)
    commands.command(name, cls=command)(global_options(function))
    return commands


def group(**settings: Any) -> typer.Typer:
    """An empty Typer app in this program's manner; its callback's docstring is its help."""
    return typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
        **settings,
    )


def seconds(text: str | None, option: str) -> float | None:
    """A duration as an option gives it."""
    if text is None:
        return None
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=option) from None


def _merge(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for name, value in after.items():
        if isinstance(value, list):
            merged[name] = [*(before.get(name) or []), *value]
        elif value not in (None, False, ""):
            merged[name] = value
    return merged


def _options(given: dict[str, Any]) -> Options:
    log_format = given.get("log_format") or "text"
    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"{log_format!r} is neither text nor json", param_hint="--log-format")
    return Options(
        config=given.get("config"),
        database_url=given.get("database_url"),
        workspaces=tuple(given.get("workspace") or ()),
        instances=tuple(given.get("instance") or ()),
        dry_run=given.get("dry_run", False),
        as_json=given.get("as_json", False),
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
        log_json=log_format == "json",
        no_color=given.get("no_color", False),
        deadline_seconds=seconds(given.get("deadline"), "--deadline"),
        jitter_seconds=seconds(given.get("jitter"), "--jitter") or 0.0,
        lock_wait_seconds=seconds(given.get("lock_wait"), "--lock-wait") or 0.0,
        skip_if_locked=given.get("skip_if_locked", False),
        heartbeat_url_file=given.get("heartbeat_url_file"),
    )
