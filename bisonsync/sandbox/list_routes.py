"""The lists of a workspace and single rows of them: sender emails, their warm-up, campaigns, tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, TypeVar
from urllib.parse import unquote

from bisonsync.sandbox import pages
from bisonsync.sandbox.calls import Call, invalid, no_record, page_answer, paginate
from bisonsync.sandbox.http import Answer
from bisonsync.sandbox.rows import Account, Campaign, Listed, R, Tag

T = TypeVar("T", Account, Campaign)

_STATUSES = ("connected", "not_connected", "pending_move", "pending_deletion")
_CAMPAIGN_STATUSES = (
    *("draft", "launching", "active", "stopped", "completed", "paused", "failed", "queued", "archived"),
    *("pending deletion", "deleted"),
)


def _choose(
    call: Call, rows: Listed[T], searched: Callable[[T], str], extra: Callable[[T], bool] | None = None
) -> Sequence[int]:
    """Apply the filters that these lists know; without one the whole list, newest first."""
    search = (call.value("search") or "").lower()
    wanted, unwanted, untagged = call.ids("tag_ids"), call.ids("excluded_tag_ids"), call.flag("without_tags")
    if not (search or wanted or unwanted or untagged or extra):
        return rows.order()

    def fits(row: T) -> bool:
        tags = {tag.id for tag in row.tags}
        return (
            (not search or search in searched(row).lower())
            and (not wanted or bool(tags & wanted))
            and not tags & unwanted
            and not (untagged and tags)
            and (extra is None or extra(row))
        )

    return [i for i in rows.order() if fits(rows[i])]


def _listed(call: Call, rows: Listed[R], ids: Sequence[int]) -> Answer:
    """Answer with the page of these rows that is asked for."""
    page = paginate(call, ids)
    if not call.is_plain:
        return page_answer(page, lambda i: rows[i].row())
    body = b",".join([rows.body(i) for i in page.ids])
    tail = json.dumps({"links": page.links, "meta": page.meta}, separators=(",", ":")).encode()
    return Answer(body=b'{"data":[' + body + b"]," + tail[1:])


def _mailbox_words(account: Account) -> str:
    return f"{account.email} {account.name}"


def list_sender_emails(call: Call) -> Answer:
    status = call.value("status")
    if status and status not in _STATUSES:
        raise invalid("status", "The selected status is invalid.")

    def has_status(account: Account) -> bool:
        return account.status.lower().replace(" ", "_") == status

    accounts = call.workspace.accounts
    return _listed(call, accounts, _choose(call, accounts, _mailbox_words, has_status if status else None))


def get_sender_email(call: Call) -> Answer:
    key = unquote(call.args[0]).lower()
    accounts = call.workspace.accounts
    number = pages.read_number(key)
    found = accounts.get(number) if number else next((a for a in accounts.values() if a.email == key), None)
    if found is None:
        raise no_record("sender_email", key)
    return Answer(payload={"data": found.row()})


def list_campaigns(call: Call) -> Answer:
    status = call.value("status") or call.json().get("status")
    if status and status not in _CAMPAIGN_STATUSES:
        raise invalid("status", "The selected status is invalid.")

    def has_status(campaign: Campaign) -> bool:
        return campaign.status.lower() == status

    campaigns = call.workspace.campaigns
    chosen = _choose(call, campaigns, lambda campaign: campaign.name, has_status if status else None)
    return _listed(call, campaigns, chosen)


def get_campaign(call: Call) -> Answer:
    campaign = call.workspace.campaigns.get(pages.read_number(call.args[0]) or 0)
    if campaign is None:
        raise no_record("campaign", call.args[0])
    return Answer(payload={"data": campaign.row()})


def list_tags(call: Call) -> Answer:
    def row(tag: Tag) -> dict[str, Any]:
        created = call.workspace.created_at
        return {**tag._asdict(), "created_at": created, "updated_at": created}

    return Answer(payload={"data": [row(tag) for tag in call.workspace.tags.values()]})


def _warmup_row(account: Account, days: int, last: date) -> dict[str, Any]:
    """Make figures that add up over days; the score moves from one last day to the next."""
    sent = days * (account.id % 30 + 5) if account.warmup_enabled else 0
    return {
        "id": account.id,
        "email": account.email,
        "name": account.name,
        "domain": account.email.partition("@")[2],
        "tags": [tag._asdict() for tag in account.tags],
        "warmup_enabled": account.warmup_enabled,
        "warmup_daily_limit": account.id % 4 * 10 + 10,
        "warmup_emails_sent": sent,
        "warmup_replies_received": sent * 3 // 10,
        "warmup_emails_saved_from_spam": sent // 12,
        "warmup_score": round(100 - (account.id + last.toordinal()) % 37 * 0.5, 1) if account.warmup_enabled else 0,
        "warmup_bounces_received_count": account.id % 3,
        "warmup_bounces_caused_count": 0,
        "warmup_disabled_for_bouncing_count": int(account.id % 50 == 0),
    }


def _window(call: Call) -> tuple[int, date]:
    """Count the days from start_date to end_date, absent the last ten and today; and tell the last of them."""
    found: dict[str, date] = {}
    for name in ("start_date", "end_date"):
        try:
            found[name] = date.fromisoformat(call.value(name) or "")
        except ValueError:
            if call.value(name):
                raise invalid(name, f"The {name.replace('_', ' ')} is not a valid date.") from None
    last = found.get("end_date", call.world.now.date())
    return (max(0, (last - found.get("start_date", last)).days) + 1 if found else 11), last


def list_warmup(call: Call) -> Answer:
    status, (days, last) = call.value("warmup_status"), _window(call)

    def has_status(account: Account) -> bool:
        return account.warmup_enabled == (status == "enabled")

    accounts = call.workspace.accounts
    page = paginate(call, _choose(call, accounts, _mailbox_words, has_status if status else None))
    return page_answer(page, lambda i: _warmup_row(accounts[i], days, last))
