"""From a file and overrides to a checked `Recipe`: what it extends is merged, paths are resolved."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cambrian_model.errors import RecipeError, did_you_mean
from cambrian_model.training.recipe import yaml_files
from cambrian_model.training.recipe.explain import explain
from cambrian_model.training.recipe.paths import with_absolute_paths
from cambrian_model.training.recipe.recipe import Recipe


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe by its name or file.

    Relative paths in a file are meant from that file's folder, those in `overrides` from the working directory.

    Args:
        name_or_path: A name that `list_recipes` knows, or a YAML file.
        overrides: "key=value" with a dotted key (list items by their number) and a YAML value.

    Raises:
        RecipeError: Unknown recipe or key, a value out of range, parts that contradict each other.
    """
    path = _find(name_or_path, base=Path())
    values = _merged(path, ())
    for override in overrides:
        values = _overridden(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(explain(error, path)) from None


def list_recipes() -> list[tuple[str, str]]:
    """Returns name and summary of every recipe in the package."""
    return [(path.stem, str(yaml_files.read(path).get("summary", ""))) for path in sorted(_folder().glob("*.yaml"))]


def _folder() -> Path:
    return Path(str(resources.files("cambrian_model") / "recipes"))


def _find(name_or_path: str | Path, base: Path) -> Path:
    """Returns the file of a recipe: a name is looked up in the package, anything else is a path from `base`."""
    text = str(name_or_path)
    if "/" not in text and not text.endswith((".yaml", ".yml")):
        path = _folder() / f"{text}.yaml"
        if not path.is_file():
            raise RecipeError(f'unknown recipe "{text}"{did_you_mean(text, (name for name, _ in list_recipes()))}')
        return path
    path = base / text
    if not path.is_file():
        raise RecipeError(
            f"{path}: no such recipe file; give a file or a name: {', '.join(n for n, _ in list_recipes())}"
        )
    return path


def _merged(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """Reads a recipe file on top of the one that it extends, paths made absolute file by file."""
    if (path := path.resolve()) in children:
        circle = " -> ".join(p.stem for p in (*children, path))
        raise RecipeError(f"{path}: recipes extend each other in a circle: {circle}")
    values = yaml_files.read(path)
    parent = values.pop("extends", None)
    values = with_absolute_paths(values, path.parent)
    if parent is None:
        return values
    return _deep_merge(_merged(_find(str(parent), base=path.parent), (*children, path)), values)


def _deep_merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        if both and key == "connector":
            merged[key] = _of_same_type(merged[key], value)
        merged[key] = _deep_merge(merged[key], value) if both else value
    for key in ("data", "stages"):  # null takes a source or a stage away
        if isinstance(named := merged.get(key), Mapping):
            merged[key] = {name: section for name, section in named.items() if section is not None}
    return merged


def _of_same_type(base: Mapping[str, Any], top: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what stays of a connector under `top`: nothing if that is of another type, whose keys are others."""
    return {} if "type" in top and top["type"] != base.get("type", "sva") else base


def _overridden(values: Any, override: str) -> dict[str, Any]:
    """Returns `values` with one "a.b=value" applied; unknown fields are left to the typed check.

    Raises:
        RecipeError: No "=", or a name that the recipe does not have where names are the recipe's own.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(names := key.strip().split(".")):
        raise RecipeError(f'override "{override}" is not KEY=VALUE; write for example stages.align.max_steps=10')
    value = yaml_files.parse(text, f'override "{override}"')
    return _replaced(values, names, with_absolute_paths(value, Path.cwd(), names), ())


def _replaced(node: Any, names: Sequence[str], value: Any, above: tuple[str, ...]) -> Any:
    name, rest = names[0], names[1:]
    where = ".".join((*above, name))
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise RecipeError(f"{where}: {'.'.join(above)} is a list; name an item by its number, 0 to {len(node) - 1}")
        item = _replaced(node[int(name)], rest, value, (*above, name)) if rest else value
        return [*node[: int(name)], item, *node[int(name) + 1 :]]
    if node is not None and not isinstance(node, Mapping):
        raise RecipeError(f"{where}: {'.'.join(above)} is {node!r} and has no keys")
    fields = dict(node or {})
    is_new = name not in fields and not (isinstance(value, Mapping) and not rest)  # a whole source or stage may be
    if above in (("stages",), ("data",)) and is_new:
        raise RecipeError(f'unknown key "{where}"{did_you_mean(name, fields)}')
    new = {name: _replaced(fields.get(name), rest, value, (*above, name)) if rest else value}
    kept = _of_same_type(fields, new) if above == ("model", "connector") else fields
    return {**kept, **new}
