"""Reads a line of --nagios as the plugin guidelines have it, and fails for what a monitoring system would misread."""

from __future__ import annotations

import re

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
RANGE = rf"@?(?:(?:~|{NUMBER})?:)?(?:{NUMBER})?"
# 'label'=value[UOM];[warn];[crit];[min];[max]
PERFORMANCE = re.compile(
    rf"(?:'[^'=]+'|[^'= ;]+)=(?:U|{NUMBER})(?:us|ms|s|%|B|KB|MB|TB|c)?(?:;(?:{RANGE})?){{0,2}}(?:;(?:{NUMBER})?){{0,2}}"
)


def read_line(line: str) -> tuple[str, str, list[str]]:
    """State, text and performance data. Fails for whatever a monitoring system would misread."""
    assert line.isprintable()
    assert line.count("|") <= 1
    assert len(line.encode()) < 4096
    text, _, data = line.partition(" | ")
    found = re.fullmatch(r"BISONSYNC (OK|WARNING|CRITICAL|UNKNOWN): (\S.*)", text)
    assert found, text
    assert not set('|`$<>&"\\~*?;{}[]!') & set(found[2])
    parts = data.split(" ") if data else []
    for part in parts:
        assert PERFORMANCE.fullmatch(part), part
    labels = [part.partition("=")[0] for part in parts]
    assert len(labels) == len(set(labels))
    return found[1], found[2], parts
