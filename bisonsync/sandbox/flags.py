"""The sandbox's flags, read once for every way to start it."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any, get_args

from bisonsync.sandbox.config import Clock, Config, EventTypes, Paging
from bisonsync.sandbox.faults import Fault, fault_from


def seconds(text: str) -> float:
    """Read `0.15`, `150ms` or `2s`. Raises ValueError."""
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    return float(text.removesuffix("s"))


def parse_fault(text: str) -> Fault:
    """Read a fault as JSON, or in short: `status:status=503,page=3,workspace=5,times=2`. Raises ValueError.

    In the short form a list is joined by `+` (`rows=0+2`), and what is no JSON value is text.
    """
    if text.startswith("{"):
        return fault_from(json.loads(text))
    kind, _, rest = text.partition(":")
    values: dict[str, Any] = {"kind": kind}
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} in fault {text!r} is no NAME=VALUE")
        values[name] = [_value(part) for part in value.split("+")] if "+" in value else _value(value)
    return fault_from(values)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _workspace_latency(text: str) -> tuple[int, float]:
    workspace, _, duration = text.partition("=")
    return int(workspace), seconds(duration)


def _skew(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that make a `Config`."""
    default = Config()
    world = parser.add_argument_group("what it holds")
    world.add_argument("--seed", type=int, default=default.seed, help="same seed, same data")
    world.add_argument("--workspaces", type=int, default=default.workspaces, metavar="N")
    world.add_argument("--accounts", type=int, default=default.accounts, metavar="N", help="in all workspaces together")
    world.add_argument("--campaigns", type=int, metavar="N", help="in all together; else one for each 15 accounts")
    world.add_argument(
        "--skew",
        type=_skew,
        default=default.skew,
        metavar="A,B",
        help="sizes of the first workspaces: counts or shares",
    )
    world.add_argument(
        "--clock",
        choices=get_args(Clock),
        default=default.clock,
        help="real: time is what it is; own: it begins at --start and moves by advance alone",
    )
    world.add_argument("--start", type=_moment, default=default.start, metavar="TIME", help="as 2026-01-05T09:00")
    world.add_argument("--super-admin-token", default=default.super_admin_token, metavar="TOKEN")
    mood = parser.add_argument_group("how it behaves")
    mood.add_argument("--latency", type=seconds, default=0.0, metavar="TIME", help="of every answer: 150ms, 0.15")
    mood.add_argument("--jitter", type=seconds, default=0.0, metavar="TIME", help="up to that much more")
    mood.add_argument(
        "--workspace-latency",
        type=_workspace_latency,
        action="append",
        default=[],
        metavar="ID=TIME",
        help="repeatable",
    )
    mood.add_argument("--rate-limit", type=int, default=0, metavar="N", help="requests a minute, then 429 (0: none)")
    mood.add_argument("--foreign-rate", type=int, default=0, metavar="N", help="another program's requests a minute")
    mood.add_argument("--blanket-429", type=seconds, default=0.0, metavar="TIME", help="429 to everything for so long")
    mood.add_argument("--rate-limit-per", choices=("instance", "token"), default=default.rate_limit_per)
    mood.add_argument("--retry-after", choices=("seconds", "date", "body", "none"), default=default.retry_after)
    mood.add_argument("--identity-key", choices=("team", "workspace"), default=default.identity_key)
    mood.add_argument("--webhook-secret", action="store_true", help="workspace objects hold a webhooks_secret_key")
    mood.add_argument("--switch-lag", type=int, default=0, metavar="N", help="a switch shows N requests later")
    mood.add_argument("--paginate-workspaces", action="store_true")
    mood.add_argument("--see-all-workspaces", action="store_true", help="api-user tokens list all workspaces")
    mood.add_argument(
        "--paging",
        choices=get_args(Paging),
        default=default.paging,
        help="number: an older host without cursors; cursor: a host under load, without numbers and totals",
    )
    mood.add_argument("--total-cap", type=int, default=0, metavar="N", help="no list counts further (0: none does)")
    mood.add_argument(
        "--daily-stats",
        choices=("filtered", "whole", "none"),
        default=default.daily_stats,
        help="daily series by mailbox; whole: that filter is ignored; none: no such route",
    )
    hooks = parser.add_argument_group("its webhooks")
    hooks.add_argument(
        "--event-types", choices=get_args(EventTypes), default=default.event_types, help="an older host has 13"
    )
    hooks.add_argument("--no-events", action="store_true", help="an older host: no /api/events")
    hooks.add_argument("--paginate-webhooks", action="store_true")
    hooks.add_argument("--webhook-tries", type=int, default=default.webhook_tries, metavar="N")
    hooks.add_argument(
        "--webhook-spacing", type=seconds, default=default.webhook_spacing, metavar="TIME", help="between two tries"
    )
    hooks.add_argument("--webhook-timeout", type=seconds, default=default.webhook_timeout, metavar="TIME")
    hooks.add_argument(
        "--webhook-workers", type=int, default=default.webhook_workers, metavar="N", help="deliveries at once"
    )
    hooks.add_argument("--deliver-anywhere", action="store_true", help="also to other machines than this one")
    wrong = parser.add_argument_group("what goes wrong")
    wrong.add_argument("--error-rate", type=float, default=0.0, metavar="SHARE", help="of all requests, as 0.05")
    wrong.add_argument("--error-status", default="500,502,503,504", metavar="LIST")
    wrong.add_argument("--error-body", choices=("json", "html", "empty"), default="json")
    wrong.add_argument("--numbers-as-strings", action="store_true")
    wrong.add_argument("--max-page", type=int, default=0, metavar="N", help="no list goes deeper by page number")
    wrong.add_argument("--beyond-max-page", choices=("refuse", "empty"), default="refuse", help="422, or no rows")
    wrong.add_argument(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="FAULT",
        help="repeatable: status:status=503,page=3,workspace=5,times=2 or JSON",
    )


