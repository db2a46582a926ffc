"""Every failure an operator can see, with its exit code.

::

    BisonsyncError                 1  a bug, if nothing below fits
    ├── UsageError                 2  the command line is wrong
    ├── ConfigError                4  settings are wrong or missing
    │   ├── ArgumentRefused        4  -w or --instance names nothing that can be worked on
    │   └── CredentialsError       4  a token is missing, refused or expired
    ├── ApiError                   5  the API could not be used
    │   ├── ApiUnavailable         5  no usable answer after all retries
    │   ├── ApiRefused             5  a final 4xx: asking again would change nothing
    │   └── ListChanged            5  a list never held still long enough to be read whole
    ├── DatabaseError              6  the database could not be used
    │   ├── DatabaseUnavailable    6  no connection, or lost and not regained
    │   └── SchemaMismatch         6  not migrated, or not by this version
    ├── DeadlineExceeded           7  the deadline or the request budget ended the run
    ├── GuardRefused               8  a safety guard refused a write
    ├── LeaseBusy                 75  another run holds every lease
    │   └── LeaseLost              8  this run's lease was taken over: it may not write any more
    └── Stopped              130, 143  INT or TERM
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, ClassVar


class BisonsyncError(Exception):
    """A failure with a message that names the thing, and a hint that names the next step."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "bug"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BisonsyncError):
    exit_code = 2
    kind = "usage"


class ConfigError(BisonsyncError):
    exit_code = 4
    kind = "configuration"


class ArgumentRefused(ConfigError):
    """What was typed names nothing, or several things: no run of the job, so the ledger keeps none."""


class CredentialsError(ConfigError):
    kind = "credentials"


class ApiError(BisonsyncError):
    exit_code = 5
    kind = "api"


class ApiUnavailable(ApiError):
    """No usable answer. ``is_carried_out`` is False when the API certainly did not do what was asked."""

    kind = "api_unavailable"

    def __init__(self, message: str, *, hint: str = "", is_carried_out: bool | None = None) -> None:
        super().__init__(message, hint=hint)
        self.is_carried_out = is_carried_out


class ApiRefused(ApiError):
    """A final 4xx answer. ``status`` is the HTTP status."""

    kind = "api_refused"

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ListChanged(ApiError):
    kind = "list_changed"


class DatabaseError(BisonsyncError):
    exit_code = 6
    kind = "database"


class DatabaseUnavailable(DatabaseError):
    kind = "database_unavailable"


class SchemaMismatch(DatabaseError):
    kind = "schema"


class DeadlineExceeded(BisonsyncError):
    exit_code = 7
    kind = "deadline"


class GuardRefused(BisonsyncError):
    exit_code = 8
    kind = "guard"


class LeaseBusy(BisonsyncError):
    """Another run is at work. ``left_out``: what became of each workspace, as the run tells it."""

    exit_code = 75
    kind = "lease_busy"

    def __init__(self, message: str, *, hint: str = "", left_out: Sequence[Any] = ()) -> None:
        super().__init__(message, hint=hint)
        self.left_out = tuple(left_out)


class LeaseLost(LeaseBusy):
    exit_code = 8
    kind = "lease_lost"


class Stopped(BisonsyncError):
    """INT or TERM arrived. ``signal_number`` decides the exit code, 128 + n."""

    kind = "stopped"

    def __init__(self, signal_number: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}", hint="what is committed stays; run it again")
        self.signal_number = signal_number
