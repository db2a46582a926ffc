"""Writes a configuration file: readable by its owner alone, never half written, never over another one unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from bisonsync.errors import ConfigError


def render(header: str, tree: Mapping[str, Any]) -> str:
    """Return a configuration file's text; each line of ``header`` becomes a comment."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comments + ("\n" + tomli_w.dumps(tree) if tree else "")


def write(path: Path, text: str, *, force: bool = False) -> None:
    """Write a file with mode 0600, making its folder. Raises ConfigError when it exists and ``force`` is not given."""
    try:
        content = text.encode()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not force:
            _claim(path)
        _replace(path, content)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise ConfigError(f"cannot write {path}: {reason}", hint="name another file with -c") from None


def _claim(path: Path) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise ConfigError(f"{path} exists already", hint="--force replaces it; -c names another file") from None


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".bisonsync-", dir=path.parent)  # mode 0600, whatever the umask
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
