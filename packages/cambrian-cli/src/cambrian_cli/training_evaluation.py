"""The evaluation that a recipe asks for: some questions now and then in training, all of them in every mode after it.

Training is in the library, which knows no benchmark: what it calls is made here.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_cli import datasets, evaluation
from cambrian_cli.output import AdvancePart, is_first_process, silence_libraries

if TYPE_CHECKING:
    from cambrian_eval import Result
    from cambrian_eval.metrics import MetricRow
    from cambrian_model.training.recipe import Recipe

MODE_LABELS = {"normal": "accuracy %", "blind": "without pictures", "shuffled": "other pictures"}


def after_training(recipe: "Recipe", run_dir: Path, advance: AdvancePart) -> "list[Result]":
    """Evaluates a trained run as its recipe says, in every mode that it names."""
    if recipe.evaluation is None:
        return []
    silence_libraries()
    made, model = evaluation.plan(evaluation.TASK, str(run_dir), None), evaluation.load_model(str(run_dir))
    return [
        evaluation.ask(
            made,
            model,
            evaluation.default_output(evaluation.TASK, model.name, run_dir, mode=mode),
            mode=mode,
            progress=partial(advance, f"asking {evaluation.key(evaluation.TASK, mode)}"),
        )
        for mode in recipe.evaluation.cvbench.modes
    ]


def during_training(recipe: "Recipe", run_dir: Path) -> "Callable[[Any, Any, str, int], dict[str, float]] | None":
    """Returns what training calls to ask some of the recipe's questions now and then; None if it is not to.

    Every rank asks the same questions, for a sharded model needs all of them; the first one keeps the answers.
    """
    if recipe.evaluation is None or not recipe.evaluation.every:
        return None
    from cambrian_eval import TASKS
    from cambrian_eval.models.cambrian import Cambrian

    section = recipe.evaluation
    task, data = TASKS.get(evaluation.TASK), datasets.cached_benchmark(section.cvbench)

    def evaluate(model: Any, processor: Any, stage: str, step: int) -> dict[str, float]:
        made = evaluation.Plan(task, None, data, section.cvbench.batch_size, section.cvbench.max_new_tokens)
        asked = Cambrian(model, processor, run_dir, fingerprint=f"in training: {stage}, step {step}")
        with _folder_of_rank(run_dir / "eval" / f"{evaluation.TASK}-{stage}-{step:06d}") as folder:
            result = evaluation.ask(made, asked, folder, limit=section.limit)
        return {
            row.name: row.accuracy
            for row in result.metrics.rows
            if row.name in evaluation.SCORES or row.group == "tasks"
        }

    return evaluate


@contextlib.contextmanager
def _folder_of_rank(folder: Path) -> Iterator[Path]:
    """Gives a folder that lasts to the first process, and one that does not to the others."""
    if is_first_process():
        yield folder
        return
    with tempfile.TemporaryDirectory() as other:
        yield Path(other) / folder.name


class Comparison(NamedTuple):
    """Several modes of one evaluation as one table."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def compare(results: "Sequence[Result]") -> Comparison:
    """Returns one table of several modes, each cell with its 95 % interval."""
    first = results[0]
    columns = ["", *(MODE_LABELS[result.mode] for result in results), "chance", "best constant", "parsed", "n"]
    shown = [row for row in first.metrics.rows if row.group == "tasks" or row.name in evaluation.SCORES]
    others = [{(row.group, row.name): row for row in result.metrics.rows} for result in results]
    rows = [
        [
            row.label,
            *(_with_interval(levels[row.group, row.name]) for levels in others),
            *("" if level is None else f"{level:.1f}" for level in (row.chance, row.best_constant, row.parse_rate)),
            str(row.n),
        ]
        for row in shown
    ]
    return Comparison(f"{first.task} after training, with 95 % intervals", columns, rows)


def _with_interval(row: "MetricRow") -> str:
    return f"{row.accuracy:.1f} ({row.low:.1f} to {row.high:.1f})"
