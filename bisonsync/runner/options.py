"""The global options of every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """The global options."""

    config: Path | None = None
    database_url: str | None = None
    workspaces: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    dry_run: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False
    no_color: bool = False
    deadline_seconds: float | None = None
    jitter_seconds: float = 0.0
    lock_wait_seconds: float = 0.0
    skip_if_locked: bool = False
    heartbeat_url_file: str | None = None
