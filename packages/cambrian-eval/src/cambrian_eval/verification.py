"""Does a batch change what a model says? Some prompts are asked twice, alone and in their batch, and compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.atomic import write_atomically
from cambrian_eval.errors import EvalError, RunMismatchError
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.crew import Crew
    from cambrian_eval.plan import Plan
    from cambrian_eval.types import Failure, Prompt, Scoring

VERIFICATION = "verification.json"


class Verification(NamedTuple):
    """What came of it.

    Attributes:
        batch_size: Of the batches.
        n: Prompts that were answered both ways.
        n_equal: Those with the same reply.
        different: Ids of the others.
    """

    batch_size: int
    n: int
    n_equal: int
    different: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; the agreement is percent."""
        agreement = 100 * self.n_equal / self.n if self.n else None
        return {**self._asdict(), "different": list(self.different), "agreement": agreement}

    @property
    def warning(self) -> str | None:
        """What to tell about it; None where all replies were equal."""
        if not self.different:
            return None
        return (
            f"{self.n} prompts were asked alone and in batches of {self.batch_size}: {self.n_equal} replies "
            f"({100 * self.n_equal / self.n:.1f} %) were equal. So all questions were asked one by one."
        )


def verify(
    crew: Crew, plan: Plan, num_prompts: int, batch_size: int, scoring: Scoring, prefetch: int, folder: Path
) -> Verification:
    """Ask prompts from batches spread over the plan both ways; what a folder holds already is not asked again.

    Raises:
        RunMismatchError: The folder holds the comparison of another batch size.
        EvalError: What it holds is damaged.
    """
    path = folder / VERIFICATION
    if path.exists():
        return _read(path, batch_size)
    batches = _spread(plan.batches, num_prompts, batch_size)
    prompts = [prompt for batch in batches for prompt in batch][:num_prompts]
    together = _ask(crew, batches, scoring, prefetch)
    alone = _ask(crew, [[prompt] for prompt in prompts], scoring, prefetch)
    pairs = [(prompt.id, together[prompt.id], alone[prompt.id]) for prompt in prompts]
    answered = [(name, a.text, b.text) for name, a, b in pairs if isinstance(a, Answer) and isinstance(b, Answer)]
    different = tuple(name for name, one, other in answered if one != other)
    found = Verification(batch_size, len(answered), len(answered) - len(different), different)
    write_atomically(path, json.dumps(found.to_dict(), indent=2) + "\n")
    return found


def _spread(batches: Sequence[Sequence[Prompt]], num_prompts: int, batch_size: int) -> list[Sequence[Prompt]]:
    """Batches at even distances, the longest first, that hold so many prompts; all, if there are fewer."""
    count = min(len(batches), -(-num_prompts // batch_size))
    while count < len(batches):
        chosen = [batches[number * len(batches) // count] for number in range(count)]
        if sum(map(len, chosen)) >= num_prompts:
            return chosen
        count += 1
    return list(batches)


def _ask(
    crew: Crew, batches: Sequence[Sequence[Prompt]], scoring: Scoring, prefetch: int
) -> dict[str, Answer | Failure]:
    found: dict[str, Answer | Failure] = {}
    for number, asked in crew.ask(enumerate(batches), scoring, prefetch):
        found.update(zip((prompt.id for prompt in batches[number]), asked.answers, strict=True))
    return found


def _read(path: Path, batch_size: int) -> Verification:
    try:
        held = json.loads(path.read_bytes())
        found = Verification(held["batch_size"], held["n"], held["n_equal"], tuple(held["different"]))
    except (ValueError, KeyError, TypeError) as error:
        raise EvalError(f"{path}: found no comparison of batches ({error!r}). Delete it to compare again.") from error
    if found.batch_size != batch_size:
        raise RunMismatchError(
            f"{path.parent}: batches of {found.batch_size} were verified here, now they have {batch_size}. Use that "
            "batch size, or choose another output."
        )
    return found
