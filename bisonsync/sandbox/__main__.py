"""Runs a sandbox in its own process; one JSON line says when and where it is ready."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

from bisonsync.sandbox.config import Config
from bisonsync.sandbox.flags import add_flags, config_from
from bisonsync.sandbox.server import Sandbox, serve

_DESCRIPTION = """Serve a local Email Bison look-alike: stateful, seeded, with every fault that a client must survive.
Ready, it prints its address; off a terminal, or with --json, as one JSON line."""
_READY = """\
A look-alike of Email Bison answers at {url}
({workspaces} workspaces, {accounts:,} mailboxes; Ctrl-C ends it, and it forgets everything).

To point bisonsync at it, in another terminal:

  export BISONSYNC_DATABASE_URL=embedded    # or any Postgres to play with
  export BISONSYNC_INSTANCES__SIM__BASE_URL={url}
  export BISONSYNC_INSTANCES__SIM__API_KEY={token}

  bisonsync migrate
  bisonsync workspaces discover
  bisonsync workspaces mint-tokens
  bisonsync poll-accounts

Let an hour pass in it:

  curl -X POST {url}/_sandbox/advance -d '{{"minutes": 60}}'
"""


_CONTROLS = """while it runs, by POST of a JSON object to URL/_sandbox/NAME:
  advance            {"minutes": 60}: time passes, mails are sent
  faults             {"kind": "status", "status": 503, "times": 2}; faults/clear
  accounts/remove    {"id": 1300}; accounts/set, accounts/move, accounts/copy
  campaigns/set      {"id": 301, "set": {"status": "paused"}}; campaigns/remove
  events             {"type": "lead_replied", "count": 5, "workspace": 1}; without a type a usual mix
  workspaces/rename  {"id": 1, "name": "New"}; workspaces/open, workspaces/close
  tokens/revoke      {"id": 2}
  GET state, GET accounts, GET campaigns; any other NAME answers with the list of all"""


def _announce(sandbox: Sandbox, *, with_tokens: bool, as_json: bool) -> None:
    if as_json:
        line: dict[str, Any] = {"url": sandbox.url, "super_admin_token": sandbox.super_admin_token}
        if with_tokens:
            line["tokens"] = {str(i): sandbox.mint(i) for i in sandbox.world.workspaces}
        text = json.dumps(line) + "\n"
    else:
        text = _READY.format(
            url=sandbox.url,
            workspaces=sandbox.config.workspaces,
            accounts=sandbox.config.accounts,
            token=shlex.quote(sandbox.super_admin_token),
        )
        if with_tokens:
            text += "\nTokens:\n" + "".join(f"  {i}  {sandbox.mint(i)}\n" for i in sandbox.world.workspaces)
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None, program: str = "python -m bisonsync.sandbox") -> None:
    """Serve until INT or TERM. ``arguments`` None: those of this process."""
    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [FLAGS]",
        description=textwrap.fill(_DESCRIPTION, 78),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example: {program} --workspaces 27 --accounts 4050 --latency 150ms\n\n{_CONTROLS}",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--mint", action="store_true", help="make a token of every workspace and print them")
    parser.add_argument("--json", action="store_true", help="say where it is as one JSON line, as off a terminal")
    add_flags(parser)
    parser.set_defaults(clock="")
    options = parser.parse_args(arguments)
    if not options.clock:
        # Who plays with it by hand expects what happens to happen now; whoever imports it, the same every time.
        options.clock = "real" if options.start == Config().start else "own"
    try:
        config = config_from(options)
    except ValueError as problem:
        parser.error(str(problem))
    as_json = options.json or not sys.stdout.isatty()
    try:
        serve(
            config,
            host=options.host,
            port=options.port,
            on_ready=partial(_announce, with_tokens=options.mint, as_json=as_json),
        )
    except OSError as problem:
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
        parser.error(f"cannot listen on {options.host} port {options.port}: {reason}")


if __name__ == "__main__":
    main()
