"""What every command shares: settings, connection, leases, ledger, report and exit code."""

from __future__ import annotations

from bisonsync.runner.options import Options as Options
from bisonsync.runner.selection import choose as choose
from bisonsync.runner.selection import find_workspaces as find_workspaces
from bisonsync.runner.session import Session as Session
from bisonsync.runner.session import execute as execute
from bisonsync.runner.session import leave as leave
from bisonsync.runner.session import settle as settle
