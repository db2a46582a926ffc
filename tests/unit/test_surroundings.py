"""The tests see one state of their surroundings, whoever started them and however."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import os, subprocess, sys, time

CHILD = "import os, signal; print([signal.getsignal(n).name for n in (signal.SIGHUP, signal.SIGQUIT)], os.umask(0))"

def test_surroundings():
    assert not {"PGOPTIONS", "NO_COLOR", "http_proxy", "BISONSYNC_DATABASE_URL", "LC_ALL"} & set(os.environ)
    assert (os.environ["BISONSYNC_TEST_DSN"], time.tzname) == ("mine", ("UTC", "UTC"))

def test_children():
    said = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True).stdout
    assert said == f"['SIG_DFL', 'SIG_DFL'] {0o022}\\n"

def test_nobody_ends_us():
    os.kill(os.getpid(), 1)
"""
HOSTILE = {
    "PGOPTIONS": "-c jit=on",
    "NO_COLOR": "1",
    "http_proxy": "http://127.0.0.1:1",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Australia/Lord_Howe",
    "BISONSYNC_DATABASE_URL": "embedded",
    "BISONSYNC_TEST_DSN": "mine",
}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_whoever_starts_the_tests_has_set_reaches_no_test(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider -p surroundings -n {workers} test_suite.py"

    done = subprocess.run(
        ["sh", "-c", f"trap '' HUP QUIT; umask 077; exec {command}"],
        cwd=tmp_path,
        env={**HOSTILE, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr
