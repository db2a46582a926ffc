"""Secrets: files of their own, who may read them, and that none is ever shown."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisonsync.errors import BisonsyncError
from bisonsync.jobs import config
from bisonsync.settings import load, locate
from bisonsync.settings.models import Settings

PROPERTY = settings(deadline=None, database=None)
URL = {"BISONSYNC_DATABASE_URL": "postgresql://h/x"}
NAME = "BISONSYNC_INSTANCES__SIM__"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def write(path, content, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def sources(folder, api_key_file, **environ):
    text = f'[instances.sim]\nbase_url = "https://sim.example.com"\napi_key_file = "{api_key_file}"\n'
    return locate(write(folder / "c.toml", text), environ=URL | environ)


def api_key(found):
    return load(found).instances["sim"].api_key.get_secret_value()


def problem(found):
    [only] = config.check(found).problems
    return only


@pytest.mark.parametrize("content", ["1|abc", "1|abc\n", " \t1|abc\r\n\n", b"\xef\xbb\xbf1|abc"])
def test_reads_a_secret_beside_the_configuration_file(folder, content):
    write(folder / "keys" / "sim.key", content)

    assert api_key(sources(folder, "keys/sim.key")) == "1|abc"


def test_reads_a_file_that_a_variable_names_from_the_current_folder(folder):
    write(folder / "elsewhere" / "sim.key", "1|abc")
    environ = URL | {NAME + "BASE_URL": "https://sim.example.com", NAME + "API_KEY_FILE": "sim.key"}

    assert api_key(locate(write(folder / "c.toml", ""), environ=environ)) == "1|abc"


def test_reads_a_file_in_the_home(folder):
    write(folder / "sim.key", "1|abc")

    assert api_key(sources(folder, "~/sim.key", HOME=str(folder))) == "1|abc"


def test_reads_every_secret_by_file(folder):
    write(folder / "s", "https://s.example.com")
    write(folder / "hook", "hush")
    text = """
        database_url_file = "url"
        [instances.sim]
        base_url = "https://sim.example.com"
        [instances.sim.workspaces.5]
        api_key_file = "s"
        [alerts]
        slack_webhook_url_file = "s"
        [webhooks.secrets]
        "sim/5_file" = "hook"
        [heartbeats]
        poll-accounts_file = "s"
    """
    write(folder / "url", "postgresql://me:pw@h/x\n")

    loaded = load(locate(write(folder / "c.toml", text), environ={}))

    assert loaded.database_url.get_secret_value() == "postgresql://me:pw@h/x"
    others = [
        loaded.instances["sim"].workspaces[5].api_key,
        loaded.alerts.slack_webhook_url,
        loaded.heartbeats["poll-accounts"],
    ]
    assert [secret.get_secret_value() for secret in others] == ["https://s.example.com"] * 3
    assert loaded.webhooks.secrets["sim/5"].get_secret_value() == "hush"


def test_a_file_that_a_stronger_value_replaces_is_not_read(folder):
    assert api_key(sources(folder, "missing.key", **{NAME + "API_KEY": "1|abc"})) == "1|abc"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_refuses_a_secret_file_that_others_can_reach(folder, mode):
    path = write(folder / "sim.key", "1|abc", mode)

    found = problem(sources(folder, "sim.key"))

    assert found.origin == f"{folder}/c.toml: instances.sim.api_key_file"
    assert found.message == f"others can read the file {path} (mode {mode:04o})"
    assert found.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_takes_a_secret_file_of_its_owner_alone(folder, mode):
    write(folder / "sim.key", "1|abc", mode)

    assert api_key(sources(folder, "sim.key")) == "1|abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        ("x" * 70_000, "is larger than any secret"),
        (None, "there is no file"),
    ],
)
def test_refuses_a_secret_file_without_a_secret(folder, content, message):
    if content is not None:
        write(folder / "sim.key", content)

    assert message in problem(sources(folder, "sim.key")).message


@pytest.mark.parametrize("name", [".", "a\\u0000b", ""])
def test_refuses_a_name_of_no_file(folder, name):
    assert "cannot be read" in problem(sources(folder, name)).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_refuses_a_secret_file_it_may_not_read(folder):
    write(folder / "sim.key", "1|abc", 0o000)

    assert "cannot be read: Permission denied" in problem(sources(folder, "sim.key")).message


@pytest.mark.parametrize("name", ["$CREDENTIALS_DIRECTORY/sim", "${CREDENTIALS_DIRECTORY}/sim", "{folder}/systemd/sim"])
def test_takes_a_systemd_credential_whatever_its_mode(folder, name):
    write(folder / "systemd" / "sim", "1|abc", 0o440)

    found = sources(folder, name.replace("{folder}", str(folder)), CREDENTIALS_DIRECTORY=str(folder / "systemd"))

    assert api_key(found) == "1|abc"


@pytest.mark.parametrize("how", ["dots", "link"])
def test_the_credentials_folder_excuses_no_file_outside(folder, how):
    write(folder / "sim.key", "1|abc", 0o644)
    (folder / "systemd").mkdir()
    (folder / "systemd" / "link").symlink_to(folder / "sim.key")
    name = {"dots": "../sim.key", "link": "link"}[how]

    found = sources(folder, f"$CREDENTIALS_DIRECTORY/{name}", CREDENTIALS_DIRECTORY=str(folder / "systemd"))

    assert "others can read the file" in problem(found).message


@pytest.mark.parametrize(("name", "variable"), [("$CREDENTIALS_DIRECTORY/x", "CREDENTIALS_DIRECTORY"), ("~/x", "HOME")])
def test_names_the_variable_that_a_path_needs(folder, name, variable):
    assert problem(sources(folder, name)).message == f"${variable} is not set"


@pytest.mark.parametrize(
    "text",
    [
        '[instances.sim]\nbase_url = "https://s.example.com"\n[instances.sim.workspaces.5]\napi_key_file = "no"\n',
        '[alerts]\nslack_webhook_url_file = "no"\n',
        'database_url_file = "no"\n',
    ],
)
def test_tells_of_an_unusable_secret_once(folder, text):

    assert (
        "there is no file"
        in problem(locate(write(folder / "c.toml", text), environ={} if "database" in text else URL)).message
    )


MARK = "Zq7x"
HOSTILE = st.lists(st.sampled_from([MARK, *"@:/?#%=&'\"{}[]\\ \n\té,"]), min_size=1, max_size=8).map(
    lambda parts: "".join([*parts, MARK])
)
VARIABLES = [
    "BISONSYNC_DATABASE_URL",
    NAME + "API_KEY",
    NAME + "WORKSPACES__5__API_KEY",
    "BISONSYNC_ALERTS__SLACK_WEBHOOK_URL",
    NAME + "API_KYE",
    NAME + "WORKSPACES__X__API_KEY",
]


@PROPERTY
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(VARIABLES, HOSTILE)),
    st.sampled_from(["{}", "postgresql://me:{}@h/x", "host=h password={}", "https://hooks.example.com/{}"]),
)
def test_shows_no_secret_from_the_environment(secrets, form):
    environ = {name: form.format(secret) for name, secret in secrets.items()}
    given_there = {"BISONSYNC_DATABASE_URL": "host=h", NAME + "BASE_URL": "https://sim.example.com"} | environ

    assert MARK not in everything_shown(locate(Path(os.devnull), environ=given_there))


@PROPERTY
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("url", "key", "workspace", "slack", "hook"), HOSTILE)))
def test_shows_no_secret_from_files(tmp_path_factory, secrets):
    folder = tmp_path_factory.mktemp("files")
    for name, content in {"url": "host=h", "key": "k", "workspace": "k", "slack": "https://s", "hook": "s"}.items():
        write(folder / name, secrets.get(name, content))
    text = """
        database_url_file = "url"
        [instances.sim]
        base_url = "https://sim.example.com"
        api_key_file = "key"
        workspaces.5.api_key_file = "workspace"
        [alerts]
        slack_webhook_url_file = "slack"
        [webhooks.secrets]
        "sim/5_file" = "hook"
    """

    assert MARK not in everything_shown(locate(write(folder / "c.toml", text), environ={}))


def everything_shown(found):
    """Return all that a run, a traceback or an operator's question could print of the settings."""
    shown = [repr(found), repr(config.check(found))]
    for ask in (found.database_url, lambda: load(found), lambda: config.show(found)):
        try:
            answer = ask()
        except BisonsyncError as error:
            shown += [str(error), repr(error), error.hint, str(error.__context__), str(error.__cause__)]
        else:
            if ask != found.database_url:
                shown += [repr(answer), str(answer)]
            if isinstance(answer, Settings):
                shown += [answer.model_dump_json(), str(answer.model_dump())]
    return "\n".join(shown)
