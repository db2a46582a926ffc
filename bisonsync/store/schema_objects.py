"""Views, functions and access rules: made anew when their text changed, never by CASCADE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from bisonsync import __version__
from bisonsync.errors import ConfigError, DatabaseError, SchemaMismatch
from bisonsync.queries import load_queries
from bisonsync.store.db import Connection
from bisonsync.store.schema_files import SchemaObject

_Q = load_queries("schema_objects")
# A REVOKE on a table takes its columns' grants along, so that a second look may find some to give back.
_ACCESS_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PresentObject:
    """A row of bisonsync_objects whose view or function is there."""

    name: str
    identity: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A right that somebody had on an object, and the statement that gives it back."""

    identity: str
    statement: str


def list_checksums(conn: Connection) -> dict[str, str]:
    """Name to checksum of those views and functions of ours that are there."""
    return {name: item.checksum for name, item in _list_present(conn).items()}


def replace_changed(conn: Connection, objects: Sequence[SchemaObject]) -> list[str]:
    """Make every object whose text changed or that is missing; return their names in order.

    A view that cannot be replaced in place is dropped with our own views on it, which are made again with the
    grants that they had. Raises SchemaMismatch when anything else stands on it; DatabaseError.
    """
    present = _list_present(conn)
    todo = {item.name for item in objects if item.name not in present or present[item.name].checksum != item.checksum}
    replaced: list[str] = []
    lost_grants: list[Grant] = []
    for item in objects:
        if item.name not in todo:
            continue
        views = [other.name for other in objects if other.kind == "view"]
        identity, dropped, grants = _replace(conn, item, present.get(item.name), views)
        todo |= dropped
        lost_grants += grants
        conn.execute(
            _Q["upsert_object"],
            {"name": item.name, "identity": identity, "checksum": item.checksum, "bisonsync_version": __version__},
        )
        replaced.append(item.name)
    identities = {item.identity for item in _list_present(conn).values()}
    execute_all(conn, (grant.statement for grant in lost_grants if grant.identity in identities))
    return replaced


def list_access_changes(conn: Connection, readers: str | Sequence[str]) -> list[str]:
    """The statements that ``apply_access`` would run; none in a database without the rules. Raises ConfigError."""
    wanted = readers if isinstance(readers, str) else list(readers)
    with conn.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(_Q["has_access_rules"]).fetchone():
            return []
        try:
            return cursor.execute(_Q["list_access_changes"], {"readers": Jsonb(wanted)}).fetchall()
        except pg.InvalidParameterValue as error:
            raise ConfigError(
                error.diag.message_primary or str(error), hint="name a role of this server, or a list of user ids"
            ) from error


def apply_access(conn: Connection, readers: str | Sequence[str]) -> list[str]:
    """Bring grants, policies and publication to what the rules say; return the statements run.

    Raises DatabaseError, so that nothing of it stays, when something of ours is open to everybody afterwards.
    """
    done: list[str] = []
    for _ in range(_ACCESS_ROUNDS):
        statements = list_access_changes(conn, readers)
        if not statements:
            break
        execute_all(conn, statements)
        done += statements
    if exposed := _list_exposed(conn):
        raise DatabaseError(
            f"nothing was changed: PUBLIC or anon could still use {', '.join(exposed[:5])}"
            + (f" and {len(exposed) - 5} more" if len(exposed) > 5 else ""),
            hint="run 'bisonsync migrate' as their owner; what another role has granted on them, it has to revoke",
        )
    return done


def list_unpublished(conn: Connection) -> list[str]:
    """The tables that are missing from Realtime's publication, because it belongs to somebody else."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_Q["list_unpublished"]).fetchall()


def execute_all(conn: Connection, statements: Iterable[str]) -> None:
    """Run statements that the server itself has spelled."""
    for statement in statements:
        conn.execute(statement.encode())


def _replace(
    conn: Connection, item: SchemaObject, present: PresentObject | None, views: Sequence[str]
) -> tuple[str, set[str], list[Grant]]:
    """Make one object. Return its identity, our views that fell with it, and the grants that were lost."""
    dropped: set[str] = set()
    grants: list[Grant] = []
    before = _list_functions(conn, item.name)
    if not _make_in_place(conn, item):
        dropped, grants = _drop(conn, item, present.identity if present else item.name, views)
        _make(conn, item)
    if item.kind == "view":
        return item.name, dropped, grants
    made = _list_functions(conn, item.name) - before
    identity = made.pop() if made else present.identity if present else next(iter(before))
    if present and present.identity != identity and present.identity in before:
        _drop(conn, item, present.identity, views)
    return identity, dropped, grants


def _make_in_place(conn: Connection, item: SchemaObject) -> bool:
    """False when the old one must be dropped first: other columns, other result."""
    try:
        with conn.transaction():
            _make(conn, item)
        return True
    except (pg.InvalidTableDefinition, pg.InvalidFunctionDefinition):
        return False


def _make(conn: Connection, item: SchemaObject) -> None:
    try:
        conn.execute(item.text.encode())
    except (
        pg.InvalidTableDefinition,
        pg.InvalidFunctionDefinition,
        psycopg.OperationalError,
        pg.InsufficientPrivilege,
    ):
        raise
    except psycopg.Error as error:
        raise DatabaseError(
            f"{item.kind} {item.name} could not be made: {str(error).strip()}",
            hint="remove what stands in its way and run 'bisonsync migrate' again",
        ) from error


def _drop(conn: Connection, item: SchemaObject, identity: str, views: Sequence[str]) -> tuple[set[str], list[Grant]]:
    """Drop an object and those of our views that stand on it, never anything else."""
    parameters = {"name": item.name, "identity": identity, "views": list(views)}
    with conn.cursor(row_factory=scalar_row) as cursor:
        dropped = cursor.execute(_Q["list_dependents"], parameters).fetchall() if item.kind == "view" else [identity]
        drop = cursor.execute(_Q["spell_drop"], {"identities": dropped}).fetchall()
    with conn.cursor(row_factory=class_row(Grant)) as cursor:
        grants = cursor.execute(_Q["list_grants"], {"identities": dropped}).fetchall()
    try:
        execute_all(conn, drop)
    except pg.DependentObjectsStillExist as error:
        raise SchemaMismatch(
            f"{item.kind} {item.name} must be made anew, and something that is not bisonsync's stands on it: "
            + "; ".join((error.diag.message_detail or str(error)).splitlines()),
            hint="drop it, run 'bisonsync migrate', and make it again",
        ) from error
    return set(dropped) & set(views), grants


def _list_present(conn: Connection) -> dict[str, PresentObject]:
    with conn.cursor(row_factory=class_row(PresentObject)) as cursor:
        return {item.name: item for item in cursor.execute(_Q["list_objects"])}


def _list_exposed(conn: Connection) -> list[str]:
    """What of ours PUBLIC or anon may use; nothing in a database without the rules."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(_Q["has_access_rules"]).fetchone():
            return []
        return cursor.execute(_Q["list_exposed"]).fetchall()


def _list_functions(conn: Connection, name: str) -> set[str]:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(_Q["list_functions"], {"name": name}))
