"""Names to objects, imported when asked for; an unknown name is answered with the closest known one."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Registry:
    """A table of names, each with the place (`module:attribute`) that holds its object."""

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self.kind = kind
        self._places = dict(places)

    def names(self) -> list[str]:
        """All names, sorted, without importing anything."""
        return sorted(self._places)

    def get(self, name: str) -> Any:
        """The object called `name`.

        Raises:
            UnknownNameError: No such name.
        """
        if name not in self._places:
            raise UnknownNameError(self._unknown(name))
        module, attribute = self._places[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._places, n=1, cutoff=0.4)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(self.names())}."
        return f'unknown {self.kind} "{name}"; {hint}'
