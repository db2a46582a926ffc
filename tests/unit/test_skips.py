"""CI fails on a skip that is not among those that a machine can be forgiven."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = """
import pytest

def test_forgiven():
    pytest.skip("cron is not installed: apt-get install cron")

@pytest.mark.skipif(True, reason="no pgbouncer here: apt-get install pgbouncer")
def test_forgiven_by_its_mark():
    pass

@pytest.mark.xfail(reason="known")
def test_known_to_fail():
    assert False
"""

OTHERS = """
import pytest

def test_body():
    pytest.skip("not today")

@pytest.mark.skip(reason="not today")
def test_mark():
    pass

@pytest.fixture
def it():
    pytest.skip("not today")

def test_fixture(it):
    pass

def test_that_runs():
    pass
"""


def run(folder: Path, suite: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(suite)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "skips",
            "--continue-on-collection-errors",
            "-c",
            "/dev/null",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        env={**os.environ, "CI": ci, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )


def test_what_is_allowed_may_be_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE, "true")

    assert done.returncode == 0, done.stdout
    assert "2 skipped, 1 xfailed" in done.stdout


def test_any_other_skip_fails_in_ci_alone(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text('import pytest\npytest.skip("not now", allow_module_level=True)\n')

    there = run(tmp_path, OTHERS, "true")
    here = run(tmp_path, OTHERS, "")

    # What is skipped before its body is an error there.
    assert there.returncode != 0
    assert "1 failed, 1 passed, 3 errors" in there.stdout
    assert "does not allow: not today" in there.stdout
    assert "does not allow: not now" in there.stdout
    assert here.returncode == 0, here.stdout
    assert "1 passed, 4 skipped" in here.stdout
