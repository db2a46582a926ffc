"""Reads the two forms of a Postgres address without libpq, whose own errors quote what they could not read.

Standard library only. No message and no description holds a value that may be secret.
"""

from __future__ import annotations

import re

EMBEDDED = "embedded"
FORMS = "postgresql://USER@HOST:5432/DATABASE, or host=… dbname=… user=…, or embedded"

_SCHEME = re.compile(r"postgres(?:ql)?://")
_HOST = re.compile(r"(\[[^\[\]/?@]+\]|[^:\[\]@]*)(?::(\d*))?", re.ASCII)
_PAIR = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.)*(?=\s|$))", re.ASCII | re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?!(?!00)[0-9A-Fa-f]{2})")
_ENCODE = "special characters of a password must be percent-encoded there"
_SHOWN = ("service", "host", "hostaddr", "port", "dbname", "user")


def parse(text: str) -> dict[str, str]:
    """Return the parts of an address under libpq's names. Raises ValueError when libpq would not read it."""
    if re.search("[\x00\ud800-\udfff]", text):
        raise ValueError("it holds bytes that are no text")
    parts = _parse_uri(text) if _SCHEME.match(text) else _parse_pairs(text)
    for port in parts.get("port", "").split(","):
        if port and not (port.isdecimal() and 0 < int(port[:6]) < 65_536):
            raise ValueError("its port is not a number from 1 to 65535")
    return parts


def holds_secret(text: str) -> bool:
    """Tell whether an address holds a password, in doubt yes."""
    try:
        parts = parse(text)
    except ValueError:
        return re.search(r":[^@]*@|password|secret", re.sub(r"^\w+://", "", text), re.IGNORECASE) is not None
    return any(value and re.search("password|secret", key, re.IGNORECASE) for key, value in parts.items())


def describe(text: str) -> str:
    """Return where an address points to, without its password."""
    if text == EMBEDDED:
        return text
    parts = parse(text)
    return " ".join(f"{key}={parts[key]}" for key in _SHOWN if parts.get(key, "").strip(","))


def _parse_uri(text: str) -> dict[str, str]:
    from urllib.parse import unquote

    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("it holds a blank or a control character")
    if _BAD_PERCENT.search(text):
        raise ValueError(f"it holds a % that encodes nothing; {_ENCODE}")
    rest = text[text.index("://") + 3 :]
    login, found, after = rest.partition("@")
    if not found or "/" in login:
        login, after = "", rest
    place, _, query = after.partition("?")
    hosts, _, dbname = place.partition("/")
    user, _, password = login.partition(":")
    matches = [_HOST.fullmatch(host) for host in hosts.split(",")]
    # libpq takes an @ in a database's name; far likelier it ends a password with an unencoded / in it.
    if not all(matches) or "@" in dbname:
        raise ValueError(f"its host or port cannot be read; {_ENCODE}")
    named = {
        "user": user,
        "password": password,
        "host": ",".join(match[1].strip("[]") for match in matches if match),
        "port": ",".join(match[2] or "" for match in matches if match),
        "dbname": dbname,
    }
    pairs = query.split("&") if query else []
    if len(pairs) > 1 and not pairs[-1]:
        pairs.pop()
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key or "=" in value:
            raise ValueError("a parameter after its ? is not name=value")
        named[key] = value
    try:
        return {unquote(key, errors="strict"): unquote(value, errors="strict") for key, value in named.items() if value}
    except UnicodeDecodeError:
        raise ValueError(f"a %-encoded letter in it is not UTF-8; {_ENCODE}") from None


def _parse_pairs(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError("it is neither a postgresql:// address nor a list of name=value")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        parts[match[1]] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        at = match.end()
    if not parts:
        raise ValueError("it is empty")
    return parts
