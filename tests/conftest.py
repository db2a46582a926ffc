"""A real Postgres for every test that asks: one server a session, one template, one database a test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from hypothesis import settings
from psycopg.sql import SQL, Composable, Identifier, Literal

from bisonsync import embedded
from bisonsync.errors import BisonsyncError
from bisonsync.store import migrations

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("bisonsync", deadline=None)
settings.load_profile("bisonsync")

# A test database is never worth a disk's wait.
SERVER_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "wal_level": "logical",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}
# A test's database is some 450 files: making them costs a tenth of the time where they need no disk.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30
# With BISONSYNC_TEST_OWNER=1 databases belong to a role that has no more than its own one, as a hosting gives it,
# and what the role's sessions begin with is turned against the commands. The tests' own connections undo it.
OWNER = "bisonsync_tests_owner"
HOSTILE = {
    "search_path": "nowhere",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Australia/Lord_Howe",
    "client_encoding": "SQL_ASCII",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "array_nulls": "off",
    "backslash_quote": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
}
FRIENDLY = (
    "-c search_path=public -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1"
    " -c default_transaction_isolation=read\\ committed -c bytea_output=hex -c array_nulls=on"
    " -c backslash_quote=safe_encoding -c standard_conforming_strings=on -c transform_null_equals=off"
    " -c quote_all_identifiers=off -c jit=off"
)
# The second pass counts what the server compiles.
OWNER_OPTIONS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.max": "20000",
}
pytest_plugins = ["skips", "surroundings"]
SESSION = pytest.StashKey[Path]()
Connection = psycopg.Connection[Any]


def pytest_configure(config: pytest.Config) -> None:
    """Name the session's folder. It lies directly in /tmp: the server's user must be able to reach it, for root too."""
    given = getattr(config, "workerinput", {}).get("session_folder")
    if given:
        config.stash[SESSION] = Path(given)
        return
    prefix = f"bisonsync-tests-{os.geteuid()}-"
    for left in Path("/tmp").glob(f"{prefix}*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), held(left / "session"):
            remove(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)
    session = held(folder / "session")
    session.__enter__()
    if has_room(MEMORY):
        (MEMORY / folder.name).mkdir()
        (MEMORY / folder.name).chmod(0o711)
        (folder / "postgres").symlink_to(MEMORY / folder.name / "postgres")
    config.stash[SESSION] = folder
    config.add_cleanup(lambda: (remove(folder), session.__exit__(None, None, None)))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["session_folder"] = str(node.config.stash[SESSION])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the owner of a database may not do, where that is who we are."""
    if is_owned():
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("superuser")])
        items[:] = [item for item in items if not item.get_closest_marker("superuser")]


@contextlib.contextmanager
def held(path: Path, *, wait: bool = False) -> Generator[None]:
    """Hold a lock that ends with the process. Raises BlockingIOError if another holds it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def has_room(memory: Path) -> bool:
    """Whether a server's data fit into the memory that is mounted there; a container often has too little."""
    if not os.access(memory, os.W_OK):
        return False
    found = os.statvfs(memory)
    return found.f_bavail * found.f_frsize >= MEMORY_BYTES


def template_name(session_folder: Path) -> str:
    return f"bisonsync_{session_folder.name.rpartition('-')[2]}"


