"""What is wrong since when, and whether its messages arrive: alerts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bisonsync import __version__
from bisonsync.cli.options import Command, global_options, group
from bisonsync.runner import Options, Session, execute

if TYPE_CHECKING:
    from bisonsync.api.slack import SlackSender
    from bisonsync.checks.episodes import Policy
    from bisonsync.run import Result
    from bisonsync.settings.models import Alerts
    from bisonsync.store.alerts import EpisodeRow

alerts = group(no_args_is_help=True, add_completion=False)


@alerts.callback()
@global_options
def alerts_() -> None:
    """Show what is wrong since when; try whether messages arrive.

    'bisonsync health --alert' keeps the book and sends the messages.

    \b
    Example:
      bisonsync alerts list
      bisonsync alerts test
    """


@alerts.command("list", cls=Command)
@global_options
def alerts_list(
    options: Options,
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=0, max=3650, help="Also what ended in the last N days.")
    ] = 7,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")] = 50,
) -> None:
    """List what is wrong now, and what lately was.

    \b
    Example:
      bisonsync alerts list
      bisonsync alerts list --days 30 --json
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs import alerts as job
        from bisonsync.jobs.alerts.delivery import channel_name
        from bisonsync.run import Result

        session.require_schema()
        channels = channel_urls(session.settings.alerts)
        found = job.list_episodes(session.bookkeeping, days=days, limit=limit)
        _show(session, found)
        in_use = "in use" if channels else "not in use"
        if not channels:
            session.output.text(f"Slack is not in use: no message is made → {_SET_UP}")
        waiting = sum(row.undelivered for row in found)
        return Result(
            {"open": sum(row.closed_at is None for row in found), "undelivered": waiting},
            details={
                "slack": in_use,
                "channels": sorted(channel_name(name) for name in channels),
                "episodes": [_json(row) for row in found],
            },
        )

    execute(options, "alerts-list", body)


@alerts.command("test", cls=Command)
@global_options
def alerts_test(
    options: Options,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="One of [alerts.channels]; else the agency's own.")
    ] = None,
) -> None:
    """Post one message, marked as a test.

    Exit code 4 when no webhook is set up, 5 when the message is not taken.

    \b
    Example:
      bisonsync alerts test
      bisonsync alerts test --channel acme
    """

    def body(session: Session) -> Result:
        from bisonsync.jobs.alerts import delivery as job
        from bisonsync.run import Result
        from bisonsync.store.leases import host_name

        sender = slack_sender(session)
        name = job.find_channel(sender.channels, channel)
        if session.options.dry_run:
            return Result({"sent": 0}, summary=f"one message would go to {job.channel_name(name)}")
        job.post_test(sender, name, host=host_name(), now=session.clock.now())
        return Result({"sent": 1}, summary=f"{job.channel_name(name)} took the message")

    execute(options, "alerts-test", body)


_SET_UP = "set [alerts] slack_webhook_url_file, see 'Slack' in README.md, then run 'bisonsync alerts test'"


def channel_urls(settings: Alerts) -> dict[str, str]:
    """The webhooks that are set up, by the names of their channels. The values are secrets."""
    from bisonsync.checks.episodes import MAIN_CHANNEL

    urls = {name: url.get_secret_value() for name, url in settings.channels.items()}
    if settings.slack_webhook_url is not None:
        urls[MAIN_CHANNEL] = settings.slack_webhook_url.get_secret_value()
    return urls


def slack_sender(session: Session) -> SlackSender:
    """What posts to the webhooks of the settings."""
    from bisonsync.api.slack import SlackSender

    return SlackSender(
        channel_urls(session.settings.alerts),
        user_agent=f"bisonsync/{__version__}",
        monotonic=session.clock.monotonic,
    )


def alert_policy(settings: Alerts) -> Policy:
    """When messages are due, by the settings."""
    from bisonsync.checks.episodes import Policy

    return Policy(
        channels=frozenset(channel_urls(settings)),
        after=settings.after,
        close_after=settings.close_after,
        reminder=settings.reminder,
    )


def _show(session: Session, found: list[EpisodeRow]) -> None:
    from bisonsync.output import time_text

    if not found:
        session.output.result("no alarm: nothing was seen to be wrong by 'bisonsync health --alert'")
        return
    session.output.table(
        ["check", "client", "state", "alarm", "since (UTC)", "until (UTC)", "messages", "waiting", "detail"],
        [
            [
                row.check_name,
                row.scope or "all",
                row.state,
                _standing(row),
                time_text(row.first_bad_at),
                time_text(row.closed_at),
                str(row.messages),
                str(row.undelivered),
                row.detail + (f" (not delivered: {row.last_error})" if row.undelivered and row.last_error else ""),
            ]
            for row in found
        ],
        right=(6, 7),
        spare=(5, 6, 1),
    )


def _standing(row: EpisodeRow) -> str:
    if row.closed_at is not None:
        return "over"
    if row.caused_by is not None:
        return f"because of {row.caused_by}"
    return "open" if row.opened_at is not None else f"seen {row.bad_count} in a row"


def _json(row: EpisodeRow) -> dict[str, Any]:
    listed = asdict(row)
    return {"check": listed.pop("check_name"), **listed}
