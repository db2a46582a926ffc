"""``config show`` and ``config check``: every setting with its origin, every problem as data."""

from pathlib import Path

import pytest

from bisonsync.errors import ConfigError
from bisonsync.jobs import config
from bisonsync.settings import Problem, locate
from bisonsync.settings.models import Settings

TEXT = """
database_url = "postgresql://me:Zq7x@db.example.com:6543/app?sslmode=require"
[instances.Maverick]
base_url = "https://send.example.com/api"
api_key_file = "maverick.key"
workspaces.5.api_key = "Zq7x"
[polling]
[providers]
"My Tag" = "Google"
[[prices]]
price = 1.50
[webhooks.secrets]
"maverick/5" = "Zq7x"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"c.toml": TEXT, "maverick.key": "Zq7x"}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def shown(environ=None, overrides=None):
    found = config.show(locate(Path("c.toml"), environ=environ or {}, overrides=overrides))
    return {value.key: (value.value, value.origin) for value in found.values}


def test_shows_each_value_with_its_origin():
    found = shown({"BISONSYNC_POLLING__DEADLINE": "240"}, {"reporting_timezone": "Europe/Berlin"})

    expected = {
        "database_url": ("host=db.example.com port=6543 dbname=app user=me", "c.toml: database_url"),
        "reporting_timezone": ("Europe/Berlin", "option --reporting-timezone"),
        "instances.maverick.base_url": ("https://send.example.com", "c.toml: instances.maverick.base_url"),
        "instances.maverick.api_key": ("••••", "c.toml: instances.maverick.api_key_file"),
        "instances.maverick.concurrency": ("10", "default"),
        "instances.maverick.allow_switch": ("false", "default"),
        "instances.maverick.workspaces.5.api_key": ("••••", "c.toml: instances.maverick.workspaces.5.api_key"),
        "polling.deadline": ("4m", "environment BISONSYNC_POLLING__DEADLINE"),
        "polling.interval": ("3m", "default"),
        "polling.max_shrink": ("0.2", "default"),
        'providers."My Tag"': ("Google", 'c.toml: providers."My Tag"'),
        "resellers.Zapmail": ("Zapmail", "default"),
        "prices.0.price": ("1.5", "c.toml: prices"),
        "prices.0.provider": (None, "c.toml: prices"),
        "schedule": ("{}", "default"),
        "alerts.slack_webhook_url": (None, "default"),
        'webhooks.secrets."maverick/5"': ("••••", 'c.toml: webhooks.secrets."maverick/5"'),
    }
    assert {key: found[key] for key in expected} == expected


def test_an_empty_table_in_the_file_gives_no_value():
    assert shown()["polling.deadline"] == ("15m", "default")


def test_shows_every_setting_there_is():
    assert {key.partition(".")[0] for key in shown()} == set(Settings.model_fields)


def test_shows_nothing_of_a_secret_and_says_which_values_are():
    found = config.show(locate(Path("c.toml"), environ={}))

    assert "Zq7x" not in repr(found)
    assert [value.key for value in found.values if value.is_secret] == [
        "database_url",
        "instances.maverick.api_key",
        "instances.maverick.workspaces.5.api_key",
        "alerts.slack_webhook_url",
        'webhooks.secrets."maverick/5"',
    ]


def test_shows_the_embedded_database_as_such():
    assert shown({"BISONSYNC_DATABASE_URL": "embedded"})["database_url"] == (
        "embedded",
        "environment BISONSYNC_DATABASE_URL",
    )


def test_shows_nothing_of_settings_that_no_run_would_accept():
    with pytest.raises(ConfigError, match="BISONSYNC_NOTHING: is not a setting"):
        shown({"BISONSYNC_NOTHING": "1"})


def test_checks_find_nothing_in_good_settings():
    assert config.check(locate(Path("c.toml"), environ={})) == config.Checked(Path("c.toml"), ())


def test_checks_find_every_problem_as_data(folder):
    (folder / "c.toml").chmod(0o644)
    (folder / "maverick.key").chmod(0o640)

    found = config.check(locate(Path("c.toml"), environ={"BISONSYNC_POLLING__DEADLIN": "1m"}))

    assert found.problems == (
        Problem(
            "c.toml: database_url",
            "holds a secret, and others can read this file (mode 0644)",
            "chmod 600 c.toml, or move the secret to a file of its own: database_url_file",
        ),
        Problem(
            "c.toml: instances.maverick.api_key_file",
            "others can read the file maverick.key (mode 0640)",
            "chmod 600 maverick.key",
        ),
        Problem(
            "environment BISONSYNC_POLLING__DEADLIN",
            "is not a setting",
            "did you mean BISONSYNC_POLLING__DEADLINE?",
        ),
    )