def config_from(options: argparse.Namespace) -> Config:
    """Make the config that the flags describe. Raises ValueError for sizes that cannot be."""
    return Config(
        seed=options.seed,
        workspaces=options.workspaces,
        accounts=options.accounts,
        campaigns=options.campaigns,
        skew=options.skew,
        start=options.start,
        clock=options.clock,
        super_admin_token=options.super_admin_token,
        faults=tuple(_faults(options)),
        latency=options.latency,
        jitter=options.jitter,
        workspace_latency=dict(options.workspace_latency),
        rate_limit=options.rate_limit,
        foreign_rate=options.foreign_rate,
        blanket_429=options.blanket_429,
        rate_limit_per=options.rate_limit_per,
        retry_after=options.retry_after,
        identity_key=options.identity_key,
        webhook_secret=options.webhook_secret,
        switch_lag=options.switch_lag,
        paging=options.paging,
        total_cap=options.total_cap,
        paginate_workspaces=options.paginate_workspaces,
        see_all_workspaces=options.see_all_workspaces,
        daily_stats=options.daily_stats,
        event_types=options.event_types,
        has_events=not options.no_events,
        paginate_webhooks=options.paginate_webhooks,
        webhook_tries=options.webhook_tries,
        webhook_spacing=options.webhook_spacing,
        webhook_timeout=options.webhook_timeout,
        webhook_workers=options.webhook_workers,
        deliver_anywhere=options.deliver_anywhere,
    )


def _faults(options: argparse.Namespace) -> list[Fault]:
    faults: list[Fault] = list(options.fault)
    if options.error_rate:
        statuses = tuple(int(part) for part in options.error_status.split(","))
        faults.append(Fault(kind="status", rate=options.error_rate, statuses=statuses, body=options.error_body))
    if options.numbers_as_strings:
        faults.append(Fault(kind="strings", path="/api/sender-emails"))
    if options.max_page and options.beyond_max_page == "refuse":
        faults.append(Fault(kind="status", status=422, from_page=options.max_page + 1))
    elif options.max_page:
        faults.append(Fault(kind="empty_page", from_page=options.max_page + 1))
    return faults
