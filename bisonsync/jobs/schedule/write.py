"""Writes units into a folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bisonsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Written:
    """What ``write`` did, by file name. ``unwanted``: units in the folder of jobs that are off now."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    unwanted: tuple[str, ...]


def write_units(folder: Path, made: Mapping[str, str], *, force: bool, dry_run: bool) -> Written:
    """Write the units into ``folder``, all or none. Raises ConfigError for one that differs, unless ``force``."""
    try:
        found = {name: (folder / name).read_text() for name in made if (folder / name).exists()}
        changed = [name for name, text in made.items() if found.get(name) != text]
        differing = [name for name in changed if name in found]
        if differing and not force:
            raise ConfigError(
                f"{folder / differing[0]} exists already and differs"
                + (f", and so do {len(differing) - 1} more" if len(differing) > 1 else ""),
                hint="--force replaces them; changes of your own belong into drop-ins (systemctl edit)",
            )
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
            for name in changed:
                _replace(folder / name, made[name])
        there = sorted(path.name for path in folder.glob("bisonsync-*.timer"))
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a text file"
        raise ConfigError(
            f"cannot write units into {folder}: {reason}", hint="run it as root, or name a folder of yours"
        ) from None
    return Written(
        written=tuple(changed),
        unchanged=tuple(name for name in made if name not in changed),
        unwanted=tuple(name for name in there if name not in made),
    )


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".bisonsync-", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
