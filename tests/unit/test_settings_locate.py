"""Stage one: which file is read, whom it trusts, and which database URL counts."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisonsync.errors import ConfigError, UsageError
from bisonsync.settings import load, locate, sources

URL = "postgresql://me@db.example.com/app"
SECRET_URL = "postgresql://me:Zq7x@db.example.com/app"
PROPERTY = settings(deadline=None, database=None)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Stand in an empty folder, on a machine without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "SYSTEM_CONFIG", tmp_path / "etc" / "config.toml")
    return tmp_path


def write(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def named(name):
    return f'database_url = "postgresql://h/{name}"'


def test_takes_the_first_file_that_exists(folder):
    files = {
        "flag": folder / "flag.toml",
        "variable": folder / "variable.toml",
        "local": folder / "bisonsync.toml",
        "user": folder / "xdg" / "bisonsync" / "config.toml",
        "system": folder / "etc" / "config.toml",
    }
    environ = {"BISONSYNC_CONFIG": str(files["variable"]), "XDG_CONFIG_HOME": str(folder / "xdg"), "HOME": "/nowhere"}
    for name, path in files.items():
        write(path, named(name))

    found = []
    for flag, environment in [(files["flag"], environ), (None, environ)]:
        found.append(locate(flag, environ=environment).database_url())
    del environ["BISONSYNC_CONFIG"]
    for name in ("local", "user", "system"):
        found.append(locate(environ=environ).database_url())
        files[name].unlink()

    assert found == [f"postgresql://h/{name}" for name in files]
    assert locate(environ=environ).config is None


@pytest.mark.parametrize("xdg", ["", "relative/folder"])
def test_looks_in_the_home_when_the_config_folder_is_not_absolute(folder, xdg):
    write(folder / ".config" / "bisonsync" / "config.toml", named("home"))

    found = locate(environ={"HOME": str(folder), "XDG_CONFIG_HOME": xdg})

    assert found.database_url() == "postgresql://h/home"


def test_needs_no_home():
    assert locate(environ={"BISONSYNC_DATABASE_URL": URL}).database_url() == URL


@pytest.mark.parametrize(
    ("flag", "environ", "by"), [("no.toml", {}, "--config"), (None, "no.toml", "BISONSYNC_CONFIG")]
)
def test_refuses_a_named_file_that_is_missing(flag, environ, by):
    with pytest.raises(ConfigError, match=rf"no file no\.toml, which \$?{by} names"):
        locate(flag and Path(flag), environ={"BISONSYNC_CONFIG": environ} if environ else {})


def test_an_empty_variable_names_no_file(folder):
    write(folder / "bisonsync.toml", named("local"))

    assert locate(environ={"BISONSYNC_CONFIG": ""}).config == Path("bisonsync.toml")


def test_refuses_a_folder_as_file(folder):
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        locate(folder, environ={})


def test_the_null_device_means_no_file(folder):
    write(folder / "bisonsync.toml", named("local"))

    with pytest.raises(ConfigError, match="no database URL is given"):
        locate(Path(os.devnull), environ={}).database_url()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('database_url = "x"\nfoo bar\n', "c.toml:2:5"),
        ("[instances\n", "c.toml:1:11"),
        ("a = 1\na = 2\n", "c.toml:2:6"),
        ('a = """', "c.toml:1:8"),
        (b"a = 1\nb = '\xff'\n", "c.toml:2:1"),
        ("a = " + "9" * 5000, "c.toml:1:1"),
        ("a = " + "[" * 5000, "c.toml:1:1"),
    ],
    ids=["no equals", "open table", "twice", "open text", "not utf-8", "huge number", "nested"],
)
def test_names_file_line_and_column_of_broken_toml(folder, text, place):
    write(folder / "c.toml", text)

    with pytest.raises(ConfigError) as caught:
        locate(Path("c.toml"), environ={})

    assert caught.value.message.startswith(f"{place}: ")


