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
# Parameters of other programs; others that libpq does not know it refuses itself, for which it knows differs.
_FOREIGN = {
    **dict.fromkeys(("pgbouncer", "supa", "workaround"), "bisonsync works through a transaction pooler as it is"),
    **dict.fromkeys(
        ("connection_limit", "pool_timeout", "pool_size", "max_overflow", "statement_cache_size", "prepareThreshold"),
        "bisonsync has at most ten connections and prepares nothing",
    ),
    **dict.fromkeys(("schema", "currentSchema", "search_path"), "bisonsync's tables are in the schema public"),
    **dict.fromkeys(("ssl", "sslMode", "sslaccept", "uselibpqcompat"), "libpq has sslmode=require"),
    **dict.fromkeys(("socket_timeout", "command_timeout", "loginTimeout"), "libpq has connect_timeout=5"),
    **dict.fromkeys(("ApplicationName", "stringtype", "driver"), ""),
}
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Only what is surely a scheme is shown: it might be a piece of a password.
_FOREIGN_SCHEME = re.compile(
    r"((?:jdbc:)?(?:postgres(?:ql)?|pgsql|psql|pg|prisma|cockroachdb|mysql|mariadb|sqlite)(?:\+\w+)?|https?)://",
    re.ASCII | re.IGNORECASE,
)
_OTHER_FORMS = (
    (
        r"['\"]",
        "it stands in quotes",
        "take them away: one pair is enough in bisonsync.toml, and none in the environment",
    ),
    (r"psql\s", "it begins with the command psql", "give what follows it, without quotes"),
    (r"\w+=\s*['\"]?postgres(?:ql)?://", "it begins with the name of a variable", "give what follows the ="),
    (r"\w[\w ]*=[^;'\s]*;\s*\w[\w ]*=", "it is a list with semicolons, as .NET has it", ""),
)
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


class Unusable(ValueError):
    """An address that libpq would not take or could not use; ``hint`` is the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or f"write it as {FORMS}"


def check(text: str) -> None:
    """Find what cannot be used in an address, as parameters of other programs. Raises Unusable."""
    found = None if _SCHEME.match(text) else _FOREIGN_SCHEME.match(text)
    if found:
        is_web = found[1].lower().startswith("http")
        raise Unusable(
            f"it begins with {found[0]}",
            "that is the address of an API: the database's own begins with postgresql://"
            if is_web
            else "write postgresql:// in its place",
        )
    for pattern, message, hint in _OTHER_FORMS:
        if re.match(pattern, text, re.ASCII):
            raise Unusable(message, hint)
    try:
        parts = parse(text)
    except ValueError as error:
        raise Unusable(str(error)) from None
    # That one spelling libpq takes, for Java's sake.
    foreign = [key for key in parts if key in _FOREIGN and (key, parts[key]) != ("ssl", "true")]
    if foreign:
        names = " and ".join(foreign)
        reasons = "; ".join(dict.fromkeys(_FOREIGN[key] for key in foreign if _FOREIGN[key]))
        raise Unusable(
            f"it holds {names}, which libpq does not know",
            f"remove {names} from it" + (f": {reasons}" if reasons else ""),
        )
    if parts.get("sslmode", "prefer") not in _SSLMODES:
        raise Unusable("its sslmode is not one that libpq knows", f"take one of {', '.join(_SSLMODES)}")
    if not re.fullmatch(r"-?\d+", parts.get("connect_timeout", "0"), re.ASCII):
        raise Unusable("its connect_timeout is not a whole number", "give it in seconds: connect_timeout=5")
    if re.fullmatch(r"\W*your[-_ ]?password\W*", parts.get("password", ""), re.IGNORECASE):
        raise Unusable("its password is still the placeholder", "put the password of the database in its place")


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