def remove(folder: Path) -> None:
    """Stop a session's server, or drop its template from a server that was given, and remove its folder."""
    embedded.stop(folder / "postgres")
    if given := os.environ.get("BISONSYNC_TEST_DSN"):
        name = Identifier(template_name(folder))
        with contextlib.suppress(psycopg.Error), psycopg.connect(named(given, "postgres"), autocommit=True) as server:
            server.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(name))
            server.execute(SQL("DROP DATABASE {}").format(name))
    shutil.rmtree(MEMORY / folder.name, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def named(dsn: str, database: str) -> str:
    """The same server's other database."""
    return re.sub(r"^(postgres(?:ql)?://[^/?]*)(?:/[^?]*)?", rf"\1/{database}", dsn)


def is_owned() -> bool:
    """Whether databases belong to the role with hostile settings instead of the superuser."""
    return bool(os.environ.get("BISONSYNC_TEST_OWNER"))


def as_owner(dsn: str) -> str:
    """The same database for the tests' own connections: as its owner, without what the owner's sessions begin with."""
    if not is_owned():
        return dsn
    address = re.sub(r"([?&]user=)[^&]*", rf"\g<1>{OWNER}", re.sub(r"//([^@/?]*@)?", f"//{OWNER}@", dsn, count=1))
    friendly = urlencode({"options": FRIENDLY, "client_encoding": "UTF8"}, quote_via=quote)
    return f"{address}{'&' if '?' in address else '?'}{friendly}"


def make_owner(server: Connection) -> None:
    """Make the role, if this server has none yet, with its hostile settings."""
    with contextlib.suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        server.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(OWNER)))
    for setting, value in HOSTILE.items():
        server.execute(SQL("ALTER ROLE {} SET {} = {}").format(Identifier(OWNER), Identifier(setting), Literal(value)))


@pytest.fixture(scope="session")
def session_folder(request: pytest.FixtureRequest) -> Path:
    """A folder that all workers of this run share; gone at its end."""
    return request.config.stash[SESSION]


@pytest.fixture(scope="session")
def server_dsn(session_folder: Path) -> str:
    """A superuser's DSN (a URL) of the session's server: $BISONSYNC_TEST_DSN, else the embedded one."""
    if given := os.environ.get("BISONSYNC_TEST_DSN"):
        return named(given, "postgres")
    try:
        options = SERVER_OPTIONS | (OWNER_OPTIONS if is_owned() else {})
        dsn = embedded.start(session_folder / "postgres", server_options=options)
    except BisonsyncError as error:
        pytest.fail(f"no Postgres to test with: {error.message}; {error.hint}", pytrace=False)
    return named(dsn, "postgres")


@pytest.fixture(scope="session")
def server(server_dsn: str, session_folder: Path) -> Iterator[Connection]:
    """An autocommit connection to the server's maintenance database."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        if is_owned():
            with held(session_folder / "owner", wait=True):
                make_owner(connection)
        yield connection


@pytest.fixture(scope="session")
def template(server: Connection, server_dsn: str, session_folder: Path) -> str:
    """The name of the database that every test's own is copied from: all migrations applied, no rows."""
    name = template_name(session_folder)
    with held(session_folder / "template", wait=True):
        found = server.execute("SELECT true FROM pg_database WHERE datname = %s AND datistemplate", [name]).fetchone()
        if not found:
            server.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
            server.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), _owner()))
            with psycopg.connect(as_owner(named(server_dsn, name)), autocommit=True) as connection:
                migrations.apply_all(connection)
                connection.execute("VACUUM ANALYZE")
            server.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true").format(Identifier(name)))
    return name


def _owner() -> Composable:
    return Identifier(OWNER) if is_owned() else SQL("DEFAULT")


@contextlib.contextmanager
def database(server: Connection, server_dsn: str, template: str) -> Generator[str]:
    """A database copied from ``template``, dropped in the end whoever still uses it. Yields its DSN."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    server.execute(
        SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(Identifier(name), Identifier(template), _owner())
    )
    try:
        yield as_owner(named(server_dsn, name))
    finally:
        server.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def empty_db(server: Connection, server_dsn: str) -> Iterator[str]:
    """The DSN of a database of this test's own, not migrated."""
    with database(server, server_dsn, "template0") as dsn:
        yield dsn


@pytest.fixture
def db(server: Connection, server_dsn: str, template: str) -> Iterator[str]:
    """The DSN of a migrated database of this test's own."""
    with database(server, server_dsn, template) as dsn:
        yield dsn


@pytest.fixture
def conn(db: str) -> Iterator[Connection]:
    """An autocommit connection to ``db``."""
    with psycopg.connect(db, autocommit=True) as connection:
        yield connection
