"""What a route is given and how it refuses: the request with its token, its workspace and its parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bisonsync.sandbox import pages
from bisonsync.sandbox.config import Config
from bisonsync.sandbox.http import Answer, Request
from bisonsync.sandbox.state import World
from bisonsync.sandbox.workspaces import Token, Workspace


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, payload: Any) -> None:
        super().__init__(status)
        self.answer = Answer(status, payload=payload)


def forbidden() -> Refused:
    return Refused(403, {"message": "This action is unauthorized."})


def no_record(kind: str, key: object) -> Refused:
    data = {"success": False, "message": "Record not found", "record_not_found": {kind: str(key)}}
    return Refused(404, {"data": data})


def invalid(field: str, message: str) -> Refused:
    return Refused(422, {"message": message, "errors": {field: [message]}})


@dataclass(slots=True)
class Call:
    """A request whose token is known and whose acting workspace is settled."""

    request: Request
    url: str
    world: World
    config: Config
    token: Token
    workspace: Workspace
    args: tuple[str, ...]
    query: list[tuple[str, str]]
    is_plain: bool
    """Nothing will change the content, so it may come already serialised."""

    def value(self, name: str) -> str | None:
        """Return the last value of a parameter, as PHP does."""
        return next((value for key, value in reversed(self.query) if key == name), None)

    def ids(self, name: str) -> set[int]:
        """Read `name[]=1&name[]=2` or `name[0]=1`; any other spelling is dropped in silence."""
        pattern = re.compile(re.escape(name) + r"\[\d*\]")
        found = {pages.read_number(value) for key, value in self.query if pattern.fullmatch(key)}
        return {number for number in found if number is not None}

    def flag(self, name: str) -> bool:
        return (self.value(name) or "").lower() in ("1", "true", "on", "yes")

    def json(self) -> dict[str, Any]:
        """Read the body; what is no JSON object counts as empty, as the framework does."""
        try:
            body = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            return {}
        return cast(dict[str, Any], body) if isinstance(body, dict) else {}


Handler = Callable[[Call], Answer]


def paginate(call: Call, ids: Sequence[int]) -> pages.Page:
    is_asked = call.value("pagination_type") == "cursor"
    if call.config.paging == "cursor" or (is_asked and call.config.paging == "both"):
        return pages.by_cursor(ids, call.value("cursor") if is_asked else None, call.url)
    return pages.by_number(ids, pages.page_number(call.value("page")), call.url, cap=call.config.total_cap)


def page_answer(page: pages.Page, row: Callable[[int], dict[str, Any]]) -> Answer:
    return Answer(payload={"data": [row(i) for i in page.ids], "links": page.links, "meta": page.meta})
