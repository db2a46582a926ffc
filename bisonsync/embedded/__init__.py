"""The embedded Postgres: find its binaries, start it on demand, share it, recover it.

Everything lies in one folder that only the server's OS user may enter::

    postgres/       0700; its permissions are the guard of the socket, which trusts whoever reaches it
      lock          held by whoever starts the server, then by every process of the server itself
      log           what the server says
      data/         the cluster, with the socket in it (no TCP at all)

The lock is handed down to the server, so a free lock proves that no process of it is left, whatever
``postmaster.pid`` says: a killed server, a zombie nobody reaps and a recycled pid all look the same.

PostgreSQL refuses to run as root. For root the server runs as the owner of the folder, else as ``postgres``, else as
``nobody``. Folders that this user cannot enter are left as they are (a chmod would open root's home to everybody):
the data then lies under /var/lib/bisonsync, and the binaries are copied to /var/cache/bisonsync.
"""

from __future__ import annotations

from bisonsync.embedded.binaries import psql_path
from bisonsync.embedded.server import Status, start, status, stop

__all__ = ["Status", "psql_path", "start", "status", "stop"]
