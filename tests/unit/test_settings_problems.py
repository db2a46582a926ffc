"""What is wrong with settings: each kind of problem with its origin and a hint, and all of them at once."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bisonsync.errors import ConfigError
from bisonsync.settings import load, loading, locate
from bisonsync.settings.models import Instance

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


def problems(sources):
    return [(problem.origin, problem.message, problem.hint) for problem in loading.check(sources)[1]]


BAD_VALUES = {
    "address without scheme": ('[instances.a]\nbase_url = "a.example.com"', "instances.a.base_url", "https://"),
    "address without host": ('[instances.a]\nbase_url = "https://"', "instances.a.base_url", "host or port"),
    "address with port": ('[instances.a]\nbase_url = "https://h:x"', "instances.a.base_url", "host or port"),
    "address with bracket": ('[instances.a]\nbase_url = "https://[::1"', "instances.a.base_url", "host or port"),
    "address with ftp": ('[instances.a]\nbase_url = "ftp://h"', "instances.a.base_url", "https://"),
    "address with blank": ('[instances.a]\nbase_url = "https://h/ x"', "instances.a.base_url", "blank"),
    "address with line": ('[instances.a]\nbase_url = "https://h\\n.example.com"', "instances.a.base_url", "control"),
    "address with login": (
        '[instances.a]\nbase_url = "https://u:p@h"',
        "instances.a.base_url",
        "user name or password",
    ),
    "address with query": ('[instances.a]\nbase_url = "https://h/?x=1"', "instances.a.base_url", "? or #"),
    "address with fragment": ('[instances.a]\nbase_url = "https://h/#x"', "instances.a.base_url", "? or #"),
    "address in an address": (
        '[instances.a]\nbase_url = "https://https://h.example.com"',
        "instances.a.base_url",
        "path that no instance has",
    ),
    "plain http": ('[instances.a]\nbase_url = "http://h.example.com"', "instances.a.base_url", "plain http"),
    "plain http to a private net": (
        '[instances.a]\nbase_url = "http://10.0.0.1"',
        "instances.a.base_url",
        "plain http",
    ),
    "plain http to a look-alike": (
        '[instances.a]\nbase_url = "http://127.0.0.1.example.com"',
        "instances.a.base_url",
        "plain http",
    ),
    "another's address as a former one": (
        f'[instances.a]\nbase_url = "https://new.example.com"\nformer_urls = ["https://sim.example.com"]\n[instances.b]\n{SIM}',
        "instances",
        "base_url of b",
    ),
    "no address": ('[instances.a]\napi_key = "k"', "instances.a.base_url", "is missing"),
    "empty instance": ("[instances.a]", "instances.a.base_url", "is missing"),
    "instance is a number": ("[instances]\na = 5", "instances.a", "must be a table"),
    "instance name": (f'[instances."a b"]\n{SIM}', 'instances."a b"', "letters, digits, _ and - only"),
    "line in a name": (f'[instances."a\\nb"]\n{SIM}', r"instances.'a\nb'", "letters, digits, _ and - only"),
    "two lines in a key": (f'[instances.a]\n{SIM}api_key = "ab\\ncd"', "instances.a.api_key", "line break"),
    "blank in a key": (f'[instances.a]\n{SIM}api_key = "ab cd"', "instances.a.api_key", "line break"),
    "letter in a key": (f'[instances.a]\n{SIM}api_key = "abç"', "instances.a.api_key", "line break"),
    "empty key": (f'[instances.a]\n{SIM}api_key = "  "', "instances.a.api_key", "is empty"),
    "key is a number": (f"[instances.a]\n{SIM}api_key = 5", "instances.a.api_key", "must be text in quotes"),
    "no requests": (
        f"[instances.a]\n{SIM}requests_per_minute = 0",
        "instances.a.requests_per_minute",
        "must be greater",
    ),
    "too parallel": (f"[instances.a]\n{SIM}concurrency = 65", "instances.a.concurrency", "64"),
    "number is true": (f"[instances.a]\n{SIM}concurrency = true", "instances.a.concurrency", "not true or false"),
    "number is half": (f"[instances.a]\n{SIM}concurrency = 1.5", "instances.a.concurrency", "must be a whole number"),
    "number is text": (f'[instances.a]\n{SIM}concurrency = "x"', "instances.a.concurrency", "must be a whole number"),
    "no boolean": (f'[instances.a]\n{SIM}allow_switch = "x"', "instances.a.allow_switch", "must be true or false"),
    "workspace id": (f'[instances.a]\n{SIM}workspaces.x.api_key = "k"', "instances.a.workspaces.x", "whole number"),
    "workspace key": (f"[instances.a]\n{SIM}workspaces.5 = {{}}", "instances.a.workspaces.5.api_key", "is missing"),
    "time zone": ('reporting_timezone = "Europe/Berln"', "reporting_timezone", "did you mean Europe/Berlin"),
    "time zone is a path": ('reporting_timezone = "../etc/passwd"', "reporting_timezone", "not a time zone"),
    "time zone is a folder": ('reporting_timezone = "Europe"', "reporting_timezone", "not a time zone"),
    "time zone is empty": ('reporting_timezone = ""', "reporting_timezone", "not a time zone"),
    "time zone is a number": ("reporting_timezone = 1", "reporting_timezone", "must be text"),
    "duration": ('[polling]\ndeadline = "5 minutes"', "polling.deadline", "write it as 4m"),
    "duration is nothing": ('[polling]\ndeadline = "0s"', "polling.deadline", "longer than 0s"),
    "duration is negative": ("[polling]\ninterval = -1", "polling.interval", "must not be negative"),
    "duration is true": ("[polling]\ninterval = true", "polling.interval", "no duration"),
    "share": ("[polling]\nmax_shrink = 1.1", "polling.max_shrink", "less than or equal to 1"),
    "share is nan": ("[polling]\nmax_shrink = nan", "polling.max_shrink", "must be"),
    "no attempts": ("[polling]\nretry_attempts = 0", "polling.retry_attempts", "must be greater"),
    "section is text": ('polling = "x"', "polling", "must be a table"),
    "provider": ("[providers]\nTag = 5", "providers.Tag", "must be text"),
    "price": ("[[prices]]\nprice = -1", "prices.0.price", "must be greater"),
    "prices": ("prices = 5", "prices", "must be a list"),
    "retention": ("[retention]\nemail_sync_logs = 0", "retention.email_sync_logs", "must be greater"),
    "slack": ('[alerts]\nslack_webhook_url = "http://hooks.example.com/x"', "alerts.slack_webhook_url", "plain http"),
    "readers": ("[access]\nreaders = 5", "access.readers", "must be text"),
    "hook name": ('[webhooks.secrets]\n"x" = "s"', "webhooks.secrets.x", "INSTANCE/WORKSPACE-ID"),
    "hook of nobody": ('[webhooks.secrets]\n"x/1" = "s"', 'webhooks.secrets."x/1"', "there is no instance 'x'"),
    "hook secret": (f'[instances.a]\n{SIM}[webhooks.secrets]\n"a/1" = "x/y"', 'webhooks.secrets."a/1"', "one part of"),
    "hooks alike": (
        f'[instances.a]\n{SIM}[webhooks.secrets]\n"a/1" = "x"\n"a/2" = "x"',
        "webhooks.secrets",
        "same secret",
    ),
    "public http": (
        '[webhooks]\npublic_url = "http://hooks.example.com"',
        "webhooks.public_url",
        "every hook's secret",
    ),
    "public login": ('[webhooks]\npublic_url = "https://a:b@example.com"', "webhooks.public_url", "user name"),
    "public query": ('[webhooks]\npublic_url = "https://example.com/?a=1"', "webhooks.public_url", "? or #"),
    "public hooks": ('[webhooks]\npublic_url = "https://example.com/x/hooks/"', "webhooks.public_url", "before /hooks"),
    "public path": ('[webhooks]\npublic_url = "https://example.com/%20"', "webhooks.public_url", "cannot be used"),
    "no events": ("[webhooks]\nevents = []", "webhooks.events", "at least 1"),
    "event": ('[webhooks]\nevents = ["email.sent"]', "webhooks.events.0", "is no type of event"),
    "instance twice": (f"[instances.a]\n{SIM}[instances.A]\n{SIM}", "instances.A.base_url", "also written 'a'"),
    "secret twice": (
        f'[instances.a]\n{SIM}api_key = "k"\napi_key_file = "f"',
        "instances.a.api_key_file",
        "given twice, also by c.toml: instances.a.api_key",
    ),
}


@pytest.mark.parametrize(("text", "key", "message"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_refuses_a_bad_value_once_with_its_origin(given_file, text, key, message):
    found = problems(given_file(text))

    assert [origin for origin, _, _ in found] == [f"c.toml: {key}"]
    assert message in found[0][1]


@pytest.mark.parametrize(
    "lines", [("api_key = {x = 1}", 'api_key_file = "f"'), ('api_key_file = "f"', "api_key = {x = 1}")]
)
def test_refuses_a_secret_given_in_parts_and_by_file(given_file, lines):
    found = problems(given_file(f"[instances.a]\n{SIM}" + "\n".join(lines)))

    assert any("is given twice" in message for _, message, _ in found)


BAD_VARIABLES = {
    "value": ({"BISONSYNC_POLLING__DEADLINE": "soon"}, "BISONSYNC_POLLING__DEADLINE", "no duration"),
    "missing": ({"BISONSYNC_INSTANCES__SIM__API_KEY": "k"}, "BISONSYNC_INSTANCES__SIM__BASE_URL", "is missing"),
    "in a table": ({"BISONSYNC_POLLING": '{"interval": "soon"}'}, "BISONSYNC_POLLING", "no duration"),
    "not json": ({"BISONSYNC_POLLING": "{x"}, "BISONSYNC_POLLING", "must be a table"),
    "typing error in a table": ({"BISONSYNC_POLLING": '{"deadlin": "1m"}'}, "BISONSYNC_POLLING", "is not a setting"),
    "whole and part": (
        {"BISONSYNC_POLLING": '{"interval": "3m"}', "BISONSYNC_POLLING__INTERVAL": "4m"},
        "BISONSYNC_POLLING__INTERVAL",
        "given twice, also by environment BISONSYNC_POLLING",
    ),
    "two cases": (
        {"BISONSYNC_REPORTING_TIMEZONE": "UTC", "BISONSYNC_reporting_timezone": "UTC"},
        "BISONSYNC_reporting_timezone",
        "given twice",
    ),
}


@pytest.mark.parametrize(("environ", "variable", "message"), BAD_VARIABLES.values(), ids=BAD_VARIABLES.keys())
def test_refuses_a_bad_variable_by_its_name(given_file, environ, variable, message):
    found = problems(given_file(environ=URL | environ))

    assert [origin for origin, _, _ in found] == [f"environment {variable}"]
    assert message in found[0][1]


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("reporting_timezon = 'UTC'", "reporting_timezon", "did you mean reporting_timezone?"),
        (f"[instance.a]\n{SIM}", "instance", "did you mean instances?"),
        (f"[instances.a]\n{SIM}api_key_fil = 'x'", "instances.a.api_key_fil", "did you mean api_key_file?"),
        ("[polling]\ndead_line = '1m'", "polling.dead_line", "did you mean deadline?"),
        ("[[prices]]\nprize = 1", "prices.0.prize", "did you mean price?"),
        ("[access]\nzzz = 1", "access.zzz", "known here: readers"),
        ("_env_file = '/etc/passwd'", "_env_file", "known here:"),
        ("a" + ".a" * 2000 + " = 1", "a" + ".a" * 7, "known here:"),
    ],
)
def test_suggests_what_an_unknown_key_may_have_meant(given_file, text, key, hint):
    [(origin, message, found)] = problems(given_file(text))

    assert message == "is not a setting"
    assert origin in (f"c.toml: {key}", "c.toml: a")
    assert found.startswith(hint)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BISONSYNC_INSTANCE__SIM__BASE_URL", "BISONSYNC_INSTANCES__SIM__BASE_URL"),
        ("BISONSYNC_DATABASE_URI", "BISONSYNC_DATABASE_URL"),
        ("BISONSYNC_POLLING__DEADLIN", "BISONSYNC_POLLING__DEADLINE"),
    ],
)
def test_suggests_what_an_unknown_variable_may_have_meant(given_file, variable, meant):
    found = problems(given_file(environ=URL | {variable: "x"}))

    assert found == [(f"environment {variable}", "is not a setting", f"did you mean {meant}?")]


def test_suggests_a_key_inside_a_variable_that_holds_a_table(given_file):
    [(_, _, hint)] = problems(given_file(environ=URL | {"BISONSYNC_POLLING": '{"deadlin": "1m"}'}))

    assert hint == "did you mean deadline?"


def test_a_missing_value_is_missed_in_the_file_that_has_its_table(given_file):
    environ = URL | {"BISONSYNC_INSTANCES__A__API_KEY": "k"}

    assert problems(given_file("[instances.a]\nconcurrency = 1", environ)) == [
        ("c.toml: instances.a.base_url", "is missing", "add base_url")
    ]


def test_a_value_in_the_place_of_a_table_is_told(given_file):
    found = problems(given_file("[polling]\ndeadline = '1m'", URL | {"BISONSYNC_POLLING": "3m"}))

    assert found == [("environment BISONSYNC_POLLING", "must be a table", "")]


def test_an_error_of_the_models_themselves_shows_no_input():
    with pytest.raises(ValidationError) as caught:
        Instance(base_url="https://u:Zq7x@h", api_key="Zq7x Zq7x")

    assert "Zq7x" not in str(caught.value)


def test_variables_of_our_other_parts_are_no_settings(given_file):
    environ = URL | {"BISONSYNC_CONFIG": "x", "BISONSYNC_PG_BIN": "/usr/bin", "BISONSYNC_TEST_DSN": "host=h"}

    assert problems(given_file(environ=environ)) == []


def test_tells_all_problems_at_once(given_file):
    text = (
        "reporting_timezone = 'Mars'\n[instances.a]\nbase_url = 'http://a.example.com'\napi_key_file = 'no.key'\n"
        "[polling]\nmax_shrink = 7\nunknown = 1\n[webhooks.secrets]\n'b/1' = 'Zq7x'"
    )
    sources = given_file(text, {"BISONSYNC_POLLING__DEADLINE": "Zq7x?"}, {"database_url": "nowhere"}, mode=0o644)

    with pytest.raises(ConfigError) as caught:
        load(sources)

    first, *lines = caught.value.message.splitlines()
    assert first == "9 problems in the settings:"
    assert sorted(line.partition(": ")[0].strip() + ": " + line.split(": ")[1] for line in lines) == [
        "c.toml: instances.a.api_key_file",
        "c.toml: instances.a.base_url",
        "c.toml: polling.max_shrink",
        "c.toml: polling.unknown",
        "c.toml: reporting_timezone",
        'c.toml: webhooks.secrets."b/1"',
        'c.toml: webhooks.secrets."b/1"',
        "environment BISONSYNC_POLLING__DEADLINE: 'Zq7x?' is no duration",
        "option --database-url: this address cannot be used",
    ]
    assert caught.value.exit_code == 4
    assert "config check" in caught.value.hint


def test_tells_a_single_problem_in_one_line(given_file):
    with pytest.raises(ConfigError) as caught:
        load(given_file("[polling]\ndead_line = '1m'"))

    assert (caught.value.message, caught.value.hint) == (
        "c.toml: polling.dead_line: is not a setting",
        "did you mean deadline?",
    )
