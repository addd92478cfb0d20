"""Records to JSON and back. What is read is checked against the types that the records declare."""

import json
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from bottleneck.errors import InvalidInputError, ModelFileError

FORMAT_VERSION = 1
Record = TypeVar("Record")


def to_json(record: object) -> str:
    """Return a record as JSON, each record in it with its kind."""
    tree = cast("dict[str, object]", _tree(record))
    return json.dumps({"format_version": FORMAT_VERSION, **tree}, indent=1, allow_nan=False)


def from_json(kind: type[Record], text: str) -> Record:
    """Return the record of this kind that ``to_json`` wrote, or raise ``ModelFileError``."""
    refusal = f"This is not the JSON of a {kind.__name__}"
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as exc:  # RecursionError: brackets nested without end
        raise ModelFileError(f"{refusal}: {exc}") from exc
    if not isinstance(tree, dict) or type(tree.get("format_version")) is not int:
        raise ModelFileError(f"{refusal}: it states no format_version.")
    version = tree.pop("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"This {kind.__name__} has format version {version} and this library reads version "
            f"{FORMAT_VERSION}. Upgrade bottleneck-features, or make the {kind.__name__} again."
        )
    try:
        return cast("Record", _parse(kind, tree, kind.__name__))
    except InvalidInputError as exc:
        raise ModelFileError(f"{refusal}: {exc}") from exc


def _tree(value: object) -> object:
    """Return a value as dicts, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{f.name: _tree(getattr(value, f.name)) for f in fields(value)}}
    return [_tree(item) for item in value] if isinstance(value, tuple) else value


def _parse(hint: object, value: object, where: str) -> object:
    """Return a value of the declared type, or raise naming the place where it is not."""
    if isinstance(hint, UnionType) or get_origin(hint) is Union:  # the latter: Literal[...] | None
        return _parse(_member(hint, value), value, where)
    if isinstance(hint, type) and is_dataclass(hint):
        return _parse_record(hint, value, where)
    if get_origin(hint) is tuple and isinstance(value, list):
        return _parse_items(get_args(hint), value, where)
    if get_origin(hint) is Literal and isinstance(value, str) and value in get_args(hint):
        return value
    # By exact type: True is no number. A float may have been written as a whole number.
    if hint is float and (type(value) is int or (type(value) is float and isfinite(value))):
        return value
    if hint in (int, str, bool, NoneType) and type(value) is hint:
        return value
    allowed = hint.__name__ if isinstance(hint, type) else hint
    raise ModelFileError(f"{where} must be of type {allowed}. Got {value!r:.80} instead.")


def _member(union: object, value: object) -> object:
    """Return the member of a union that a value claims to be, by its kind; the first one if it claims none."""
    members = get_args(union)
    if value is None and NoneType in members:
        return NoneType
    kind = value.get("kind") if isinstance(value, dict) else None
    return next((member for member in members if member.__name__ == kind), members[0])


def _parse_record(kind: type, value: object, where: str) -> object:
    """Return the record of this kind, with exactly its fields; those with a default may be younger than the text."""
    hints = get_type_hints(kind)
    needed = {"kind", *(field.name for field in fields(kind) if field.default is MISSING)}
    if (
        not isinstance(value, dict)
        or value.get("kind") != kind.__name__
        or not needed <= value.keys() <= {"kind", *hints}
    ):
        raise ModelFileError(f"{where} must be a {kind.__name__} with exactly its fields. Got {value!r:.80} instead.")
    given = {name: hint for name, hint in hints.items() if name in value}
    return kind(**{name: _parse(hint, value[name], f"{where}.{name}") for name, hint in given.items()})


def _parse_items(hints: tuple[object, ...], items: list[object], where: str) -> tuple[object, ...]:
    """Return a tuple of one type (``tuple[x, ...]``) or of one type for each place."""
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(items)
    if len(hints) != len(items):
        raise ModelFileError(f"{where} must have {len(hints)} items. Got {len(items)} instead.")
    return tuple(_parse(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, items, strict=True)))
