"""Rules by their names, such as `relation.margin` or `count.seen.min_area`: listed with reasons, and changed by text.

Changes come from a YAML or JSON file that holds them as they are nested in `Rules`, or one by one as `NAME=VALUE`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import yaml

from cambrian_data.cvbench.rules import Rules
from cambrian_data.errors import DataError

NONE = "none"
"""How a rule that is not applied is written on a command line."""


class RuleEntry(NamedTuple):
    """One rule.

    Attributes:
        name: such as relation.margin.
        value: that it has.
        form: the type of its values.
        low: the smallest of them.
        high: the largest of them.
        reason: what it means, and why it is there.
    """

    name: str
    value: Any
    form: Any
    low: float
    high: float
    reason: str


def entries(rules: Any, prefix: str = "") -> Iterator[RuleEntry]:
    """All rules of a set, in the order in which they are documented."""
    forms = get_type_hints(type(rules))
    for one in fields(rules):
        value, name = getattr(rules, one.name), f"{prefix}{one.name}"
        if is_dataclass(value):
            yield from entries(value, f"{name}.")
        else:
            told = one.metadata
            yield RuleEntry(name, value, forms[one.name], told["low"], told["high"], told["reason"])


def shown(value: Any) -> str:
    """A rule's value as it is written on a command line."""
    return NONE if value is None else str(value).lower()


def changed(rules: Rules, changes: Iterable[tuple[str, Any]], where: str = "rule") -> Rules:
    """The rules with some values replaced.

    Args:
        rules: to begin with.
        changes: names and values; a value may be text, as on a command line.
        where: for messages: what the changes are, or stand in.

    Raises:
        DataError: if a rule is unknown, or its value is of another type or out of its range.
    """
    known = {entry.name: entry for entry in entries(rules)}
    for name, value in changes:
        if name not in known:
            raise DataError(f"{where}: unknown rule {name!r}{hint(name, known)}")
        rules = replaced(rules, name.split("."), converted(known[name], value, where))
    return rules


def hint(name: str, known: Mapping[str, RuleEntry]) -> str:
    """What may have been meant."""
    inside = [other for other in known if other.startswith(f"{name}.")]
    if inside:
        return f", which is a group; name one of {', '.join(inside)}."
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}."


def converted(entry: RuleEntry, value: Any, where: str) -> Any:
    """The value in the type of its rule.

    Raises:
        DataError: if it is of another type or out of its range.
    """
    is_optional = type(None) in get_args(entry.form)
    found = None if is_optional and isinstance(value, str) and value.lower() == NONE else value
    try:
        found = msgspec.convert(found, entry.form, strict=not isinstance(found, str))
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {entry.name} is {value!r}; expected {expected(entry)}.") from error
    if found is not None and not (entry.low <= found <= entry.high and math.isfinite(found)):
        raise DataError(f"{where}: {entry.name} is {value!r}; expected {expected(entry)}.")
    return found


def expected(entry: RuleEntry) -> str:
    """The values of a rule in words."""
    forms = get_args(entry.form) or (entry.form,)
    if bool in forms:
        return "true or false"
    noun = "a whole number" if int in forms else "a number"
    reach = f"from {entry.low:g} to {entry.high:g}" if entry.high < float("inf") else f"of {entry.low:g} or more"
    return f"{noun} {reach}{f', or {NONE}' if type(None) in forms else ''}"


def replaced(part: Any, names: list[str], value: Any) -> Any:
    """The group of rules with the value under these names, one for each level."""
    first, *rest = names
    return replace(part, **{first: replaced(getattr(part, first), rest, value) if rest else value})


def parse(text: str) -> tuple[str, str]:
    """Name and value of a change as written on a command line: `relation.margin=0.2`.

    Raises:
        DataError: if there is no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise DataError(f"rule {text!r} is no NAME=VALUE; write it as relation.margin=0.2.")
    return name.strip(), value.strip()


def read(file: Path) -> list[tuple[str, Any]]:
    """Names and values of the changes in a YAML or JSON file, nested as `Rules` is.

    Raises:
        DataError: if it cannot be read, or holds no mapping.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        tree = msgspec.json.decode(text) if Path(file).suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}.") from error
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no YAML or JSON that can be read: {error}") from error
    if tree is None:
        return []
    if not isinstance(tree, dict):
        raise DataError(f"{file}: holds a {type(tree).__name__}; expected rules as a mapping, such as relation: ...")
    return list(flattened(tree))


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
