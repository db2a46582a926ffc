"""Numbered migrations: what a database has had, what it lacks, and the next step, each in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg.rows import class_row, scalar_row

from bisonsync import __version__
from bisonsync.errors import DatabaseError, SchemaMismatch
from bisonsync.queries import load_queries
from bisonsync.store import schema_objects
from bisonsync.store.db import Connection
from bisonsync.store.schema_files import Migration, SchemaFiles, newest_migration, read_schema_files

_Q = load_queries("migrations")
_OLDEST_SERVER = 15
_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, pg.InsufficientPrivilege)


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A row of bisonsync_migrations."""

    version: int
    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Survey:
    """How a database stands to the files: what it has had, and what ``migrate`` would do."""

    applied: tuple[str, ...]
    pending: tuple[Migration, ...]
    objects: tuple[str, ...]


def survey(conn: Connection, files: SchemaFiles) -> Survey:
    """Compare a database with the files; changes nothing.

    Raises DatabaseError for a server that is too old and for a database whose encoding is not UTF8; SchemaMismatch for
    a file that is changed, missing or out of order, and for objects of an earlier
    system under names that pending files would make.
    """
    if conn.info.server_version < _OLDEST_SERVER * 10000:
        raise DatabaseError(
            f"the server is PostgreSQL {conn.info.server_version // 10000}",
            hint=f"use PostgreSQL {_OLDEST_SERVER} or newer",
        )
    if (encoding := conn.info.parameter_status("server_encoding")) != "UTF8":
        raise DatabaseError(
            f"the database's encoding is {encoding}: it cannot hold every name and mail address",
            hint="give another one: CREATE DATABASE bisonsync ENCODING 'UTF8' TEMPLATE template0",
        )
    has_ledger = _has_ledger(conn)
    require_sight(conn)
    applied = _list_applied(conn) if has_ledger else []
    pending = _pending(files.migrations, applied)
    present = schema_objects.list_checksums(conn) if has_ledger else {}
    _refuse_earlier_system(conn, files, pending, present)
    changed = tuple(item.name for item in files.objects if present.get(item.name) != item.checksum)
    return Survey(tuple(item.name for item in applied), pending, changed)


