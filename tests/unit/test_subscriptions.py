"""Whose a webhook is, what is wrong with it, and how an address is shown."""

from __future__ import annotations

from urllib.parse import quote

import conversation  # noqa: F401  the profile for hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisonsync.models import Webhook
from bisonsync.subscriptions import Keyring, differences, digest, hook_url, mask_url, sort_out, spellings

PUBLIC = "https://bison.example.com/in"
KEY = ("sim", 5)
OTHER = ("sim", 6)
SECRET, AGAIN, OLD, STRANGE, GIVEN = "secret-of-five", "again-of-five", "old-of-five", "secret-of-six", "Given/ Secret"
RING = Keyring(
    active={digest(SECRET): KEY, digest(AGAIN): KEY, digest(STRANGE): OTHER},
    retired={digest(OLD): KEY},
    given={("sim", 7): GIVEN},
)
EVENTS = ("email_sent", "tag_attached")


def webhook(number: int, url: str, **fields: object) -> Webhook:
    return Webhook.model_validate({"id": number, "name": "bisonsync", "url": url, "events": list(EVENTS), **fields})


def kinds(*webhooks: Webhook, key: tuple[str, int] = KEY) -> list[tuple[int, str]]:
    return [(each.webhook.id, each.kind) for each in sort_out(webhooks, key, RING, public_url=PUBLIC)]


def test_ours_is_the_one_with_a_secret_of_its_workspace():
    found = kinds(
        webhook(1, "https://other.example.com/hooks/somebody"),
        webhook(2, hook_url(PUBLIC, SECRET)),
        webhook(3, hook_url(PUBLIC, "unknown")),
        webhook(4, hook_url(PUBLIC, STRANGE)),
        webhook(5, hook_url(PUBLIC, OLD)),
    )

    assert found == [(1, "foreign"), (2, "ours"), (3, "foreign"), (4, "foreign"), (5, "retired")]


def test_a_secret_of_another_workspace_is_told():
    [found] = sort_out([webhook(4, hook_url(PUBLIC, STRANGE))], KEY, RING, public_url=PUBLIC)

    assert "sim/6" in found.note
    assert STRANGE not in found.note


def test_what_comes_here_under_an_unknown_secret_is_told():
    [found] = sort_out([webhook(4, hook_url(PUBLIC, "unknown"))], KEY, RING, public_url=PUBLIC)

    assert "refused" in found.note
    assert "unknown" not in mask_url(found.webhook.url)


def test_the_same_address_twice_is_a_double_and_the_older_one_stays():
    url = hook_url(PUBLIC, SECRET)

    assert kinds(webhook(9, url), webhook(8, url)) == [(8, "ours"), (9, "double")]


def test_the_one_in_its_place_is_kept_before_an_older_one_elsewhere():
    found = kinds(webhook(1, hook_url("https://before.example.com", AGAIN)), webhook(2, hook_url(PUBLIC, SECRET)))

    assert found == [(1, "double"), (2, "ours")]


def test_ours_is_known_under_another_address_and_as_a_test_address():
    assert kinds(webhook(1, hook_url("https://before.example.com", SECRET))) == [(1, "ours")]
    assert kinds(webhook(1, hook_url(PUBLIC, SECRET, is_test=True))) == [(1, "ours")]
    assert kinds(webhook(1, hook_url(PUBLIC, SECRET) + "/")) == [(1, "ours")]


def test_a_secret_in_the_settings_is_ours_however_it_is_spelt():
    assert kinds(webhook(1, hook_url(PUBLIC, GIVEN)), key=("sim", 7)) == [(1, "ours")]
    assert kinds(webhook(1, hook_url(PUBLIC, GIVEN))) == [(1, "foreign")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, []),
        ({"url": hook_url(PUBLIC, SECRET).upper().replace("/IN/HOOKS/SECRET-OF-FIVE", "/in/hooks/secret-of-five")}, []),
        ({"url": f"{PUBLIC}/hooks/{SECRET}/"}, []),
        ({"events": ["TAG_ATTACHED", {"id": "email_sent", "name": "Email Sent"}]}, []),
        ({"name": "mine"}, ["is not named bisonsync"]),
        ({"events": ["email_sent", "email_opened"]}, ["lacks tag_attached", "has email_opened, which"]),
        ({"url": hook_url(PUBLIC, SECRET, is_test=True)}, ["goes to https://bison.example.com/in/hooks/…/…"]),
        ({"url": hook_url("https://before.example.com", SECRET)}, ["goes to https://before.example.com/"]),
    ],
)
def test_drift_is_told_in_words(fields: dict[str, object], said: list[str]):
    fields = dict(fields)
    wanted = hook_url(PUBLIC, SECRET)
    url = str(fields.pop("url", wanted))

    found = differences(webhook(1, url, **fields), url=wanted, events=EVENTS)

    assert len(found) == len(said)
    assert all(words in each for words, each in zip(said, found, strict=True))
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://x.example.com/hooks/abc/test?k=1#f", "https://x.example.com/hooks/…/…?…#…"),
        ("https://x.example.com:8443/in/Hooks/abc", "https://x.example.com:8443/in/Hooks/…"),
        ("https://me:pass@x.example.com/webhook/bison", "https://x.example.com/webhook/bison"),
        ("https://x.example.com/services/T0123ABCD/B456DEFG/q", "https://x.example.com/services/…/…/q"),
        ("https://x.example.com/webhook/550e8400-e29b-41d4-a716-446655440000", "https://x.example.com/webhook/…"),
        ("http://[::1]:80/hooks/s", "http://[::1]:80/hooks/…"),
        ("https://[bad", "…"),
        ("no address", "…"),
    ],
)
def test_an_address_is_shown_without_what_lets_anybody_in(url: str, shown: str):
    assert mask_url(url) == shown


@given(st.text(min_size=4), st.sampled_from(["", "/test", "/", "?a=b"]))
def test_no_secret_shows_in_any_address(secret: str, after: str):
    for spelt in (*spellings(secret), quote(secret)):
        shown = mask_url(f"https://x.example.com/hooks/{spelt}{after}")

        assert secret not in shown.removeprefix("https://x.example.com/hooks/").replace("…", "")
