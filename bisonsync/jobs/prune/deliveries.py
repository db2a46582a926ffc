"""Deliveries of webhooks: room for the days to come; payloads, days and keys that are old go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from bisonsync.errors import GuardRefused
from bisonsync.jobs.prune.work import Work
from bisonsync.store import delivery_retention, partitions
from bisonsync.store.delivery_retention import FatDay
from bisonsync.store.retention import Moment

LOG = "webhook_delivery_log"
KEYS = "webhook_event_keys"
# Beyond these an event is "too old", by the rules for deliveries: until then its repetition is told by its key.
LEAST_KEY_DAYS = 70
# Which event is too old is decided by the clock of another moment than this run's.
KEY_MARGIN = timedelta(days=1)
# More unsettled deliveries of one day are not moved while everybody waits: their partition stays.
MOST_MOVED = 1_000
ROWS_PER_PAGE = 10
# A day to which deliveries are added while it is copied is copied again.
SLIM_ATTEMPTS = 3


def steps_ahead(work: Work, moment: Moment) -> list[tuple[str, Callable[[], None]]]:
    """Room for what comes, and the right place for what came while there was none."""
    since = moment.as_of - timedelta(days=work.policy.retention_days[KEYS])
    return [
        ("days to come", lambda: _make_days(work)),
        (f"{LOG}_default", lambda: _move_strays(work, since)),
    ]


def steps_behind(work: Work, moment: Moment) -> list[tuple[str, Callable[[], None]]]:
    """What is older than its retention goes: whole days first, for they need not be made slim."""
    days = work.policy.retention_days
    return [
        (KEYS, lambda: _remove(work, moment.as_of, days[KEYS])),
        (LOG, lambda: _slim(work, moment.as_of - timedelta(days=days[LOG]))),
    ]


def _make_days(work: Work) -> None:
    if work.run.dry_run:
        work.days_made += [each.name for each in work.do(partitions.list_missing_days)]
    else:
        work.note_ahead(work.days_made, partitions.make_days(work.do_ahead))


def _move_strays(work: Work, since: datetime) -> None:
    """Make the partitions of days that have passed without one, as of files of older days."""
    for day in work.do(lambda conn: delivery_retention.list_stray_days(conn, since)):
        name = f"{LOG}_{day:%Y_%m_%d}"
        if name in work.days_made:
            continue
        if work.run.dry_run:
            work.days_made.append(name)
        else:
            make = partial(partitions.make, table=partitions.INBOX, first=day, last=day)
            work.attempt(name, lambda make=make: work.days_made.extend(work.do_ddl(make)))


def _slim(work: Work, before: datetime) -> None:
    is_counted = work.run.dry_run
    days = work.do(lambda conn: delivery_retention.list_fat_days(conn, before, is_counted=is_counted))
    for number, day in enumerate(days, 1):
        if work.run.dry_run and day.name in work.days_dropped:
            continue
        if work.run.dry_run:
            work.days_slimmed[day.name] = day.payloads
        else:
            work.attempt(day.name, partial(_slim_day, work, day))
            work.run.progress("removing payloads", number, len(days))


def _slim_day(work: Work, day: FatDay) -> None:
    for _ in range(SLIM_ATTEMPTS):
        # It tries for the locks again and again by itself, without losing the copy that it made.
        payloads = work.do(lambda conn: delivery_retention.slim_day(conn, day.name), is_ddl=True, lock_attempts=1)
        if payloads is not None:
            work.days_slimmed[day.name] = payloads
            if payloads and day.dependents:
                work.notes.append(f"{day.dependents} stands on {day.name}: the space of its payloads is not given back")
            return
    work.notes.append(f"{day.name} changed while its payloads were removed: the next run removes them")


def _remove(work: Work, as_of: datetime, days: int) -> None:
    if days < LEAST_KEY_DAYS:
        raise GuardRefused(
            f"[retention] {KEYS} = {days} is refused, nothing of it nor of {LOG} was removed: events count for"
            f" {LEAST_KEY_DAYS} days, and one whose key is gone would count again",
            hint=f"set [retention] {KEYS} to {LEAST_KEY_DAYS} or more",
        )
    before = as_of - timedelta(days=days)
    for day in work.do(lambda conn: delivery_retention.list_old_days(conn, before)):
        if day.dependents:
            work.keep(day.name, day.dependents, LOG)
        elif not work.run.dry_run:
            work.attempt(day.name, partial(_drop_day, work, day.name, before))
        elif day.unsettled <= MOST_MOVED:
            work.days_dropped.append(day.name)
    _delete_strays(work, before)
    kept = work.do(lambda conn: delivery_retention.count_unsettled(conn, before))
    if kept:
        total = sum(each.deliveries for each in kept)
        parts = ", ".join(f"{each.deliveries} {each.status}" for each in kept)
        work.notes.append(f"{total} unsettled deliveries older than {days} days are kept ({parts})")
    _delete_keys(work, before - KEY_MARGIN)


def _drop_day(work: Work, name: str, before: datetime) -> None:
    done = work.do(
        lambda conn: delivery_retention.drop_day(conn, name, before, MOST_MOVED), is_ddl=True, lock_attempts=1
    )
    if done.is_dropped:
        work.days_dropped.append(name)
    work.run.progress("dropping days", len(work.days_dropped), 0)


def _delete_strays(work: Work, before: datetime) -> None:
    """What is settled of days that have no partition any more."""
    limit = work.policy.batch_rows
    while True:
        if work.run.dry_run:
            work.count(LOG, work.do(lambda conn: delivery_retention.count_old_deliveries(conn, before)))
            return
        done = work.do(lambda conn: delivery_retention.delete_old_deliveries(conn, before, limit))
        work.count(LOG, done)
        work.run.progress(f"removing from {LOG}", work.removed[LOG], 0)
        if done < limit:
            return


def _delete_keys(work: Work, before: datetime) -> None:
    """Go through the keys once, some pages at a time: an index by time would cost every event something."""
    if work.run.dry_run:
        work.count(KEYS, work.do(lambda conn: delivery_retention.count_keys(conn, before)))
        return
    work.do(lambda conn: delivery_retention.mark_keys_pruned(conn, before))
    pages = work.do(delivery_retention.count_key_pages)
    step = max(1, work.policy.batch_rows // ROWS_PER_PAGE)
    work.count(KEYS, 0)
    for first in range(0, pages, step):
        delete = partial(delivery_retention.delete_keys, before=before, first_page=first, next_page=first + step)
        work.count(KEYS, work.do(delete))
        work.run.progress(f"removing from {KEYS}", first, pages)
