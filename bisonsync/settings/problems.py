"""What is wrong with the settings, all of it at once. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bisonsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it was given, what it is, what to do. Holds no secret."""

    origin: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


def refuse(problems: Sequence[Problem]) -> ConfigError:
    """Return the one error that tells every problem, a line each."""
    if len(problems) == 1:
        return ConfigError(str(problems[0]), hint=problems[0].hint)
    lines = (f"  {problem}" + (f" ({problem.hint})" if problem.hint else "") for problem in problems)
    return ConfigError(
        f"{len(problems)} problems in the settings:\n" + "\n".join(lines),
        hint="`bisonsync config check` lists them again",
    )
