"""Which addresses may be asked: https, or plain http to this machine. Standard library only."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit


def is_loopback(host: str) -> bool:
    """Tell whether a host can only be this machine."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_url(value: str) -> SplitResult:
    """Return the parts of an http address without login.

    Raises ValueError with a text for the operator, which never repeats what may hold a secret.
    """
    text = value.strip()
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError("holds a blank, a backslash or a control character")
    if "://" not in text:
        raise ValueError("is no address: it must start with https://")
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
        parts = urlsplit("")
    if not is_whole:
        raise ValueError("is no address: its host or port cannot be read")
    if parts.scheme not in ("http", "https"):
        raise ValueError("must start with https://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: the key goes into api_key_file")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "plain http would send the key unencrypted: write https:// (http only to 127.0.0.1 or localhost)"
        )
    return parts
