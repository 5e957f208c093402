"""docs/recipes.md names every key of a recipe in the table of its section, with its default."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic.fields import FieldInfo

from cambrian_model.training import list_recipes
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.section import Section

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", flags=re.MULTILINE)


def sections(annotation: Any, path: str = "Recipe") -> Iterator[tuple[str, type[Section]]]:
    """Yields every section of a recipe with the dotted path of its keys, as the page's headings have it."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield path, annotation
        for name, field in annotation.model_fields.items():
            yield from sections(field.annotation, name if path == "Recipe" else f"{path}.{name}")
        return
    below = {dict: ".NAME", tuple: ".N"}.get(get_origin(annotation), "")
    for each in get_args(annotation):
        yield from sections(each, path + below)


def chapters() -> dict[str, str]:
    """Returns the text under every heading of the page."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def default_of(field: FieldInfo) -> Any:
    """Returns a key's default as YAML has it; of a section, "below"."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return "below"
    return list(default) if isinstance(default, tuple) else default


SECTIONS = {section.__name__: section for _, section in sections(Recipe)}
PATHS = {name: [path for path, section in sections(Recipe) if section.__name__ == name] for name in SECTIONS}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_stands_in_its_table_with_its_default(name):
    page = chapters()
    (path,) = [path for path in PATHS[name] if path in page]  # a section at several places has one chapter
    rows = {(key, str(yaml.safe_load(default.strip("`")))) for key, default in ROW.findall(page[path])}
    fields = SECTIONS[name].model_fields.items()
    assert not {(key, str(default_of(field))) for key, field in fields if key != "type"} - rows


def test_every_key_that_is_named_exists():
    known: dict[str, set[str]] = {}
    for path, section in sections(Recipe):
        known.setdefault(path, set()).update(section.model_fields)
    named = {path: {key for key, _ in ROW.findall(text)} for path, text in chapters().items() if path in known}
    assert {path: keys - known[path] for path, keys in named.items() if keys - known[path]} == {}


def test_every_recipe_that_ships_is_listed():
    listed = set(re.findall(r"`([\w.-]+)`", chapters()["The recipes that ship"]))
    written_short = {"ablation-depth-4": "-4", "ablation-groups-3": "-3"}
    assert not {written_short.get(name, name) for name, _ in list_recipes()} - listed
