"""Is the database what this version's files say?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import CRITICAL, OK, WARNING, CheckResult, Finding, Limit, Look
from bisonsync.errors import SchemaMismatch
from bisonsync.store import migrations
from bisonsync.store.schema_files import read_schema_files

NAME = "schema"
LIMITS: Mapping[str, Limit] = {}


def look(look: Look) -> CheckResult:
    """Compare migrations, views and functions with the files.

    CRITICAL when a migration is pending or does not fit: no job works then. WARNING when a view or function has
    another text. UNKNOWN when the database cannot be looked at.
    """
    try:
        files = read_schema_files()
        found = look.read(lambda conn: migrations.survey(conn, files))
    except SchemaMismatch as error:
        finding = Finding("migrations", CRITICAL, error.message)
        return CheckResult(NAME, CRITICAL, error.message, error.hint, findings=(finding,))
    if found.pending:
        findings = tuple(Finding(item.name, CRITICAL, "is not applied") for item in found.pending)
        applied = f", {len(found.applied)} are" if found.applied else ": the database is not migrated"
        detail = f"{len(findings)} migrations are not applied{applied}"
        return CheckResult(NAME, CRITICAL, detail, "bisonsync migrate", value=len(findings), findings=findings)
    if found.objects:
        findings = tuple(Finding(name, WARNING, "differs from its file, or is missing") for name in found.objects)
        detail = f"{len(findings)} views and functions differ from their files: {', '.join(found.objects[:3])}"
        return CheckResult(NAME, WARNING, detail, "bisonsync migrate", value=len(findings), findings=findings)
    detail = f"{len(found.applied)} migrations applied, every view and function as in its file"
    return CheckResult(NAME, OK, detail, value=0)
