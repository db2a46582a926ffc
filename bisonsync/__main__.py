"""``python -m bisonsync`` and the ``bisonsync`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from bisonsync.output import steady_streams

    steady_streams()
    from bisonsync.cli import app
    from bisonsync.runner import leave, settle

    try:
        app(prog_name="bisonsync")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if ended.code is not None and not isinstance(ended.code, int):
            sys.stderr.write(f"{ended.code}\n")
        leave(settle(code))


if __name__ == "__main__":
    main()
