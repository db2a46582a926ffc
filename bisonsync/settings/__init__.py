"""Settings: option > environment > file > default, in two stages.

``locate`` finds what was given and can tell the database URL; it imports the standard library only. ``load`` checks
everything and returns the typed ``Settings``; it imports pydantic, which a run that finds nothing to do never needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .problems import Problem
from .secret_files import HEARTBEAT_JOBS
from .sources import Sources, locate, read_heartbeat_url_file

if TYPE_CHECKING:
    from .models import Settings

__all__ = ["HEARTBEAT_JOBS", "Problem", "Sources", "load", "locate", "read_heartbeat_url_file"]


def load(sources: Sources) -> Settings:
    """Return the checked settings. Raises one ConfigError that tells all problems, each with its origin."""
    from . import loading

    return loading.load(sources)
