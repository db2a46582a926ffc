"""Finds sql/ and loads named queries from it; nothing else knows where the folder is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


@cache
def sql_dir() -> Path:
    """The folder of the SQL files: inside the wheel, else beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "queries").is_dir():
            return folder
    raise FileNotFoundError(f"no sql/ folder in or beside {package}: the installation is damaged")


@cache
def load_queries(family: str) -> dict[str, LiteralString]:
    """Name to text of every query in sql/queries/<family>.sql.

    The text is the package's own, never built from input, hence the cast.
    """
    text = (sql_dir() / "queries" / f"{family}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
