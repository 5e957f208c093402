"""A model whose replies were written down before: for tests, and to score again what another tool produced."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian_eval.errors import ModelError
from cambrian_eval.rows import read_rows
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian_eval.types import Prompt


class Canned:
    """Replies by question id."""

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
                "every question needs one."
            )
        return [Answer(self._replies[prompt.id]) for prompt in prompts]


def load(argument: str) -> Canned:
    """Replies from a JSONL file with `id` and `reply`; a run's `samples.jsonl` is one.

    Raises:
        ModelError: No file is named, or there is none.
        DataError: A line lacks a field.
    """
    path = Path(argument)
    if not argument or not path.is_file():
        raise ModelError(f'canned: found no file "{argument}"; write canned:FILE, a JSONL file with id and reply.')
    rows = read_rows(path, ("id", "reply"))
    return Canned({str(row.values["id"]): str(row.values["reply"]) for row in rows}, f"canned:{path.name}")
