"""Runs the real command line at a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cli import PATIENCE

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Screen:
    """What a command showed: with its control codes, and as lines without them."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return CODES.sub("", self.raw).replace("\r", "").splitlines()

    def line(self, word: str) -> str:
        """The only line with this word."""
        (found,) = [line for line in self.lines if word in line]
        return found


def at_terminal(arguments: Iterable[str], env: Mapping[str, str], *, columns: int) -> Screen:
    """Run ``python -m bisonsync`` at a terminal to its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    command = [sys.executable, "-m", "bisonsync", *arguments]
    full = {"TERM": "xterm-256color", **env}
    with subprocess.Popen(command, env=full, cwd=env["HOME"], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        # Reading fails once the last writer is gone.
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:
            pass
        finally:
            os.close(ours)
        code = process.wait(PATIENCE)
    return Screen(code, said.decode())
