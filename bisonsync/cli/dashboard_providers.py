"""Shows dashboard providers: a line per provider, what replies cost, and what is missing from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bisonsync.jobs.dashboard import Cost, Provider, Providers, TrendDay, Window
    from bisonsync.output import Output
    from bisonsync.run import Result
    from bisonsync.runner import Session
    from bisonsync.store.providers import ProviderRow

# Without the full block, which would touch the line above.
BLOCKS = "▁▂▃▄▅▆▇"
FILL_GAPS = "bisonsync snapshot-providers --fill-gaps"
LEFT = ("provider", "name", "instance", "to week\nbefore", "trend", "as of", "complete")
NOT_RECORDED = "·"
# A month of days from this width on, else two weeks.
WIDE = 150
LONG_TREND, SHORT_TREND = 30, 14


def show(session: Session, instances: Sequence[str] | None) -> Result:
    """Print the providers of these instances (None: of all), and say what they lack."""
    from bisonsync.jobs import dashboard as job
    from bisonsync.run import Problem, Result

    timezone = session.settings.reporting_timezone
    shown = job.list_providers(session.bookkeeping, instances, timezone=timezone)
    problems: tuple[Problem, ...] = ()
    if shown.providers:
        _show_providers(session.output, shown)
        _show_costs(session.output, shown)
        _explain(session.output, shown, timezone)
        _warn(session.output, shown)
    else:
        problems = (Problem("empty", "no day is recorded yet", "run 'bisonsync snapshot-providers'", exit_code=0),)
    return Result(
        {"providers": len(shown.providers), "drops": sum(one.judgement == "drop" for one in shown.providers)},
        problems=problems,
        details={
            "providers": [_provider_json(one) for one in shown.providers],
            "resellers": [_cost_json(cost) for cost in shown.resellers],
            "totals": {key: value for window in shown.totals for key, value in _window_json(window).items()},
        },
    )


def _show_providers(output: Output, shown: Providers) -> None:
    columns = ["provider", "instance", "accounts", "connected", "in use\n%"]
    columns += [f"{figure}\n{days} d" for figure in ("sent", "reply %", "bounce %") for days in (1, 7, 30)]
    columns += ["change\n%", "to week\nbefore", "trend"]
    rows = [_provider_cells(output, one) for one in shown.providers]
    totals = ["all", "", *_account_cells(output, [one.row for one in shown.providers])]
    totals += [*_window_cells(output, shown.totals), "", "", ""]
    if output.on_terminal:
        spare = ["bounce %\n1 d", "in use\n%", "sent\n1 d", "reply %\n1 d", "bounce %\n30 d", "connected", "sent\n30 d"]
        spare += ["reply %\n30 d", "accounts", "bounce %\n7 d", "trend"]
    else:
        spare = []
        columns[columns.index("trend")] = "p value"
        columns += ["as of", "complete", *(f"gaps\n{days} d" for days in (1, 7, 30))]
        totals += [""] * 5
    kept = [number for number, name in enumerate(columns) if name != "instance" or len(shown.instances) > 1]
    columns = [columns[number] for number in kept]
    output.table(
        columns,
        [[row[number] for number in kept] for row in rows],
        totals=[totals[number] for number in kept] if len(rows) > 1 else (),
        right=[number for number, name in enumerate(columns) if name not in LEFT],
        spare=[columns.index(name) for name in spare],
    )


def _provider_cells(output: Output, one: Provider) -> list[str]:
    row = one.row
    cells = [row.email_provider, row.bison_instance, *_account_cells(output, [row])]
    cells += [*_window_cells(output, one.windows), _change(row.change_percent), one.judgement]
    if output.on_terminal:
        return [*cells, _line(one.trend)]
    gaps = [str(window.gaps) for window in one.windows]
    return [*cells, _p_value(row), str(row.snapshot_date), "yes" if row.is_complete else "no", *gaps]


def _account_cells(output: Output, rows: Sequence[ProviderRow]) -> list[str]:
    capacity = sum(row.total_volume_capacity for row in rows)
    in_use = 100 * sum(row.total_daily_limit for row in rows) / capacity if capacity else None
    numbers = (sum(row.total_accounts for row in rows), sum(row.active_accounts for row in rows))
    return [*(output.number(number) for number in numbers), _number(in_use, 0)]


def _change(percent: float | None) -> str:
    # Adding 0 makes a minus of nothing a plus.
    return "-" if percent is None else f"{round(percent, 1) + 0.0:+.1f}"


def _p_value(row: ProviderRow) -> str:
    if row.fall_p_value is None or row.rise_p_value is None:
        return "-"
    return f"{min(row.fall_p_value, row.rise_p_value):.2g}"


def _window_cells(output: Output, windows: Sequence[Window]) -> list[str]:
    return [
        *("gap" if window.gaps and not window.sent else output.number(window.sent) for window in windows),
        *(_number(window.reply_rate, 2) for window in windows),
        *(_number(window.bounce_rate, 2) for window in windows),
    ]


def _line(trend: Sequence[TrendDay]) -> str:
    """The days as blocks: the lowest is half of the highest or less. A blank is a week without a mail."""
    import shutil

    days = trend[-(LONG_TREND if shutil.get_terminal_size().columns >= WIDE else SHORT_TREND) :]
    highest = max((day.reply_rate or 0.0 for day in days), default=0.0)
    return "".join(_block(day, highest) for day in days)


def _block(day: TrendDay, highest: float) -> str:
    if not day.is_recorded:
        return NOT_RECORDED
    if day.reply_rate is None:
        return " "
    # From half on, so that a fall of a fifth can be seen.
    return BLOCKS[round(max(0.0, 2 * day.reply_rate / highest - 1) * (len(BLOCKS) - 1)) if highest else 0]


def _show_costs(output: Output, shown: Providers) -> None:
    columns = ["cost by", "name", "instance", "accounts", "without\nprice", "sent\n30 d", "unique\nreplies\n30 d"]
    columns += ["reply %\n30 d", "bounce %\n30 d", "cost\n30 d", "cost per\nreply\n30 d"]
    rows = [("provider", one.row.bison_instance, one.cost) for one in shown.providers]
    rows += [("reseller", "", cost) for cost in shown.resellers]
    kept = [number for number, name in enumerate(columns) if name != "instance" or len(shown.instances) > 1]
    columns = [columns[number] for number in kept]
    output.text("")
    output.table(
        columns,
        [
            [cells[number] for number in kept]
            for cells in ([by, cost.name, instance, *_cost_cells(output, cost)] for by, instance, cost in rows)
        ],
        right=[number for number, name in enumerate(columns) if name not in ("cost by", *LEFT)],
        spare=[columns.index(name) for name in ("bounce %\n30 d", "reply %\n30 d", "sent\n30 d", "without\nprice")],
    )


def _cost_cells(output: Output, cost: Cost) -> list[str]:
    numbers = (cost.accounts, cost.unpriced, cost.window.sent, cost.window.unique_replies)
    return [
        *(output.number(number) for number in numbers),
        _number(cost.window.reply_rate, 2),
        _number(cost.window.bounce_rate, 2),
        _money(output, cost.cost),
        _number(cost.per_reply, 2),
    ]


def _explain(output: Output, shown: Providers, timezone: str) -> None:
    """What the figures are of and what the words mean, for a person."""
    if not output.on_terminal or output.as_json:
        return
    lowest, highest = BLOCKS[0], BLOCKS[-1]
    output.text("")
    output.facts(
        [
            *((f"as of {row.bison_instance}", _as_of(row, timezone)) for row in shown.instances),
            (
                "change",
                "unique replies per mail of the last 7 days against the 7 before. drop: more than 20 % less, and not by"
                " chance; lower, higher: not by chance; steady: may be chance; too few: less than 200 mails in one of"
                " the weeks; gap: not recorded at their ends",
            ),
            (
                "trend",
                f"that rate by day: {highest} its highest, {lowest} half of it or less, {NOT_RECORDED} not recorded",
            ),
        ]
    )


def _as_of(row: ProviderRow, timezone: str) -> str:
    day = "today so far" if row.days_ago <= 0 else "yesterday" if row.days_ago == 1 else f"{row.days_ago} days ago"
    return f"{row.snapshot_date} {timezone}, {day}, {'complete' if row.is_complete else 'not complete'}"


def _warn(output: Output, shown: Providers) -> None:
    """What is missing from the figures, an instance at a time, and what to do about it."""
    lacks: list[str] = []
    for row in shown.instances:
        own = [one for one in shown.providers if one.row.bison_instance == row.bison_instance]
        for message, hint in _lacks(row, own):
            lacks.append(f"{row.bison_instance}: {message}" + (f" → {hint}" if hint else ""))
    if lacks and output.on_terminal:
        output.text("")
    for lack in lacks:
        output.log(lack, level="warning")


def _lacks(row: ProviderRow, own: Sequence[Provider]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if row.days_ago > 1:
        found.append((f"the last recorded day is {row.days_ago} days ago", "bisonsync snapshot-providers"))
    if not row.is_complete:
        found.append((f"not every workspace was read completely for {row.snapshot_date}", "bisonsync poll-accounts"))
    begins = row.first_day + timedelta(days=30)
    if row.snapshot_date < begins:
        found.append((f"the history began on {row.first_day}: 30 days are whole from {begins} on", ""))
    # A window that begins before the history lacks its beginning in every workspace: that is said above.
    lengths = [window for window in own[0].windows if row.snapshot_date - timedelta(days=window.days) >= row.first_day]
    if gaps := [window for window in lengths if window.gaps]:
        said = ", ".join(f"{window.days} d lacks {window.gaps}" for window in gaps)
        found.append((f"{said}: workspaces not recorded at both ends", FILL_GAPS))
    if left_out := max(one.row.workspaces_left_out for one in own):
        workspaces = "1 workspace" if left_out == 1 else f"{left_out} workspaces"
        found.append((f"the change leaves out {workspaces} not recorded in both weeks", ""))
    return found


def _provider_json(one: Provider) -> dict[str, Any]:
    row = one.row
    return {
        "provider": row.email_provider,
        "instance": row.bison_instance,
        "as_of": row.snapshot_date,
        "days_ago": row.days_ago,
        "is_complete": row.is_complete,
        "accounts": row.total_accounts,
        "connected": row.active_accounts,
        "utilization_percentage": one.utilization,
        **{key: value for window in one.windows for key, value in _window_json(window).items()},
        **{f"gaps_{window.days}d": window.gaps for window in one.windows},
        "change": {
            "judgement": one.judgement,
            "is_drop": row.is_drop,
            "is_significant": one.is_significant,
            "percent": row.change_percent,
            "reply_rate": row.recent_reply_rate,
            "reply_rate_before": row.previous_reply_rate,
            "fall_p_value": row.fall_p_value,
            "rise_p_value": row.rise_p_value,
            "workspaces_left_out": row.workspaces_left_out,
        },
        "cost_30d": one.cost.cost,
        "cost_per_reply_30d": one.cost.per_reply,
        "accounts_without_price": one.cost.unpriced,
        "trend": [{**asdict(day), "day": day.day.isoformat()} for day in one.trend],
    }


def _window_json(window: Window) -> dict[str, int | float | None]:
    return {
        f"sent_{window.days}d": window.sent,
        f"unique_replies_{window.days}d": window.unique_replies,
        f"bounces_{window.days}d": window.bounces,
        f"reply_rate_{window.days}d": window.reply_rate,
        f"bounce_rate_{window.days}d": window.bounce_rate,
    }


def _cost_json(cost: Cost) -> dict[str, Any]:
    return {
        "reseller": cost.name,
        "accounts": cost.accounts,
        "accounts_without_price": cost.unpriced,
        **_window_json(cost.window),
        "cost_30d": cost.cost,
        "cost_per_reply_30d": cost.per_reply,
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _money(output: Output, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if output.on_terminal else f"{value:.2f}"
