"""Stage two: typed values, their defaults, and which layer wins."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bisonsync.settings import load, locate
from bisonsync.settings.models import PROVIDERS, Instance, Polling

PROPERTY = settings(deadline=None, database=None)
URL = {"BISONSYNC_DATABASE_URL": "postgresql://h/x"}
SIM = 'base_url = "https://sim.example.com"\n'


@pytest.fixture
def given_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(text="", environ=None, overrides=None, *, mode=0o600):
        path = tmp_path / "c.toml"
        path.write_text(text)
        path.chmod(mode)
        return locate(Path("c.toml"), environ=URL if environ is None else environ, overrides=overrides)

    return build


def test_has_a_default_for_everything_but_the_database(given_file):
    loaded = load(given_file())

    assert loaded.reporting_timezone == "UTC"
    assert loaded.instances == {}
    assert loaded.polling == Polling(
        deadline=timedelta(minutes=15),
        workspace_deadline_per_1000=timedelta(seconds=60),
        workspace_deadline_min=timedelta(seconds=45),
        connect_timeout=timedelta(seconds=5),
        read_timeout=timedelta(seconds=30),
        retry_attempts=5,
        max_shrink=0.2,
        max_shrink_accounts=5,
        shrink_confirm_after=timedelta(minutes=30),
        failures_before_giving_up=5,
        lease_ttl=timedelta(seconds=60),
        interval=timedelta(minutes=3),
    )
    assert list(loaded.providers.items()) == list(PROVIDERS.items())
    assert list(loaded.resellers) == ["CheapInboxes", "Zapmail", "ScaledMail", "Mailr"]
    assert (loaded.alerts.after, loaded.alerts.close_after, loaded.alerts.reminder) == (2, 2, timedelta(hours=4))
    assert loaded.webhooks.store_bodies is False


def test_an_instance_needs_its_address_alone(given_file):
    loaded = load(given_file(f"[instances.sim]\n{SIM}"))

    assert loaded.instances["sim"] == Instance(base_url="https://sim.example.com")
    assert loaded.instances["sim"].model_dump() == {
        "base_url": "https://sim.example.com",
        "former_urls": [],
        "api_key": None,
        "requests_per_minute": 1500,
        "reserve": 0.1,
        "concurrency": 10,
        "stats_timezone": "UTC",
        "allow_switch": False,
        "workspaces": {},
    }


def test_reads_three_variables_and_nothing_else():
    environ = {
        **URL,
        "BISONSYNC_INSTANCES__SIM__BASE_URL": "http://127.0.0.1:8080/api",
        "BISONSYNC_INSTANCES__SIM__API_KEY": "1|abc",
    }

    loaded = load(locate(Path("/dev/null"), environ={**environ, "PATH": "/bin", "OTHER_BISONSYNC_X": "1"}))

    assert list(loaded.instances) == ["sim"]
    assert loaded.instances["sim"].base_url == "http://127.0.0.1:8080"
    assert loaded.instances["sim"].api_key.get_secret_value() == "1|abc"


def test_reads_every_section(given_file):
    loaded = load(
        given_file(
            f"""
            reporting_timezone = "Europe/Berlin"
            [instances.Maverick]
            {SIM}
            concurrency = 4
            allow_switch = true
            former_urls = ["https://App.example.com/api/", "http://127.0.0.1:8080"]
            [instances.Maverick.workspaces.12]
            api_key = "7|abc"
            [polling]
            deadline = "4m"
            connect_timeout = 2.5
            max_shrink = 1
            [providers]
            Zed = "Zed Mail"
            Alpha = "Alpha"
            [[prices]]
            provider = "Google"
            price = 3.1
            [[prices]]
            volume_per_account = 30
            [schedule]
            poll-accounts = "3m"
            [retention]
            email_sync_logs = 90
            [alerts]
            slack_webhook_url = "https://hooks.example.com/x"
            reminder = "1h"
            [alerts.thresholds]
            freshness = {{ warn = "5m" }}
            [access]
            readers = ["5b0e9f0c-0000-4000-8000-000000000000"]
            [webhooks]
            store_bodies = true
            [webhooks.secrets]
            "Maverick/12" = "hush"
            """
        )
    )

    maverick = loaded.instances["maverick"]
    assert (maverick.concurrency, maverick.allow_switch) == (4, True)
    assert maverick.former_urls == ["https://app.example.com", "http://127.0.0.1:8080"]
    assert maverick.workspaces[12].api_key.get_secret_value() == "7|abc"
    assert (loaded.polling.deadline, loaded.polling.connect_timeout) == (timedelta(minutes=4), timedelta(seconds=2.5))
    assert list(loaded.providers) == ["Zed", "Alpha"]
    assert [(price.provider, price.price, price.volume_per_account) for price in loaded.prices] == [
        ("Google", Decimal("3.1"), None),
        (None, None, Decimal(30)),
    ]
    assert loaded.schedule == {"poll-accounts": timedelta(minutes=3)}
    assert loaded.retention == {"email_sync_logs": 90}
    assert loaded.alerts.thresholds == {"freshness": {"warn": "5m"}}
    assert loaded.access.readers == ["5b0e9f0c-0000-4000-8000-000000000000"]
    assert loaded.webhooks.secrets["maverick/12"].get_secret_value() == "hush"


def test_settings_are_frozen(given_file):
    loaded = load(given_file(f"[instances.sim]\n{SIM}"))

    for thing, name in [(loaded, "providers"), (loaded.polling, "deadline"), (loaded.instances["sim"], "api_key")]:
        with pytest.raises((ValidationError, FrozenInstanceError)):
            setattr(thing, name, None)


@PROPERTY
@given(
    st.dictionaries(st.sampled_from(["option", "environment", "file"]), st.integers(1, 64)),
    st.sampled_from(["concurrency", "requests_per_minute"]),
)
def test_option_beats_environment_beats_file_beats_default(tmp_path_factory, values, name):
    path = tmp_path_factory.mktemp("settings") / "c.toml"
    path.write_text(f"[instances.sim]\n{SIM}" + (f"{name} = {values['file']}" if "file" in values else ""))
    path.chmod(0o600)
    environ = (
        {f"BISONSYNC_INSTANCES__SIM__{name.upper()}": str(values["environment"])} if "environment" in values else {}
    )
    overrides = {f"instances.sim.{name}": str(values["option"])} if "option" in values else {}

    loaded = load(locate(path, environ=URL | environ, overrides=overrides))

    default = {"concurrency": 10, "requests_per_minute": 1500}[name]
    expected = next((values[layer] for layer in ("option", "environment", "file") if layer in values), default)
    assert getattr(loaded.instances["sim"], name) == expected


def test_the_environment_adds_to_a_table_of_the_file(given_file):
    environ = URL | {"BISONSYNC_POLLING__DEADLINE": "1m", "BISONSYNC_INSTANCES__MY_SIM__API_KEY": "key"}

    loaded = load(given_file(f"[polling]\nread_timeout = 9\n[instances.my-sim]\n{SIM}", environ))

    assert (loaded.polling.deadline, loaded.polling.read_timeout) == (timedelta(minutes=1), timedelta(seconds=9))
    assert loaded.instances["my-sim"].api_key.get_secret_value() == "key"


def test_where_deliveries_arrive_and_of_which_events(given_file):
    default = load(given_file("")).webhooks
    loaded = load(
        given_file(
            '[webhooks]\npublic_url = "https://Hooks.example.com:8443/bison/"'
            '\nevents = ["EMAIL_SENT", "tag_removed", "email_sent"]'
        )
    ).webhooks

    assert default.public_url is None
    assert {"email_sent", "tag_attached", "email_account_disconnected"} <= set(default.events)
    assert loaded.public_url == "https://hooks.example.com:8443/bison"
    assert loaded.events == ["email_sent", "tag_removed"]


def test_a_variable_can_hold_a_table_or_a_list(given_file):
    environ = URL | {
        "BISONSYNC_INSTANCES": '{"Sim": {"base_url": "https://b.example.com", "api_key": "{key}"}}',
        "BISONSYNC_PROVIDERS": '{"Tag": "Google"}',
        "BISONSYNC_ACCESS__READERS": '["a", "b"]',
        "BISONSYNC_PRICES": '[{"price": "1.5"}]',
    }

    loaded = load(given_file("[providers]\nOther = 'Yahoo'", environ))

    assert loaded.instances["sim"].api_key.get_secret_value() == "{key}"
    assert list(loaded.providers) == ["Other", "Tag"]
    assert loaded.access.readers == ["a", "b"]
    assert loaded.prices[0].price == Decimal("1.5")


def test_a_secret_that_looks_like_json_stays_text(given_file):
    environ = URL | {"BISONSYNC_INSTANCES__SIM__API_KEY": '{"a":1}'}

    loaded = load(given_file(f"[instances.sim]\n{SIM}", environ))

    assert loaded.instances["sim"].api_key.get_secret_value() == '{"a":1}'


@pytest.mark.parametrize(
    ("given_url", "kept"),
    [
        ("https://send.example.com", "https://send.example.com"),
        ("https://send.example.com/", "https://send.example.com"),
        ("https://send.example.com/api", "https://send.example.com"),
        ("https://send.example.com/api/", "https://send.example.com"),
        (" https://Send.Example.com:443/api ", "https://send.example.com"),
        ("https://send.example.com:8443/mail/api/", "https://send.example.com:8443/mail"),
        ("https://send.example.com/myapi", "https://send.example.com/myapi"),
        ("https://send.example.com/api//api/", "https://send.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9:80/", "http://127.9.9.9"),
        ("http://[::1]:8000/api", "http://[::1]:8000"),
        ("http://localhost/api", "http://localhost"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_keeps_the_address_without_api(given_file, given_url, kept):
    assert load(given_file(f'[instances.a]\nbase_url = "{given_url}"')).instances["a"].base_url == kept


@PROPERTY
@given(
    st.lists(
        st.sampled_from(["https://", "http://", "h.example.com", "127.0.0.1", ":8", "/", "api", "@", "?", "#", "x"])
    )
)
def test_an_address_once_kept_stays_the_same(parts):
    adapter = TypeAdapter(Instance)
    try:
        kept = adapter.validate_python({"base_url": "".join(parts)}).base_url
    except ValidationError:
        return

    assert kept.startswith(("https://", "http://127."))
    assert not set("?#@ ") & set(kept)
    assert not urlsplit(kept).path.endswith(("/", "/api"))
    assert adapter.validate_python({"base_url": kept}).base_url == kept
