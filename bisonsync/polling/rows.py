"""Reads single rows of a list: what refuses a row, what is only noted of it, and what of it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from bisonsync.api.lists import InvalidRow
from bisonsync.models import Identifier, ListRow, Mark, Tag, clean_value, fields_marked
from bisonsync.store.lists import Fault

M = TypeVar("M", bound=ListRow)

# Moves with any activity and is no change.
MOVING = "updated_at"
# Long, and nothing that whoever inspects a refused row wants to see.
_NOT_KEPT = "email_signature"
_IDENTIFIER: TypeAdapter[int] = TypeAdapter(Identifier)


class TakenRow(NamedTuple):
    """A row as the mirror wants it: its id, a JSON object of its fields, and what of it could not be read."""

    id: int
    fields: str
    notes: tuple[Fault, ...] = ()


class RowReader:
    """Reads the rows of one workspace. ``notes``: what could not be read of rows that were taken all the same."""

    def __init__(self, read: Callable[[Any], TakenRow | InvalidRow]) -> None:
        self.notes: dict[int, tuple[Fault, ...]] = {}
        self._read = read

    def read(self, raw: Any) -> tuple[int, str] | InvalidRow:
        """A row for the reader of the list."""
        row = self._read(raw)
        if isinstance(row, InvalidRow):
            return row
        if row.notes:
            self.notes[row.id] = row.notes
        elif self.notes:
            # The same row of an earlier walk.
            self.notes.pop(row.id, None)
        return row.id, row.fields


def read_row(
    model: type[M], raw: Any, encode: Callable[[M, AbstractSet[str]], Mapping[str, Any]]
) -> TakenRow | InvalidRow:
    """Read a row of the API. ``encode`` is given it with the names of the fields that could not be read.

    A field that decides nothing keeps no row out: it is left unset and noted.
    """
    faults: dict[str, str] = {}
    try:
        row = model.model_validate(raw)
    except ValidationError as error:
        salvaged = _salvage(model, raw, error)
        if salvaged is None:
            return _invalid(raw, error)
        row, faults = salvaged
    fields = to_json(encode(row, faults.keys()), inf_nan_mode="null").decode()
    return TakenRow(row.id, fields, tuple(_note(row.id, raw, name, message) for name, message in faults.items()))


def as_named(row: ListRow, names: Mapping[str, str]) -> dict[str, Any]:
    """The fields that a row tells, under the names of their columns where those differ.

    What it left out or could not tell is missing: there the stored value stays.
    """
    no_null = fields_marked(type(row), Mark.NO_NULL)
    fields: dict[str, Any] = {}
    for name in type(row).model_fields:
        value = getattr(row, name)
        if name in row.model_fields_set and (value is not None or name not in no_null):
            fields[names.get(name, name)] = value
    return fields


def unknown_fields(row: ListRow, dropped: AbstractSet[str], ignored: Sequence[str]) -> Any:
    """The fields that the model does not know, but for those without use and those that the settings ignore."""
    extra: Any = {key: value for key, value in (row.model_extra or {}).items() if key not in dropped}
    for name in ignored:
        extra = _without(extra, name)
    return clean_value(extra)


def tags_in_order(tags: Sequence[Tag]) -> list[dict[str, Any]]:
    """Tags as they are stored: in the same order, however the host sends them."""
    return [
        {
            key: value
            for key, value in (("id", tag.id), ("name", tag.name), ("default", tag.default))
            if value is not None
        }
        for tag in sorted(tags, key=lambda tag: (tag.id or 0, tag.name))
    ]


def paths_of(names: Sequence[str]) -> list[str]:
    """The paths that ignored fields may have, as Postgres writes an array of text."""
    ways = [way for name in names for way in ([name], name.split("."))]
    return ["{" + ",".join(json.dumps(part, ensure_ascii=False) for part in way) + "}" for way in ways]


def _without(value: Any, name: str) -> Any:
    """The value without a field, whose name may be that of an object, a dot, and a name in it; also within lists."""
    if isinstance(value, list):
        return [_without(item, name) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    outer, _, inner = name.partition(".")
    return {
        key: _without(item, inner) if inner and key == outer else item for key, item in fields.items() if key != name
    }


def _salvage(model: type[M], raw: Any, error: ValidationError) -> tuple[M, dict[str, str]] | None:
    """The row without those fields that cannot be read, and what is wrong with them; None if one of them decides."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_input=False, include_url=False):
        faults.setdefault(str(fault["loc"][0]) if fault["loc"] else "", _in_words(fault))
    if not faults.keys() <= model.model_fields.keys() - fields_marked(model, Mark.DECIDES):
        return None
    fields = {key: value for key, value in cast("dict[Any, Any]", raw).items() if key not in faults}
    if "tags" in faults and (tags := _readable_tags(raw["tags"])) is not None:
        fields["tags"] = tags
    return model.model_validate(fields), faults


def _readable_tags(value: Any) -> list[Tag] | None:
    """What can be read of tags; None if that is nothing at all.

    A list with gaps comes as an object whose keys are the numbers of its places: that is how PHP writes one.
    """
    if isinstance(value, dict):
        by_place = cast("dict[str, Any]", value)
        # A place of more digits than a list can have is a key of something else.
        if not all(key.isdecimal() and len(key) < 10 for key in by_place):
            return None
        value = [by_place[key] for key in sorted(by_place, key=int)]
    if not isinstance(value, list):
        return None
    tags: list[Tag] = []
    for raw in cast("list[Any]", value):
        name: Any = cast("dict[str, Any]", raw).get("name") if isinstance(raw, dict) else None
        for given in cast("list[Any]", [raw, {"name": name}]):
            try:
                tags.append(Tag.model_validate(given))
                break
            except ValidationError:
                continue
    return tags


def _note(record_id: int, raw: Any, name: str, message: str) -> Fault:
    value = cast("dict[str, Any]", raw).get(name)
    told = f"{message}; the row was taken with what could be read"
    return Fault(str(record_id), name, "unread", told, {name: clean_value(value)}, is_note=True)


def _in_words(fault: Mapping[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in fault['loc']) or 'row'}: {fault['msg']}"


def _invalid(raw: Any, error: ValidationError) -> InvalidRow:
    first = error.errors(include_input=False, include_url=False)
    fields = cast("dict[Any, Any]", raw) if isinstance(raw, dict) else None
    try:
        record_id = _IDENTIFIER.validate_python(fields.get("id")) if fields is not None else None
    except ValidationError:
        record_id = None
    return InvalidRow(
        record_id=record_id,
        field=".".join(str(part) for part in first[0]["loc"]),
        error_type=str(first[0]["type"]),
        message="; ".join(_in_words(one) for one in first[:3]) if fields is not None else "the row is not an object",
        row=clean_value(raw if fields is None else {k: v for k, v in fields.items() if k != _NOT_KEPT}),
    )
