"""Reading YAML as people mean it: 2e-5 is a number, a key stands once, and a mistake names file and line."""

import re
from pathlib import Path
from typing import Any

import yaml

from cambrian_model.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with YAML 1.2's floats (1.1 reads 2e-5 as text) and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping, refusing a key that stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.constructor.ConstructorError(None, None, "a key is no single value", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key "{key}" stands twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        RecipeError: Not YAML, or something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    values = parse(text, str(path))
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: holds {type(values).__name__}, expected a mapping with name, model, data and stages"
        )
    return values


def parse(text: str, where: str) -> Any:
    """Reads a YAML value; `where` opens the error message.

    Raises:
        RecipeError: Not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from None
