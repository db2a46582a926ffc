"""``init``: a file that the next commands accept, readable by its owner alone, never over another one unasked."""

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisonsync.errors import BisonsyncError, ConfigError, UsageError
from bisonsync.jobs import init
from bisonsync.jobs.init import Choices
from bisonsync.settings import load, locate

HOST = "https://send.example.com"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def run(path, choices, **options):
    return init.run(path, choices, environ={}, **options)


def test_writes_a_file_that_a_run_accepts(folder):
    result = run(
        folder / "bisonsync.toml",
        Choices(embedded=True, base_url=HOST + "/api/", instance="Maverick", api_key_file="maverick.key"),
    )
    (folder / "maverick.key").write_text("1|abc")
    (folder / "maverick.key").chmod(0o600)

    loaded = load(locate(environ={}))

    assert result.is_written
    assert loaded.database_url.get_secret_value() == "embedded"
    assert loaded.instances["maverick"].base_url == HOST
    assert loaded.instances["maverick"].api_key.get_secret_value() == "1|abc"


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_can_read_or_write_the_file(folder):
    path = folder / "new" / "deep" / "c.toml"

    run(path, Choices(embedded=True))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["c.toml"]


def test_keeps_a_file_that_exists(folder):
    path = folder / "c.toml"
    path.write_text("mine")

    with pytest.raises(ConfigError, match="exists already") as caught:
        run(path, Choices(embedded=True))

    assert path.read_text() == "mine"
    assert "--force" in caught.value.hint
    assert [entry.name for entry in folder.iterdir()] == ["c.toml"]


def test_replaces_a_file_when_forced(folder):
    path = folder / "c.toml"
    path.write_text("mine")
    path.chmod(0o644)

    result = run(path, Choices(embedded=True), force=True)

    assert path.read_text() == result.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_dry_run_writes_nothing(folder):
    result = run(folder / "c.toml", Choices(embedded=True), dry_run=True)

    assert not result.is_written
    assert 'database_url = "embedded"' in result.text
    assert list(folder.iterdir()) == []


def test_says_what_to_do_next(folder):
    result = run(folder / "bisonsync.toml", Choices(database_url_file="db.url", base_url=HOST, api_key_file="main.key"))

    assert result.next_steps == (
        f"put the database URL into {folder}/db.url, mode 0600",
        f"put the super-admin key into {folder}/main.key, mode 0600",
        "bisonsync config check",
        "bisonsync migrate",
        "bisonsync workspaces discover",
        "bisonsync workspaces mint-tokens",
        "bisonsync poll-accounts",
    )


def test_names_the_variables_to_set_and_the_file_to_name(folder):
    result = run(folder / "my file.toml", Choices(base_url=HOST, instance="my-agency"))

    assert result.next_steps[:3] == (
        "set BISONSYNC_DATABASE_URL",
        "set BISONSYNC_INSTANCES__MY_AGENCY__API_KEY to the super-admin key",
        f"bisonsync -c '{folder}/my file.toml' config check",
    )
    environ = {"BISONSYNC_DATABASE_URL": "host=h", "BISONSYNC_INSTANCES__MY_AGENCY__API_KEY": "1|abc"}
    loaded = load(locate(result.path, environ=environ))
    assert loaded.instances["my-agency"].api_key.get_secret_value() == "1|abc"


def test_an_empty_choice_gives_a_file_of_explanations(folder):
    result = run(folder / "c.toml", Choices())

    assert all(line.startswith("#") for line in result.text.splitlines())
    assert "BISONSYNC_DATABASE_URL" in result.text
    assert "base_url" in result.text
    assert locate(result.path, environ={}).problems == ()


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        (Choices(embedded=True, database_url_file="x"), UsageError, "only one database"),
        (Choices(database_url="postgresql://me:Zq7x@h/x"), UsageError, "must not hold a password"),
        (Choices(api_key_file="x"), UsageError, "--api-key-file needs a host"),
        (Choices(database_url="nowhere"), ConfigError, "option --database-url: this address cannot be used"),
        (Choices(base_url="http://send.example.com"), ConfigError, "option --base-url: plain http"),
        (Choices(base_url=HOST, instance="a.b"), ConfigError, "letters, digits, _ and - only"),
        (Choices(database_url_file=" "), ConfigError, "option --database-url-file: is empty"),
    ],
)
def test_refuses_what_no_run_would_accept(folder, choices, error, message):
    with pytest.raises(error, match=message):
        run(folder / "c.toml", choices)

    assert list(folder.iterdir()) == []


def test_names_a_folder_it_cannot_write(folder):
    (folder / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot write"):
        run(folder / "file" / "c.toml", Choices(embedded=True))


@settings(deadline=None, database=None)
@given(*[st.text("aZ9-_. '\"\\\n#é", min_size=1, max_size=5)] * 3)
def test_any_choice_is_refused_or_gives_a_file_that_reads_back(tmp_path_factory, instance, host, key_file):
    path = tmp_path_factory.mktemp("init") / "c.toml"
    try:
        run(path, Choices(embedded=True, base_url=f"https://{host}", instance=instance, api_key_file=key_file))
    except BisonsyncError:
        return

    entries = locate(path, environ={}).entries
    assert entries["instances", instance.lower(), "api_key_file"].value == key_file.strip()
