"""The look-alike of Email Bison: sandbox."""

from __future__ import annotations

from typing import Annotated

import typer

from bisonsync.cli.options import group

sandbox = group(add_completion=False)


@sandbox.command(
    "sandbox",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def _sandbox(arguments: Annotated[list[str] | None, typer.Argument(metavar="[FLAGS]")] = None) -> None:
    """Serve a local Email Bison look-alike.

    \b
    Example:
      bisonsync sandbox --workspaces 27 --accounts 4050 --latency 150ms
    """
    from bisonsync.sandbox.__main__ import main

    main(arguments or [], program="bisonsync sandbox")
