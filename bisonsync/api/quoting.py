"""Words of others, made fit for a log line."""

from __future__ import annotations

import re
from collections.abc import Sequence

LENGTH = 120
# Enough for what is shown; the pattern below takes quadratic time on a long run of letters.
EXAMINED = 1000

# A token as Laravel writes it, a mail address, and whatever is as long and mixed as a key.
_PRIVATE = re.compile(r"\b\d+\|\S+|\S+@\S+|(?=[\w+=|-]*\d)[\w+=|-]{20,}")


def quote(text: str, *, secret: str = "", secrets: Sequence[str] = ()) -> str:
    """At most 120 characters of ``text`` on one line, without the secrets, mail addresses and what looks like a key."""
    line = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
    hidden = {part for each in (secret, *secrets) for part in (each, each.rpartition("|")[2])}
    for part in sorted(hidden - {""}, key=len, reverse=True):
        # A host name, for one, comes back in lower case.
        line = re.sub(re.escape(part), "…", line, flags=re.IGNORECASE)
    line = " ".join(line.split())
    line = " ".join(_PRIVATE.sub("…", line[:EXAMINED]).split())
    return line if len(line) <= LENGTH else f"{line[: LENGTH - 1]}…"
