"""One state for whatever a machine, a shell or whoever started pytest has set: no test is to depend on it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

# libpq, Python, terminals, proxies and the commands themselves read many more, and new ones come: only these stay.
_KEPT = {"CI", "HOME", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER", "VIRTUAL_ENV", "BISONSYNC_PG_BIN"}
_KEPT |= {"PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
_KEPT_FAMILIES = ("BISONSYNC_TEST_", "PYTEST_", "COV")
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the workers start and test modules are read, and in each worker."""
    for name in os.environ.keys() - _KEPT:
        if not name.startswith(_KEPT_FAMILIES):
            del os.environ[name]
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.umask(0o022)
    if threading.current_thread() is threading.main_thread():
        _ignore_here_alone(getattr(session.config, "workerinput", {}).get("ignored_signals", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["ignored_signals"] = [int(number) for number in _SIGNALS if signal.getsignal(number) is _ignore]


def _ignore_here_alone(numbers: Any) -> None:
    """Go on ignoring what nohup or a shell's & made us ignore, but by a handler: our commands shall not inherit it."""
    for number in _SIGNALS:
        if number in numbers or signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ignore(_number: int, _frame: object) -> None:
    pass