def test_takes_a_byte_order_mark(folder):
    write(folder / "bisonsync.toml", b"\xef\xbb\xbf" + named("bom").encode())

    assert locate(environ={}).database_url() == "postgresql://h/bom"


def test_refuses_a_file_too_large_for_a_configuration(folder):
    write(folder / "bisonsync.toml", "#" * (1024 * 1024 + 1))

    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        locate(environ={})


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o664])
def test_refuses_a_file_that_others_can_write(folder, mode):
    path = write(folder / "bisonsync.toml", "", mode)

    with pytest.raises(ConfigError, match=rf"others can write bisonsync\.toml \(mode {mode:04o}\)") as caught:
        locate(environ={})

    assert caught.value.hint == f"chmod 600 {path.name}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601])
@pytest.mark.parametrize(
    "text",
    [
        f'database_url = "{SECRET_URL}"',
        'database_url = "host=h password=Zq7x"',
        '[instances.a]\napi_key = "Zq7x"',
        '[instances.a.workspaces.1]\napi_key = "Zq7x"',
        '[alerts]\nslack_webhook_url = "https://hooks.example.com/Zq7x"',
        '[webhooks.secrets]\n"a/1" = "Zq7x"',
        '[instances.a]\napi_keys = "Zq7x"',
        'password = "Zq7x"',
    ],
    ids=["url", "pairs", "key", "workspace key", "slack", "hook", "misspelled key", "unknown"],
)
def test_refuses_a_secret_in_a_file_that_others_can_read(folder, mode, text):
    path = write(folder / "bisonsync.toml", text, mode)
    environ = {"BISONSYNC_DATABASE_URL": URL}

    with pytest.raises(
        ConfigError, match=rf"holds a secret, and others can read this file \(mode {mode:04o}\)"
    ) as caught:
        locate(environ=environ).database_url()
    path.chmod(0o600)

    assert "Zq7x" not in caught.value.message + caught.value.hint
    assert locate(environ=environ).database_url() == URL


@pytest.mark.parametrize(
    "text",
    [
        f'database_url = "{URL}"',
        'database_url = "embedded"',
        'database_url_file = "x"\n[instances.a]\napi_key_file = "a.key"\n[webhooks.secrets]\n"a/1_file" = "b"',
        '[providers]\n"Keynote token" = "Google"',
        "[alerts.thresholds]\ntokens = 3",
    ],
)
def test_takes_a_file_without_secrets_that_others_can_read(folder, text):
    write(folder / "bisonsync.toml", text, 0o644)

    assert locate(environ={}).problems == ()


