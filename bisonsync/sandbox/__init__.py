"""A local Email Bison look-alike: stateful, seeded, with every fault that the client must survive."""

from bisonsync.sandbox.advance import Advance
from bisonsync.sandbox.config import Config
from bisonsync.sandbox.faults import Fault
from bisonsync.sandbox.rows import Account
from bisonsync.sandbox.server import Sandbox, serve
from bisonsync.sandbox.state import World

__all__ = ["Account", "Advance", "Config", "Fault", "Sandbox", "World", "serve"]
