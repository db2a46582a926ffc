"""Everything that is printed: results to stdout, everything else to stderr, for a person, a file or a program."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

MAX_PROBLEMS_SHOWN = 20
MAX_WORKSPACES_NAMED = 5
PLAIN_WIDTH = 200
# Between two columns of a table.
_GAP = 2


class SteadyStream(io.TextIOWrapper):
    """A stream that no reader who has gone, no full disk and no narrow encoding keeps the work from its end.

    ``fault`` is why something was lost that somebody was to read; a pipe whose reader has gone loses nothing.
    """

    fault: OSError | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._note(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.fault = self.fault or error


def steady_streams() -> None:
    """Put steady streams in the place of stdout and stderr; what was closed before we began leads nowhere."""
    for name in ("stdout", "stderr"):
        stream: object = getattr(sys, name) or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, SteadyStream):
            steady = _steady(cast("io.TextIOWrapper[Any]", stream))
            setattr(sys, name, steady)
            # The old one is empty now, and the terminal's width is asked of this name.
            setattr(sys, f"__{name}__", steady)


def _steady(stream: io.TextIOWrapper[Any]) -> SteadyStream:
    encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
    # What the encoding lacks is shown as an escape.
    return SteadyStream(
        stream.detach(),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=write_through,
    )


def unread(stream: object) -> OSError | None:
    """Why what was printed could not be written, once all is written that can be."""
    if not isinstance(stream, SteadyStream):
        return None
    stream.flush()
    return stream.fault


@dataclass
class Output:
    """Where and how to print. ``color`` is decided by the caller from --no-color, NO_COLOR and TERM.

    ``is_asked_for``: something was printed that the operator asked to see.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False
    color: bool = True
    is_asked_for: bool = False
    _bar: Any = field(default=None, repr=False)

    @property
    def on_terminal(self) -> bool:
        """True when results go to a person's terminal."""
        return sys.stdout.isatty()

    def document(self, document: Mapping[str, Any]) -> None:
        """The one object of --json."""
        sys.stdout.write(_json(document, sys.stdout) + "\n")

    def result(self, line: str) -> None:
        """One line of result; nothing with --quiet or --json."""
        if not self.quiet and not self.as_json:
            sys.stdout.write(line + "\n")

    def text(self, text: str) -> None:
        """What the operator asked to see; --quiet does not silence it."""
        self.is_asked_for = True
        if not self.as_json:
            sys.stdout.write(text.translate(_CONTROLS) + "\n")

    def command(self, line: str) -> None:
        """A command line that is about to be run; bold on a terminal."""
        self.result(f"\x1b[1m{line}\x1b[0m" if self.on_terminal and self.color else line)

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """A line on stderr. ``info`` needs --verbose; ``warning`` and ``error`` always show."""
        if level == "info" and (self.quiet or not self.verbose):
            return
        if self.log_json:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "message": message}
            sys.stderr.write(_json({**line, **fields}, sys.stderr) + "\n")
        else:
            text = message.translate(_CONTROLS)
            sys.stderr.write(f"{text}\n" if level == "info" else f"{level}: {text}\n")

    def problems(self, problems: Sequence[tuple[str, str, str | None]]) -> None:
        """What went wrong, a line each: (message, next step, workspace).

        The same thing said of several workspaces is one line; a step that repeats is told with the last that shares it.
        """
        grouped: dict[tuple[str, str], list[str]] = {}
        for message, hint, workspace in problems:
            grouped.setdefault((message, hint), []).extend([workspace] if workspace else [])
        shown = list(grouped.items())[:MAX_PROBLEMS_SHOWN]
        for number, ((message, hint), workspaces) in enumerate(shown):
            repeats = number + 1 < len(shown) and shown[number + 1][0][1] == hint
            line = _of_workspaces(message, workspaces)
            if self.log_json:
                self.log(line, level="error", hint=hint)
            else:
                self.log(line + (f" → {hint}" if hint and not repeats else ""), level="error")
        if len(grouped) > len(shown):
            self.log(f"and {len(grouped) - len(shown)} more → bisonsync runs show", level="error")

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        title: str = "",
        right: Iterable[int] = (),
        totals: Sequence[str] = (),
        spare: Sequence[int] = (),
    ) -> None:
        """A table: drawn on a terminal; elsewhere a line of headings and tab-separated lines.

        ``right``: columns of numbers; ``totals``: a last line; ``spare``: columns that are left out, the first first,
        as long as the terminal is too narrow. A heading or cell may have several lines.
        """
        self.is_asked_for = True
        if self.as_json:
            return
        if not self.on_terminal:
            for row in (columns, *rows, *([totals] if totals else [])):
                sys.stdout.write("\t".join(_one_line(cell) for cell in row) + "\n")
            return
        from rich.box import SIMPLE, SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        console = self.console()
        every = list(rows)
        kept = _fitting(console.width, [columns, totals or columns, *every], spare)
        numbers = set(right)
        high = max(heading.count("\n") for heading in columns)
        table = Table(
            title=Text(title) if title else None,
            box=SIMPLE if totals else SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            show_footer=bool(totals),
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for index in kept:
            is_number = index in numbers
            table.add_column(
                "\n" * (high - columns[index].count("\n")) + columns[index],
                Text(totals[index]) if totals else "",
                justify="right" if is_number else "left",
                overflow="fold",
                no_wrap=is_number,
            )
        for row in every:
            table.add_row(*(Text(row[index].translate(_CONTROLS), style=_style(row[index])) for index in kept))
        console.print(table)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values, a line each; long values are wrapped beside their names on a terminal."""
        self.is_asked_for = True
        wide = max((len(name) for name, _ in facts), default=0) + 2
        for name, value in facts:
            if not self.on_terminal:
                self.text(f"{name}\t{_one_line(value)}")
                continue
            import shutil
            import textwrap

            indent = " " * wide
            lines = textwrap.wrap(value, max(20, shutil.get_terminal_size().columns - wide)) or [""]
            self.text(f"{name:<{wide}}" + f"\n{indent}".join(lines))

    def number(self, number: int) -> str:
        """A number with its thousands apart for a person; bare digits in a file."""
        return f"{number:,}" if self.on_terminal else str(number)

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


def _json(document: Mapping[str, Any], stream: TextIO) -> str:
    """One line of JSON in the stream's encoding: its own escapes are the only ones that JSON knows."""
    is_unicode = stream.encoding.lower().replace("-", "") == "utf8"
    return json.dumps(document, ensure_ascii=not is_unicode, default=_plain)


def _of_workspaces(message: str, workspaces: Sequence[str]) -> str:
    """The message with the workspaces it is true of, where it does not name the only one itself."""
    if not workspaces or (len(workspaces) == 1 and workspaces[0] in message):
        return message
    if len(workspaces) == 1:
        return f"{workspaces[0]}: {message}"
    named = ", ".join(workspaces[:MAX_WORKSPACES_NAMED])
    return f"{message} ({len(workspaces)} workspaces: {named}{', …' if len(workspaces) > MAX_WORKSPACES_NAMED else ''})"


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
    "lost": "red",
    "very_stale": "red",
    "very stale": "red",
    "never": "red",
    "refused": "red",
    "mismatch": "red",
    "OK": "green",
    "WARNING": "yellow",
    "UNKNOWN": "magenta",
    "CRITICAL": "red",
    "not in use": "dim",
    "drop": "red",
    "gap": "magenta",
}


