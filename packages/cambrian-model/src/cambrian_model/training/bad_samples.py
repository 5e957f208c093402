"""Samples that cannot be read: an error, or, where the user says so, left out, counted and listed. Never replaced."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cambrian_model.errors import TrainingError

OnBad = Literal["error", "skip"]
ADVICE = "mend or remove it, or leave out such samples with --on-bad-sample skip"


class BadSample(NamedTuple):
    """A sample that cannot be read.

    Attributes:
        number: In its data; -1 where it has none.
        name: What errors call it: file and line, or its id.
        reason: What is wrong.
    """

    number: int
    name: str
    reason: str


class UnreadableSampleError(TrainingError):
    """What a dataset raises for a sample that it has but cannot read.

    Attributes:
        name: What errors call it: file and line, or its id.
        reason: What is wrong.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")

    def __reduce__(self) -> tuple[type["UnreadableSampleError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class BadSamples:
    """The list of bad samples of a run, one JSON object a line; each stands in it once, however often it is met.

    Args:
        path: The file; made when there is something to write.
        on_bad: The policy.
    """

    def __init__(self, path: Path, on_bad: OnBad) -> None:
        self.path, self.on_bad = path, on_bad

    def record(self, when: Literal["index", "train"], source: str, bad: Sequence[BadSample]) -> None:
        """Adds samples to the list.

        Raises:
            TrainingError: The policy is "error"; names the first.
        """
        if not bad:
            return
        if self.on_bad == "error":
            raise TrainingError(f"{bad[0].name}: {bad[0].reason}; {ADVICE}")
        known = {(line["source"], line["name"]) for line in self.read()}
        new = {each.name: each for each in bad if (source, each.name) not in known}
        lines = [{"when": when, "source": source, "name": each.name, "reason": each.reason} for each in new.values()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(len(self._whole_lines()))
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())

    def read(self) -> list[dict[str, str]]:
        """Returns the list; a last line that a kill has cut off is left out."""
        return [json.loads(line) for line in self._whole_lines().split(b"\n") if line]

    def _whole_lines(self) -> bytes:
        content = self.path.read_bytes() if self.path.is_file() else b""
        return content[: content.rfind(b"\n") + 1]
