"""Reads the migrations, views and functions under sql/ and says what is wrong with their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from bisonsync.errors import SchemaMismatch
from bisonsync.queries import sql_dir

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")
_CREATED = re.compile(r"^CREATE\s+(?:TABLE|(?:MATERIALIZED\s+)?VIEW)\s+(?:IF NOT EXISTS\s+)?(\w+\.\w+)", re.I | re.M)
_OBJECT = re.compile(r"^CREATE OR REPLACE (VIEW|FUNCTION) (\w+\.\w+)", re.MULTILINE)
_NEEDS = re.compile(r"^-- needs: (.+)$", re.MULTILINE)
_REINSTALL = "install bisonsync again; migrations are never edited, a change is a new file with the next number"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file: applied once, never edited afterwards."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return checksum(self.text)

    @property
    def created(self) -> frozenset[str]:
        """Schema and name of the tables and views it makes."""
        return frozenset(_CREATED.findall(self.text))


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """One view or function: always the text of its file."""

    kind: str
    name: str
    text: str
    needs: frozenset[str]

    @property
    def checksum(self) -> str:
        return checksum(self.text)


@dataclass(frozen=True, slots=True)
class SchemaFiles:
    """What a database should be. Migrations by number; objects after all that they need."""

    ledger: str
    migrations: tuple[Migration, ...]
    objects: tuple[SchemaObject, ...]


def checksum(text: str) -> str:
    """SHA-256 of a text without regard to line ends, trailing blanks and trailing empty lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return hashlib.sha256("\n".join(line.rstrip(" \t") for line in lines).rstrip("\n").encode()).hexdigest()


def read_schema_files(folder: Path | None = None) -> SchemaFiles:
    """Read the whole of ``folder``, or of the package's own. Raises SchemaMismatch."""
    folder = folder or sql_dir()
    objects = [*_read_objects(folder / "functions"), *_read_objects(folder / "views")]
    return SchemaFiles(_read(folder / "ledger.sql"), _read_migrations(folder / "migrations"), _in_order(objects))


@cache
def newest_migration(folder: Path | None = None) -> tuple[int, int]:
    """How many migrations there are, and the last one's number, by their names alone."""
    versions = [
        int(match[1])
        for path in _sql_files((folder or sql_dir()) / "migrations")
        if (match := _MIGRATION.fullmatch(path.name))
    ]
    return len(versions), max(versions, default=0)


def _read_migrations(folder: Path) -> tuple[Migration, ...]:
    by_version: dict[int, Migration] = {}
    for path in _sql_files(folder):
        match = _MIGRATION.fullmatch(path.name)
        if not match:
            raise SchemaMismatch(
                f"{path} is not named like a migration, NNNN_name.sql", hint="rename it or take it away"
            )
        version = int(match[1])
        if other := by_version.get(version):
            raise SchemaMismatch(
                f"two migrations have the number {version:04}: {other.name} and {path.name}", hint=_REINSTALL
            )
        by_version[version] = Migration(version, path.name, _read(path))
    return tuple(by_version[version] for version in sorted(by_version))


def _read_objects(folder: Path) -> Iterable[SchemaObject]:
    for path in _sql_files(folder):
        text = _read(path)
        match = _OBJECT.search(text)
        if not match or match[2].partition(".")[2] != path.stem:
            raise SchemaMismatch(f"{path} does not make a view or function named {path.stem}", hint=_REINSTALL)
        needs = frozenset(need.strip() for line in _NEEDS.findall(text) for need in line.split(","))
        yield SchemaObject(match[1].lower(), match[2], text, needs)


def _in_order(objects: Iterable[SchemaObject]) -> tuple[SchemaObject, ...]:
    """Each object after those that it needs, else by name."""
    by_stem = {item.name.partition(".")[2]: item for item in sorted(objects, key=lambda item: item.name)}
    return tuple(
        by_stem[stem] for stem in TopologicalSorter({stem: item.needs for stem, item in by_stem.items()}).static_order()
    )


def _sql_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.sql") if not path.name.startswith("."))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")
