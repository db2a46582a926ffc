"""The configuration: config show, config check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.run import Problem, Result

config = group(no_args_is_help=True)


@config.callback()
@global_options
def config_() -> None:
    """What counts as a setting, and what is wrong with it.

    \b
    Example:
      bisonsync config check && bisonsync config show
    """


@config.command("show", cls=Command)
@global_options
def config_show(options: Options) -> None:
    """Show every setting with its value and origin; secrets masked.

    \b
    Example:
      bisonsync config show
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import config as job
        from bisonsync.run import Result

        shown = job.show(session.sources)
        session.output.table(["setting", "value", "origin"], [[v.key, v.value or "-", v.origin] for v in shown.values])
        settings = [{"key": v.key, "value": v.value, "origin": v.origin, "secret": v.is_secret} for v in shown.values]
        return Result({"settings": len(settings)}, details={"settings": settings})

    execute(options, "config-show", body)


@config.command("check", cls=Command)
@global_options
def config_check(options: Options) -> None:
    """Say everything that is wrong with the settings; exit 4 if anything is.

    \b
    Example:
      bisonsync -c /etc/bisonsync/config.toml config check
    """

    def body(session: Session) -> Result:
        from bisonsync.errors import ConfigError
        from bisonsync.jobs import config as job
        from bisonsync.run import Problem, Result

        checked = job.check(session.sources)
        problems = tuple(
            Problem(ConfigError.kind, f"{p.origin}: {p.message}", p.hint, exit_code=ConfigError.exit_code)
            for p in checked.problems
        )
        problems = problems or _thresholds(session)
        where = checked.config or "the environment alone"
        return Result({"problems": len(problems)}, problems=problems, summary=f"{where}, {len(problems)} problems")

    execute(options, "config-check", body)


def _thresholds(session: Session) -> tuple[Problem, ...]:
    """What the checks do not understand, for every look would stop at it."""
    from bisonsync.checks.limits import merge_limits
    from bisonsync.errors import ConfigError
    from bisonsync.run import Problem

    try:
        merge_limits(session.settings.alerts.thresholds)
    except ConfigError as error:
        return (Problem(error.kind, f"[alerts] {error.message}", error.hint, exit_code=error.exit_code),)
    return ()
