"""Everything that is printed: results to stdout, everything else to stderr, for a person, a file or a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

MAX_PROBLEMS_SHOWN = 20
PLAIN_WIDTH = 200


@dataclass
class Output:
    """Where and how to print. ``color`` is decided by the caller from --no-color, NO_COLOR and TERM."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False
    color: bool = True
    _bar: Any = field(default=None, repr=False)

    @property
    def on_terminal(self) -> bool:
        """True when results go to a person's terminal."""
        return sys.stdout.isatty()

    def document(self, document: Mapping[str, Any]) -> None:
        """The one object of --json."""
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=_plain) + "\n")

    def result(self, line: str) -> None:
        """One line of result; nothing with --quiet or --json."""
        if not self.quiet and not self.as_json:
            sys.stdout.write(line + "\n")

    def text(self, text: str) -> None:
        """What the operator asked to see; --quiet does not silence it."""
        if not self.as_json:
            sys.stdout.write(text + "\n")

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """A line on stderr. ``info`` needs --verbose; ``warning`` and ``error`` always show."""
        if level == "info" and (self.quiet or not self.verbose):
            return
        if self.log_json:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "message": message}
            sys.stderr.write(json.dumps({**line, **fields}, ensure_ascii=False, default=_plain) + "\n")
        else:
            sys.stderr.write(f"{message}\n" if level == "info" else f"{level}: {message}\n")

    def problems(self, problems: Sequence[tuple[str, str]]) -> None:
        """What went wrong, a line each: (message, next step); a step that repeats is told with the last that shares it."""
        shown = problems[:MAX_PROBLEMS_SHOWN]
        for number, (message, hint) in enumerate(shown):
            repeats = number + 1 < len(shown) and shown[number + 1][1] == hint
            if self.log_json:
                self.log(message, level="error", hint=hint)
            else:
                self.log(message + (f" → {hint}" if hint and not repeats else ""), level="error")
        if len(problems) > len(shown):
            self.log(f"and {len(problems) - len(shown)} more → bisonsync runs show", level="error")

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", right: Iterable[int] = ()
    ) -> None:
        """A table: drawn on a terminal, tab-separated lines without a heading line lost elsewhere."""
        if self.as_json:
            return
        numbers = set(right)
        if not self.on_terminal:
            sys.stdout.write("\t".join(columns) + "\n")
            for row in rows:
                sys.stdout.write("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row) + "\n")
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        self.console().print(table)

    def console(self) -> Console:
        """Rich's console on stdout."""
        from rich.console import Console

        return Console(no_color=not self.color, highlight=False)

    def progress(self, what: str, done: int, total: int, *, elapsed_seconds: float) -> None:
        """Move the progress bar; shown on a terminal after the first second."""
        if self.quiet or self.as_json or self.log_json or not sys.stderr.isatty() or elapsed_seconds < 1.0:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True, no_color=not self.color),
                transient=True,
            )
            bar.start()
            self._bar = (bar, bar.add_task(what, total=None))
        bar, task = self._bar
        bar.update(task, completed=done, total=max(total, done) or None)

    def end_progress(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None


_STYLES = {
    "success": "green",
    "complete": "green",
    "fresh": "green",
    "valid": "green",
    "partial": "yellow",
    "incomplete": "yellow",
    "stale": "yellow",
    "guarded": "yellow",
    "skipped": "yellow",
    "stopped": "yellow",
    "failed": "red",
    "very_stale": "red",
    "very stale": "red",
    "never": "red",
    "refused": "red",
    "mismatch": "red",
}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


def time_text(moment: datetime | None) -> str:
    """A time as people read it, in UTC; a dash for none."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else "-"


def age_text(seconds: float | None) -> str:
    """An age in its two largest units; a dash for none."""
    if seconds is None:
        return "-"
    left = int(max(0, seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
