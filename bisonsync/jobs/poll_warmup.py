"""Reads how the warm-up of every sender email goes into sender_email_warmup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import Any

from bisonsync.api.lists import InvalidRow
from bisonsync.models import SenderEmailWarmup
from bisonsync.polling import lists
from bisonsync.polling.lists import ListPolicy, ListSpec
from bisonsync.polling.rows import MOVING, TakenRow, read_row, unknown_fields
from bisonsync.run import Result, WorkspacesRun
from bisonsync.store import warmup

# What a host takes for the window if none is given: ten days ago to today. It is always told, for the dates are
# required by the letter of the API.
WINDOW_DAYS = 10
# No workspace is read more often.
EVERY_SECONDS = 6 * 3600
# A run that comes to a workspace a little earlier than the sixth before it did shall not leave it to the next.
REST_SHARE = 0.9
# What the mirror of the accounts has.
_DROPPED = frozenset({MOVING, "email", "name", "domain", "tags"})


def read_warmup(raw: Any, ignored: Sequence[str] = (), *, window: Mapping[str, str]) -> TakenRow | InvalidRow:
    """Read the warm-up of an account in a window, without the unknown fields that are ``ignored``."""
    return read_row(SenderEmailWarmup, raw, partial(_encode, ignored=ignored, window=window))


def _encode(
    row: SenderEmailWarmup, unread: AbstractSet[str], ignored: Sequence[str], window: Mapping[str, str]
) -> dict[str, Any]:
    # What a row leaves out is not known of this window, whatever was of the last.
    fields = {name: getattr(row, name) for name in SenderEmailWarmup.model_fields if name not in unread}
    fields["bison_account_id"] = fields.pop("id")
    return {
        **fields,
        "window_start": window["start_date"],
        "window_end": window["end_date"],
        "extra": unknown_fields(row, _DROPPED, ignored),
    }


def run(run: WorkspacesRun, policy: ListPolicy, *, is_named: bool = False) -> Result:
    """Read the figures of the last days of each workspace whose last complete read is old enough, and merge them.

    ``is_named``: somebody chose the workspaces, who wants them read whenever that was.
    """
    today = run.started_at.date()
    window = {"start_date": f"{today - timedelta(days=WINDOW_DAYS)}", "end_date": f"{today}"}
    spec = ListSpec(
        noun="accounts",
        path="/api/warmup/sender-emails",
        query=window,
        read_row=partial(read_warmup, window=window),
        table=warmup.TABLE,
        expected=attrgetter("accounts_total"),
    )
    interval = max(policy.interval_seconds, EVERY_SECONDS)
    rest = 0.0 if is_named else REST_SHARE * interval
    return lists.poll(run, spec, replace(policy, interval_seconds=interval, rest_seconds=rest))