def test_refuses_another_users_file_in_the_current_folder_unless_it_is_named(folder, monkeypatch):
    write(folder / "bisonsync.toml", named("theirs"))
    if os.geteuid() == 0:
        os.chown(folder / "bisonsync.toml", 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(ConfigError, match="belongs to another user"):
        locate(environ={})

    assert locate(Path("bisonsync.toml"), environ={}).database_url() == "postgresql://h/theirs"


@PROPERTY
@given(
    st.sampled_from([None, "flag"]),
    st.sampled_from([None, "value", "file", "empty"]),
    st.sampled_from([None, "value", "file"]),
)
def test_option_beats_environment_beats_file(flag, variable, in_file):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for given_by in ("variable", "in_file"):
            write(folder / given_by, f"postgresql://h/{given_by}\n")
        config = write(
            folder / "c.toml",
            {None: "", "value": named("in_file"), "file": 'database_url_file = "in_file"'}[in_file],
        )
        environ = {
            None: {},
            "empty": {"BISONSYNC_DATABASE_URL": " "},
            "value": {"BISONSYNC_DATABASE_URL": "postgresql://h/variable"},
            "file": {"BISONSYNC_DATABASE_URL_FILE": str(folder / "variable")},
        }[variable]
        overrides = {"database_url": "postgresql://h/flag"} if flag else {}
        expected = "flag" if flag else "variable" if variable in ("value", "file") else "in_file" if in_file else None
        found = locate(config, environ=environ, overrides=overrides)

        if expected is None:
            with pytest.raises(ConfigError, match="no database URL is given"):
                found.database_url()
        else:
            assert found.database_url() == f"postgresql://h/{expected}"
            assert load(found).database_url.get_secret_value() == f"postgresql://h/{expected}"


def test_says_how_to_give_a_database_url():
    with pytest.raises(ConfigError) as caught:
        locate(environ={}).database_url()

    assert caught.value.exit_code == 4
    for way in ("BISONSYNC_DATABASE_URL", "database_url", "database_url_file", "init --embedded"):
        assert way in caught.value.hint


def test_hands_embedded_over_unchanged():
    assert locate(environ={"BISONSYNC_DATABASE_URL": "embedded"}).database_url() == "embedded"
    assert locate(environ={}, overrides={"database_url": "embedded"}).database_url() == "embedded"


@pytest.mark.parametrize(
    "url",
    [SECRET_URL, "host=h password=Zq7x", "postgresql://h/x?password=Zq7x", "postgresql://me:Z/q7x@h/x"],
)
def test_refuses_a_password_on_the_command_line(url):
    with pytest.raises(UsageError, match="must not hold a password") as caught:
        locate(environ={}, overrides={"database_url": url})

    assert caught.value.exit_code == 2
    assert "q7x" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "url",
    ["mysql://me:Zq7x@h/x", "postgresql://me:Zq7x%@h/x", "host=h password=my Zq7x", "Zq7x", "postgresql://h:Zq7x/x"],
)
def test_says_nothing_of_a_malformed_url(url):
    found = locate(environ={"BISONSYNC_DATABASE_URL": url})

    with pytest.raises(ConfigError, match="environment BISONSYNC_DATABASE_URL: this address cannot be used") as caught:
        found.database_url()

    assert "Zq7x" not in caught.value.message + caught.value.hint + repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database_url = 5", "must be text in quotes"),
        ('database_url = " "', "is empty"),
        ("database_url = {}", "must be text in quotes"),
        ("database_url_file = true", "must be text in quotes"),
        (f'database_url = "{URL}"\ndatabase_url_file = "x"', "is given twice"),
        ('database_url_file = "no.txt"', "there is no file"),
    ],
)
def test_both_stages_refuse_the_same_urls(folder, text, message):
    write(folder / "bisonsync.toml", text)
    found = locate(environ={})

    with pytest.raises(ConfigError, match=message) as first:
        found.database_url()
    with pytest.raises(ConfigError, match=message) as second:
        load(found)

    assert (first.value.message, first.value.hint) == (second.value.message, second.value.hint)


@PROPERTY
@given(
    st.lists(st.sampled_from(["postgresql://", "embedded", "host=", "h", ":", "@", "p", "/x", "%", " ", "=", "\n"]))
    .map("".join)
    .filter(str.strip)
)
def test_both_stages_agree_on_any_url(url):
    found = locate(Path(os.devnull), environ={"BISONSYNC_DATABASE_URL": url})

    def outcome(stage):
        try:
            return stage()
        except ConfigError as error:
            return str(error)

    assert outcome(found.database_url) == outcome(lambda: load(found).database_url.get_secret_value())


def test_stage_one_imports_the_standard_library_alone(folder):
    write(folder / "bisonsync.toml", 'database_url_file = "url"\n[instances.a]\nbase_url = "https://x.example.com"')
    write(folder / "url", SECRET_URL)
    program = (
        "import sys; from bisonsync.settings import locate, load; import os\n"
        "print(locate(environ=dict(os.environ)).database_url())\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    environ = {"PYTHONPATH": str(Path(sources.__file__).parents[2]), "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [SECRET_URL, "['__main__', 'bisonsync']"]


def test_stage_one_reads_no_toml_without_a_file():
    program = (
        "import sys; from bisonsync.settings import locate\n"
        "locate(environ={'BISONSYNC_DATABASE_URL': 'host=h'}).database_url(); print('tomllib' in sys.modules)"
    )
    environ = {"PYTHONPATH": str(Path(sources.__file__).parents[2]), "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"
