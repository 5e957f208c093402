"""Names to objects, imported when asked for; an unknown name is answered with the closest known one."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
            raise unknown_name(self.kind, name, self._places)
        module, attribute = self._places[name].split(":")
        return getattr(importlib.import_module(module), attribute)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """What to raise for a name that is not known: it names the closest one, or all."""
    names = sorted(known)
    plain = {_plain(one): one for one in names}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.4)
    hint = f'did you mean "{plain[close[0]]}"?' if close else f"known: {', '.join(names)}."
    return UnknownNameError(f'unknown {kind} "{name}"; {hint}')


def _plain(name: str) -> str:
    """A name without its case and its hyphens, which users write in their own way."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
