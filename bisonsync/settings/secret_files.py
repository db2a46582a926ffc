"""Which settings are secrets, and how one is read from a file of its own. Standard library only."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .problems import Problem

Key = tuple[str, ...]

_SECRETS: tuple[Key, ...] = (
    ("database_url",),
    ("instances", "*", "api_key"),
    ("instances", "*", "workspaces", "*", "api_key"),
    ("alerts", "slack_webhook_url"),
    ("alerts", "channels", "*"),
    ("webhooks", "secrets", "*"),
    ("heartbeats", "*"),
)
# Jobs as the ledger names them, whose address to ping may stand in the settings.
HEARTBEAT_JOBS = (
    "poll-accounts",
    "poll-campaigns",
    "poll-warmup",
    "replay-webhooks",
    "pull-events",
    "snapshot-providers",
    "health",
    "prune",
    "workspaces-discover",
    "workspaces-mint-tokens",
    "webhooks-ensure",
)
_SUSPECT = re.compile("secret|token|password|key|webhook_url", re.IGNORECASE)
# Tables whose keys the operator makes up: a tag called "Keynote" is no secret.
_FREE_NAMES = frozenset({"providers", "resellers", "prices", "schedule", "retention"})
_LARGEST = 64 * 1024

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO


def is_secret(key: Key) -> bool:
    """Tell whether ``key`` is a setting whose value is a secret."""
    return any(
        len(key) == len(pattern) and all(want in ("*", have) for want, have in zip(pattern, key, strict=True))
        for pattern in _SECRETS
    )


def value_key(key: Key) -> Key:
    """Return the secret that ``key`` gives: itself, or what the file of a ``…_file`` key holds."""
    if key and key[-1].endswith("_file"):
        bare = (*key[:-1], key[-1].removesuffix("_file"))
        return bare if is_secret(bare) else key
    return key


def names_file(key: Key) -> bool:
    """Tell whether ``key`` names the file of a secret."""
    return value_key(key) != key


def may_hold_secret(key: Key) -> bool:
    """Tell whether a value under ``key`` must be kept from other users: secrets, and what a typo made of them."""
    if is_secret(key):
        return not names_file(key)
    return key[0] not in _FREE_NAMES and not key[-1].endswith("_file") and bool(_SUSPECT.search(key[-1]))


def credential_name(key: Key) -> str:
    """Return what systemd is to call the credential that a secret may come by: ``instances.maverick.api_key``."""
    return re.sub(r"[^\w.-]", "_", ".".join(key), flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Reads secret files. ``environ`` gives $CREDENTIALS_DIRECTORY and $HOME."""

    environ: Mapping[str, str] = field(repr=False)

    def find_credential(self, key: Key) -> str | None:
        """Return the file by which systemd hands this secret over, if it does."""
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        path = f"{folder}/{credential_name(key)}"
        return path if folder and os.path.exists(path) else None  # noqa: PTH110  no exception, whatever the name

    def path(self, given: str, folder: Path) -> Path:
        """Return the file that ``given`` means, relative to ``folder``. Raises KeyError for an unset variable."""
        for name in ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"):
            if given == name or given.startswith(name + "/"):
                return Path(self.environ["CREDENTIALS_DIRECTORY"] + given.removeprefix(name))
        if given.startswith("~/"):
            return Path(self.environ["HOME"]) / given[2:]
        return folder / given

    def read(self, given: str, folder: Path, origin: str) -> str | Problem:
        """Return the secret in a file, without surrounding blanks, or what is wrong with the file."""
        try:
            path = self.path(given, folder)
        except KeyError as error:
            name = str(error.args[0])
            hint = "systemd sets it for LoadCredential=" if name == "CREDENTIALS_DIRECTORY" else "write the whole path"
            return Problem(origin, f"${name} is not set", hint)
        try:
            return self._read(path, origin)
        except FileNotFoundError:
            return Problem(origin, f"there is no file {path}", f"put the secret into it, then chmod 600 {path}")
        except UnicodeDecodeError:
            return Problem(origin, f"the file {path} is not UTF-8 text", "it should hold the secret and nothing else")
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
            return Problem(origin, f"the file {path} cannot be read: {reason}", "it must be readable by this user")

    def _read(self, path: Path, origin: str) -> str | Problem:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & OTHERS_ANY and stat.S_ISREG(mode) and not self._is_credential(path):
                shown = f"{stat.S_IMODE(mode):04o}"
                return Problem(origin, f"others can read the file {path} (mode {shown})", f"chmod 600 {path}")
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            return Problem(
                origin, f"the file {path} is larger than any secret", "it should hold the secret and nothing else"
            )
        return content.decode("utf-8-sig").strip() or Problem(
            origin, f"the file {path} is empty", "it should hold the secret and nothing else"
        )

    def _is_credential(self, path: Path) -> bool:
        # systemd hands its credentials over in a folder that only this service can enter.
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        return bool(folder) and Path(folder).resolve() in path.resolve().parents
