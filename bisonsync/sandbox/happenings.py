"""Turns what changes in the world into events: as many mails, replies and bounces as the counters gained."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, time, timedelta
from functools import partial

from bisonsync.sandbox.hooks import Happening
from bisonsync.sandbox.moments import shares_by_day
from bisonsync.sandbox.rows import COUNTERS, Account
from bisonsync.sandbox.state import World
from bisonsync.sandbox.workspaces import Workspace

# The leads of a mailbox are numbered on from its id, so that they need not be kept.
_LEADS = 100_000
_FIRST, _LAST = (Account._fields.index(COUNTERS[i]) for i in (0, -1))
_Make = Callable[..., Happening]
_Times = Callable[[str], Iterator[datetime]]


def lead_id(account: Account, number: int) -> int:
    """Return the id of the n-th lead that a mailbox ever wrote to."""
    return account.id * _LEADS + number


class Watcher:
    """Watches a world and records what happens in it, the same for the same seed and the same changes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hooks = world.hooks
        self._random = world.rng("events")

    def __call__(
        self, workspace: Workspace, before: Account | None, after: Account | None, began: datetime, ended: datetime
    ) -> None:
        self._hooks.record(self._happenings(workspace, before, after, began, ended))

    def record(self, event_type: str, workspace: Workspace, account: Account) -> None:
        """Record an event that no counter and no other state of the world tells of."""
        here = partial(Happening, event_type, workspace.id, workspace.name, self._world.now)
        if event_type.startswith("warmup_"):
            self._hooks.record([here(account)])
            return
        lead = self._known_lead(account, account.total_leads_contacted_count)
        self._hooks.record([here(account, lead, 0, self._mail_of(lead), self._hooks.number("reply"))])

    def _happenings(
        self, workspace: Workspace, before: Account | None, after: Account | None, began: datetime, ended: datetime
    ) -> Iterator[Happening]:
        if before is None or after is None:
            account = after or before
            if account is not None:
                word = "added" if after else "removed"
                touched = account if after else account._replace(updated_at=self._world.after(account))
                yield Happening(f"email_account_{word}", workspace.id, workspace.name, ended, touched)
            return
        here = (workspace.id, workspace.name, ended, after)
        if before.is_connected != after.is_connected:
            yield Happening(f"email_account_{'reconnected' if after.is_connected else 'disconnected'}", *here)
        if before.tags != after.tags:
            for tag in after.tags:
                if tag not in before.tags:
                    yield Happening("tag_attached", *here, tag=tag)
            for tag in before.tags:
                if tag not in after.tags:
                    yield Happening("tag_removed", *here, tag=tag)
        if before[_FIRST : _LAST + 1] != after[_FIRST : _LAST + 1]:
            yield from self._mails(workspace, before, after, began, ended)

    def _mails(
        self, workspace: Workspace, before: Account, after: Account, began: datetime, ended: datetime
    ) -> Iterator[Happening]:
        hooks = self._hooks

        def times(counter: str) -> Iterator[datetime]:
            gained: int = getattr(after, counter) - getattr(before, counter)
            return self._moments(gained, began, ended)

        def happening(event_type: str, at: datetime, lead: int, reply: int = 0, mail: int = 0) -> Happening:
            return Happening(
                event_type,
                workspace.id,
                workspace.name,
                at,
                after,
                lead,
                hooks.number("campaign event"),
                mail or self._mail_of(lead),
                reply,
            )

        contacted = before.total_leads_contacted_count
        fresh = after.total_leads_contacted_count - contacted
        for number, at in enumerate(times("emails_sent_count"), start=1):
            is_first = number <= fresh
            lead = lead_id(after, contacted + number) if is_first else self._known_lead(after, contacted + fresh)
            mail = hooks.last_mail[lead] = hooks.number("scheduled email")
            sent = happening("email_sent", at, lead, mail=mail)
            yield sent
            if is_first:
                yield sent._replace(type="lead_first_contacted")
        for at in times("total_opened_count"):
            yield happening("email_opened", at, self._known_lead(after, contacted + fresh))
        yield from self._replies(happening, times, before, after)
        for at in times("bounced_count"):
            lead = self._known_lead(after, contacted + fresh)
            yield happening("email_bounced", at, lead, hooks.number("reply"))
        for number, at in enumerate(times("unsubscribed_count")):
            lead = lead_id(after, max(1, contacted + fresh - before.unsubscribed_count - number))
            yield happening("lead_unsubscribed", at, lead)

    def _replies(self, happening: _Make, times: _Times, before: Account, after: Account) -> Iterator[Happening]:
        """Let leads reply, as many for the first time as the counter of those gained, and some be interested."""
        known, unique = before.unique_replied_count, after.unique_replied_count - before.unique_replied_count
        first_replies: list[Happening] = []
        for number, at in enumerate(times("total_replied_count"), start=1):
            is_first = number <= unique
            lead = lead_id(after, known + number) if is_first else self._known_lead(after, known + max(0, unique))
            reply = happening("lead_replied", at, lead, self._hooks.number("reply"))
            yield reply
            if is_first:
                first_replies.append(reply)
        for number, at in enumerate(times("interested_leads_count")):
            if number < len(first_replies):
                replied = first_replies[number]
                yield happening("lead_interested", max(at, replied.at), replied.lead, replied.reply)
            else:
                lead = lead_id(after, before.interested_leads_count + number + 1)
                yield happening("lead_interested", at, lead, self._hooks.number("reply"))

    def _known_lead(self, account: Account, contacted: int) -> int:
        return lead_id(account, self._random.randint(1, max(1, contacted)))

    def _mail_of(self, lead: int) -> int:
        """Return the newest mail to a lead; of one whose mails are older than the world's memory, another number."""
        mail = self._hooks.last_mail.get(lead)
        if mail is None:
            mail = self._hooks.last_mail[lead] = self._hooks.number("scheduled email")
        return mail

    def _moments(self, amount: int, began: datetime, ended: datetime) -> Generator[datetime]:
        """Spread so many moments over a time, on each day as many as the daily series tell."""
        if amount <= 0:
            return
        for day, share in shares_by_day(amount, began, ended).items():
            midnight = datetime.combine(day, time(), UTC)
            low = max(began, midnight)
            step = (min(ended, midnight + timedelta(days=1)) - low) / share if share else timedelta()
            for number in range(share):
                yield low + step * (number + self._random.random() * 0.999)
