"""Runs a sandbox in its own process; one JSON line says when and where it is ready."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

from bisonsync.sandbox.flags import add_flags, config_from
from bisonsync.sandbox.server import Sandbox, serve


def _announce(sandbox: Sandbox, *, with_tokens: bool) -> None:
    line: dict[str, Any] = {"url": sandbox.url, "super_admin_token": sandbox.super_admin_token}
    if with_tokens:
        line["tokens"] = {str(i): sandbox.mint(i) for i in sandbox.world.workspaces}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bisonsync.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--mint", action="store_true", help="make a token of every workspace and print them")
    add_flags(parser)
    options = parser.parse_args()
    try:
        config = config_from(options)
    except ValueError as problem:
        parser.error(str(problem))
    serve(config, host=options.host, port=options.port, on_ready=partial(_announce, with_tokens=options.mint))


if __name__ == "__main__":
    main()
