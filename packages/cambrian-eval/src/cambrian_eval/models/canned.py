"""A model whose replies were written down before: for tests, and to score again what another tool produced."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError, ModelError
from cambrian_eval.rows import read_rows
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt


class Canned:
    """Replies by question id."""

    answers_by_id = True

    def __init__(self, replies: Mapping[str, str], name: str = "canned") -> None:
        self.name = name
        self._replies = dict(replies)
        written = json.dumps(self._replies, sort_keys=True)
        self.fingerprint = f"canned:{hashlib.sha256(written.encode()).hexdigest()}"

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The reply written for each prompt.

        Raises:
            ModelError: There is none for one of them.
        """
        missing = [prompt.id for prompt in prompts if prompt.id not in self._replies]
        if missing:
            raise ModelError(
                f"{self.name}: {len(self._replies)} replies are written down, none of them for question {missing[0]}; "
                f"every question needs one{self._nearest(missing[0])}."
            )
        return [Answer(self._replies[prompt.id]) for prompt in prompts]

    def _nearest(self, wanted: str) -> str:
        close = difflib.get_close_matches(wanted, self._replies, n=1)
        return f'. Did you mean "{close[0]}", which has one' if close else ""


def load(argument: str) -> Canned:
    """Replies from a JSONL file with `id` and `reply`; a run's `samples.jsonl` is one.

    Raises:
        ModelError: No file is named, or there is none.
        DataError: A line lacks a field, its reply is not a text, or its id stands in another line too.
    """
    path = Path(argument)
    if not argument or not path.is_file():
        raise ModelError(f'canned: found no file "{argument}"; write canned:FILE, a JSONL file with id and reply.')
    replies: dict[str, str] = {}
    places: dict[str, str] = {}
    for row in read_rows(path, ("id", "reply")):
        name = str(row.values["id"])
        if name in places:
            raise DataError(
                f"{row.place}: found id {name} again, it is also that of {places[name]}; remove one of them."
            )
        places[name], replies[name] = row.place, _reply(row)
    return Canned(replies, f"canned:{path.name}")


def _reply(row: Row) -> str:
    reply = row.values["reply"]
    if not isinstance(reply, str):
        raise DataError(f"{row.place}: found reply {reply!r}, expected a text; write an empty one for an empty reply.")
    return reply