def _style(cell: str) -> str:
    """The colour of a cell that is a word of state; of several words the last, which says more."""
    return _STYLES.get(cell.rpartition(",")[2].strip(), "")


# Names come from hosts and people: what would steer a terminal, or turn the text that follows, is shown as a blank.
_CONTROLS = {
    code: " "
    for code in (*range(32), *range(127, 160), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}


def _one_line(cell: str) -> str:
    cell = cell.translate(_CONTROLS)
    return " ".join(cell.replace("-\n", "").split()) if "\n" in cell or "\t" in cell else cell


def _fitting(width: int, rows: Sequence[Sequence[str]], spare: Sequence[int]) -> list[int]:
    """The columns to show: all that the terminal has room for, else without the first of ``spare``, and so on."""
    from rich.cells import cell_len

    wide = [max(cell_len(line) for row in rows for line in (row[index].split("\n"))) for index in range(len(rows[0]))]
    kept = list(range(len(wide)))
    for index in spare:
        if sum(wide[one] + _GAP for one in kept) - _GAP <= width:
            break
        kept.remove(index)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


def time_text(moment: datetime | None) -> str:
    """A time as people read it, in UTC; a dash for none."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else "-"


def age_text(seconds: float | None, *, units: int = 2) -> str:
    """An age in its two largest units, or only the largest; a dash for none."""
    if seconds is None:
        return "-"
    left = int(max(0, seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:units])
