"""What the check ``database`` says of a database that takes no writes: nothing else matters then."""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import CRITICAL, UNKNOWN, CheckResult, Finding, Look
from bisonsync.errors import DatabaseError
from bisonsync.store import health_writes
from bisonsync.store.health_writes import ReadOnly

NAME = "database"
SUBJECT = "writes"
KIND = "unwritable"
# Where default_transaction_read_only was set, in the words of pg_settings.source; and what takes it back.
_PLACES: Mapping[str, tuple[str, str]] = {
    "database": ("for the database", "ALTER DATABASE {database} RESET default_transaction_read_only"),
    "user": ("for the role", "ALTER ROLE {role} RESET default_transaction_read_only"),
    "database user": (
        "for the role in this database",
        "ALTER ROLE {role} IN DATABASE {database} RESET default_transaction_read_only",
    ),
    "global": ("for all roles", "ALTER ROLE ALL RESET default_transaction_read_only"),
    "client": ("by the connection", "take it out of the options in database_url and of PGOPTIONS"),
}
_ON_THE_SERVER = ("on the server", "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()")


def find_refusal(look: Look) -> CheckResult | None:
    """A result that says why the database takes no writes; None where it does, as far as can be told by looking."""
    reason = look.read(health_writes.find_read_only)
    if reason is not None:
        return _refusal(*_explain(reason))
    return None if look.write_error is None else refused(look.write_error)


def refused(error: DatabaseError) -> CheckResult:
    """The result after a write that failed."""
    return _refusal(f"a write failed: {error.message}", error.hint)


def unreachable(error: DatabaseError) -> CheckResult:
    """The result where nothing can be looked at."""
    return CheckResult(NAME, UNKNOWN, f"nothing can be looked at: {error.message}", error.hint)


def is_refusal(result: CheckResult) -> bool:
    """Whether the result says that the database takes no writes."""
    return any(KIND in finding.kinds for finding in result.findings)


def _refusal(detail: str, hint: str) -> CheckResult:
    finding = Finding(SUBJECT, CRITICAL, detail, kinds=(KIND,))
    return CheckResult(NAME, CRITICAL, detail, hint, findings=(finding,))


def _explain(reason: ReadOnly) -> tuple[str, str]:
    """What is the matter, and what to do."""
    if reason.is_standby:
        return (
            "it takes no writes: this server is a standby",
            "give the primary's address in database_url; after a failover another host may be it",
        )
    if reason.set_by is None:
        return "it takes no writes: its transactions are read-only", "look for what makes them so: a pooler, a proxy"
    place, cure = _PLACES.get(reason.set_by, _ON_THE_SERVER)
    cure = cure.format(database=reason.database_name, role=reason.role_name)
    return (
        f"it takes no writes: default_transaction_read_only is on ({place})",
        f"is the disk full (Supabase sets this at 95 %)? make room or enlarge it; then {cure}",
    )
