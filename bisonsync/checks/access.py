"""May only those look and write who should?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bisonsync.checks.check import CRITICAL, OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State
from bisonsync.checks.wording import worst_first, worst_of
from bisonsync.errors import ConfigError
from bisonsync.store import health_database, health_writes, schema_objects
from bisonsync.store.health_writes import RefusedChanges

NAME = "access"
LIMITS: Mapping[str, Limit] = {}
# What is missing for those who may is a nuisance; what is open to those who may not is a leak.
_REVOKE = re.compile(r"REVOKE (?P<rights>.+) ON (?:TABLE|SEQUENCE|FUNCTION|SCHEMA) (?P<target>.+) FROM (?P<who>\S+)")
_NO_RLS = re.compile(r"ALTER TABLE (?P<target>\S+) ENABLE ROW LEVEL SECURITY")
_OUTSIDERS = ("anon", "authenticated", "PUBLIC")


def look(look: Look) -> CheckResult:
    """Compare grants, row security, policies and publication with the rules and ``[access] readers``.

    CRITICAL when something is open to outsiders, or a publication keeps a table from being changed; WARNING when
    anything else is not as it should be. UNKNOWN when the database does not know the rules yet, or the settings name
    a reader that cannot be.
    """
    if not look.read(health_database.has_access_rules):
        detail = "the database does not know the rules: it is not migrated"
        return CheckResult(NAME, UNKNOWN, detail, "bisonsync migrate", caused_by="schema")
    try:
        statements = look.read(lambda conn: schema_objects.list_access_changes(conn, look.readers))
        refused = look.read(health_writes.list_refused_changes)
    except ConfigError as error:
        return CheckResult(NAME, UNKNOWN, error.message, error.hint)
    findings = worst_first([*map(_refused, refused), *map(_found, statements)])
    if findings:
        first = findings[0]
        more = f"; and {len(findings) - 1} more" if len(findings) > 1 else ""
        detail = f"{first.subject}: {first.detail}{more}"
    else:
        detail = "grants, row security and policies are as the rules say"
    return CheckResult(
        NAME,
        worst_of(findings, OK),
        detail,
        _hint(refused, statements),
        value=len(findings),
        findings=findings,
    )


def _refused(changes: RefusedChanges) -> Finding:
    detail = f"no UPDATE or DELETE is possible: {changes.reason}"
    return Finding(changes.table_name, CRITICAL, detail, kinds=("refused",))


def _hint(refused: Sequence[RefusedChanges], statements: Sequence[str]) -> str:
    """What to type: what migrate does not do comes first."""
    cures = dict.fromkeys(changes.cure for changes in refused if changes.cure not in statements)
    steps = [*(f"in psql, as the owner: {cure}" for cure in cures), *(["bisonsync migrate"] if statements else [])]
    return "; then ".join(steps)


def _found(statement: str) -> Finding:
    """What a statement that would put access right says about how it is now."""
    if open_table := _NO_RLS.fullmatch(statement):
        return Finding(open_table["target"], CRITICAL, "row level security is off")
    if granted := _REVOKE.fullmatch(statement):
        state: State = CRITICAL if granted["who"] in _OUTSIDERS else WARNING
        return Finding(granted["target"], state, f"{granted['who']} may {granted['rights']}")
    words = statement.partition(" SET (")[0].split()
    target = words[words.index("ON") + 1] if "ON" in words else words[-1]
    target = words[words.index("ON") + 2] if target in ("TABLE", "SEQUENCE", "FUNCTION", "SCHEMA") else target
    return Finding(target, WARNING, f"missing: {statement}")
