"""What is wrong with a recipe, in words that name its keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from cambrian_model.connector_config import unknown_type
from cambrian_model.errors import did_you_mean
from cambrian_model.training.recipe.model import CONNECTOR_SECTIONS
from cambrian_model.training.recipe.recipe import Recipe
from cambrian_model.training.recipe.section import Section


def explain(error: ValidationError, path: Path) -> str:
    """Returns every mistake of a recipe, with the file that holds it."""
    lines = [_explained_line(dict(item)) for item in error.errors(include_url=False)]
    return f"{path.name}: " + "; ".join(lines)


def _explained_line(item: dict[str, Any]) -> str:
    where = [str(name) for name in item["loc"] if name != "[key]"]
    key = ".".join(name for name in where if name not in CONNECTOR_SECTIONS)
    if item["type"] == "union_tag_not_found":
        return f"{key}.{unknown_type(str(item['input']['type']))}"
    if item["type"] == "extra_forbidden":
        return f'unknown key "{key}"{did_you_mean(where[-1], _field_names(where[:-1]))}'
    if item["type"] == "missing":
        return f"{key} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key} {reason}" if key else reason
    return f"{key} is {item['input']!r}: {reason[0].lower()}{reason[1:]}"


def _field_names(where: Sequence[str]) -> list[str]:
    """Returns the names of the section that lies at a dotted key."""
    annotation: Any = Recipe
    for name in where:
        section = _section_in(annotation)
        if name in CONNECTOR_SECTIONS:
            annotation = CONNECTOR_SECTIONS[name]
        else:
            annotation = section.model_fields[name].annotation if section else _item_of(annotation)
    section = _section_in(annotation)
    return list(section.model_fields) if section else []


def _section_in(annotation: Any) -> type[Section] | None:
    options = [annotation, *get_args(annotation)] if get_origin(annotation) not in (dict, tuple) else []
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _item_of(annotation: Any) -> Any:
    """Returns what a mapping or tuple holds."""
    args = get_args(annotation)
    return args[1] if get_origin(annotation) is dict else args[0]
