"""What every command shares: settings, connection, leases, ledger, report and exit code."""

from __future__ import annotations

from bisonsync.runner.execute import execute as execute
from bisonsync.runner.execute import leave as leave
from bisonsync.runner.execute import settle as settle
from bisonsync.runner.options import Options as Options
from bisonsync.runner.session import Session as Session
