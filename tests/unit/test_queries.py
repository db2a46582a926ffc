"""The SQL files: every query is named, described and called, and the wheel carries them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bisonsync
from bisonsync.queries import load_queries, sql_dir

FAMILIES = sorted(path.stem for path in (sql_dir() / "queries").glob("*.sql"))
STORE = Path(bisonsync.__file__).parent / "store"
CHECKOUT = Path(bisonsync.__file__).parents[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_query_is_called_from_its_store_module(family: str) -> None:
    source = (STORE / f"{family}.py").read_text()

    uncalled = [name for name in load_queries(family) if not re.search(rf"""["']{name}["']""", source)]

    assert uncalled == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_by_its_store_module_alone(family: str) -> None:
    loading = [
        path.stem
        for path in Path(bisonsync.__file__).parent.rglob("*.py")
        if re.search(rf"""load_queries\(["']{family}["']\)""", path.read_text())
    ]

    assert loading == [family]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_query_opens_with_a_sentence_about_itself(family: str) -> None:
    undescribed = [name for name, text in load_queries(family).items() if not re.match(r"-- \S.*\w", text)]

    assert load_queries(family)
    assert undescribed == []


def test_a_checkout_reads_the_folder_beside_the_package() -> None:
    assert sql_dir() in (CHECKOUT / "sql", CHECKOUT / "bisonsync" / "sql")


def python(code: str, folder: Path, **environment: str) -> str:
    """What a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_built_wheel_carries_the_queries(tmp_path: Path) -> None:
    built = python(f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))", CHECKOUT)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / built.split()[-1]) as wheel:
        wheel.extractall(site)

    code = "from bisonsync import queries; print(queries.sql_dir()); print(queries.load_queries('db'))"
    folder, queries = python(code, tmp_path, PYTHONPATH=str(site)).splitlines()

    assert Path(folder) == (site / "bisonsync" / "sql").resolve()
    assert queries == str(load_queries("db"))
    shipped = {path.relative_to(folder) for path in site.rglob("*.sql")}
    assert shipped == {path.relative_to(sql_dir()) for path in sql_dir().rglob("*.sql")}