def apply_next(conn: Connection, files: SchemaFiles) -> str | None:
    """Apply the first pending migration inside the transaction that is open, and say which; None when there is none.

    What it makes is closed to everybody before anybody can see it. Raises like ``survey``; DatabaseError.
    """
    take_lock(conn)
    pending = survey(conn, files).pending
    if not pending:
        return None
    migration = pending[0]
    try:
        conn.execute(files.ledger.encode())
        conn.execute(migration.text.encode())
        schema_objects.execute_all(conn, _list_default_grants(conn))
        conn.execute(
            _Q["insert_applied"],
            {
                "version": migration.version,
                "name": migration.name,
                "checksum": migration.checksum,
                "bisonsync_version": __version__,
            },
        )
    except _PASSING:
        raise
    except psycopg.Error as error:
        raise DatabaseError(
            f"migration {migration.name} failed, nothing of it stays: {str(error).strip()}",
            hint="remove what stands in its way and run 'bisonsync migrate' again",
        ) from error
    return migration.name


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What ``refresh_objects`` did: names of views and functions, access statements, and what it may not do itself."""

    objects: tuple[str, ...]
    access: tuple[str, ...]
    unpublished: tuple[str, ...]


def refresh_objects(conn: Connection, files: SchemaFiles, readers: str | Sequence[str] = ()) -> Refreshed:
    """Make changed views and functions anew and put access right, inside the transaction that is open.

    Writes nothing when all is as it should be. Raises SchemaMismatch when something foreign stands on a view that
    must be dropped; ConfigError for ``readers``.
    """
    take_lock(conn)
    return Refreshed(
        tuple(schema_objects.replace_changed(conn, files.objects)),
        tuple(schema_objects.apply_access(conn, readers)),
        tuple(schema_objects.list_unpublished(conn)),
    )


def apply_all(conn: Connection, readers: str | Sequence[str] = ()) -> None:
    """Bring a database to what the files say, without retries."""
    files = read_schema_files()
    done: str | None = ""
    while done is not None:
        with conn.transaction():
            done = apply_next(conn, files)
    with conn.transaction():
        refresh_objects(conn, files, readers)


def require_schema(conn: Connection) -> None:
    """Raise SchemaMismatch unless the database has had as many migrations as there are files. One round trip."""
    try:
        row = conn.execute(_Q["get_schema_version"]).fetchone()
    except pg.UndefinedTable:
        raise SchemaMismatch("the database is not migrated", hint="run 'bisonsync migrate'") from None
    count, newest = newest_migration()
    if row == (count, newest):
        return
    require_sight(conn)
    if row and row[1] > newest:
        raise SchemaMismatch(
            f"the database was migrated by a newer bisonsync (to {row[1]:04}, this one knows {newest:04})",
            hint="upgrade bisonsync on this host",
        )
    raise SchemaMismatch("the database lacks migrations of this version", hint="run 'bisonsync migrate'")


def require_sight(conn: Connection) -> None:
    """Raise DatabaseError where row security hides the rows from this role: empty tables would then mean nothing."""
    row = conn.execute(_Q["find_blinded_role"]).fetchone()
    if row is not None:
        raise DatabaseError(
            f"role {row[0]} sees no row of bisonsync's tables: row security hides them",
            hint="connect as the owner of the tables",
        )


def take_lock(conn: Connection) -> None:
    """Hold off every other migrate until the transaction ends. Raises LockNotAvailable after the lock time-out."""
    try:
        conn.execute(_Q["take_migrate_lock"])
    except pg.LockNotAvailable:
        raise pg.LockNotAvailable("another 'bisonsync migrate' is at work") from None


def _pending(files: Sequence[Migration], applied: Iterable[AppliedMigration]) -> tuple[Migration, ...]:
    """The files not applied yet. Raises SchemaMismatch when they do not continue what was applied."""
    pending = {item.version: item for item in files}
    newest_file = max(pending, default=0)
    newest_applied = 0
    for row in applied:
        newest_applied = row.version
        item = pending.pop(row.version, None)
        if item is None:
            raise SchemaMismatch(
                f"this database has had migration {row.name}, whose file is missing here",
                hint="upgrade bisonsync: a newer one was at work"
                if row.version > newest_file
                else "install bisonsync again; a migration that was applied is never deleted",
            )
        if (item.name, item.checksum) != (row.name, row.checksum):
            raise SchemaMismatch(
                f"migration {item.name} was changed after it was applied to this database (as {row.name})",
                hint="restore the file; a change is a new file with the next number",
            )
    late = [item.name for item in pending.values() if item.version < newest_applied]
    if late:
        raise SchemaMismatch(
            f"migration {', '.join(late)} is out of order: this database has had {newest_applied:04} already",
            hint="give it the next free number",
        )
    return tuple(pending.values())


def _refuse_earlier_system(
    conn: Connection,
    files: SchemaFiles,
    pending: Sequence[Migration],
    present: Iterable[str],
) -> None:
    """Raise SchemaMismatch when names that ``migrate`` would make are taken by something it did not make."""
    ours = {name for item in files.migrations if item not in pending for name in item.created}
    names = {name for item in pending for name in item.created} - ours
    names |= {item.name for item in files.objects} - set(present)
    with conn.cursor(row_factory=scalar_row) as cursor:
        taken = cursor.execute(_Q["list_existing"], {"names": sorted(names)}).fetchall()
    if taken:
        raise SchemaMismatch(
            f"nothing was changed: this database holds, under names of bisonsync, {', '.join(taken)}",
            hint="use another database, or move these to another schema (ALTER TABLE ... SET SCHEMA ...)",
        )


def _has_ledger(conn: Connection) -> bool:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(_Q["has_ledger"]).fetchone())


def _list_applied(conn: Connection) -> list[AppliedMigration]:
    try:
        with conn.cursor(row_factory=class_row(AppliedMigration)) as cursor:
            return cursor.execute(_Q["list_applied"]).fetchall()
    except pg.UndefinedColumn as error:
        raise SchemaMismatch(
            "nothing was changed: table public.bisonsync_migrations is not the one that bisonsync keeps",
            hint="use another database, or rename that table",
        ) from error


def _list_default_grants(conn: Connection) -> list[str]:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_default_grants"]).fetchall()
