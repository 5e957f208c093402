"""Which model, which questions, which folder; what is printed of the result; and the evaluation at the end of training.

A run whose recipe has an `evaluation` brings its own benchmark: questions about scenes that it was not trained on, made
when they are first asked for. `cambrian eval` asks the same ones when it is given the run and no other data.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_cli import datasets
from cambrian_cli.errors import CommandError
from cambrian_cli.output import AdvancePart, Report, is_first_process, silence_libraries
from cambrian_cli.runs import CHECKPOINT, RECIPE, RUNS

if TYPE_CHECKING:
    from cambrian_eval import Mode, Model, Result, Task
    from cambrian_eval.metrics import MetricRow
    from cambrian_model.training.recipe import Recipe
    from cambrian_model.training.recipe.recipe import CVBenchEvaluationSection

BATCH_SIZE = 16
REPORT = "report.html"
HELD_OUT_TASKS = ("cvbench", "cvbench-2d", "cvbench-3d")  # what the scene benchmark of a run holds questions for
TASK = "cvbench"
SCORES = ("score", "score_2d", "score_3d")
MODE_LABELS = {"normal": "accuracy %", "blind": "without pictures", "shuffled": "other pictures"}


class Plan(NamedTuple):
    """What is asked, before the model is loaded.

    Attributes:
        task: The benchmark.
        run: Folder of the run that the model is from, if it is from one.
        data: Folder of the benchmark; None for the hub's.
        batch_size: Questions asked at once.
        max_new_tokens: Cap on a reply's length; None for the benchmark's own.
    """

    task: "Task"
    run: Path | None
    data: Path | None
    batch_size: int
    max_new_tokens: int | None


def choose_mode(blind: bool, shuffle_images: bool) -> "Mode":
    """Returns what pictures the model sees.

    Raises:
        CommandError: Both of the two options are set.
    """
    if blind and shuffle_images:
        raise CommandError("--blind shows no pictures and --shuffle-images shows other ones; give one of them.")
    return "blind" if blind else "shuffled" if shuffle_images else "normal"


def plan(
    task_name: str, model_name: str, data: Path | None, batch_size: int | None = None, max_new_tokens: int | None = None
) -> Plan:
    """Finds task and data, so that mistakes show before a model is loaded, which may take a while.

    What is not given is taken from the evaluation of the run that the model is from, if there is one.

    Raises:
        EvalError: An unknown task, or data that is not there.
    """
    from cambrian_eval import TASKS, hub

    task = TASKS.get(task_name)
    run = run_of(model_name)
    held_out = _held_out(run) if run and task_name in HELD_OUT_TASKS else None
    if held_out is not None:
        data = data or datasets.cached_benchmark(held_out)
        batch_size = batch_size or held_out.batch_size
        max_new_tokens = max_new_tokens or held_out.max_new_tokens
    hub.locate(task.hub, data, None)
    return Plan(task, run, data, batch_size or BATCH_SIZE, max_new_tokens)


def load_model(name: str) -> "Model":
    """Loads a run or checkpoint folder, or a model of cambrian_eval by its name.

    Raises:
        EvalError: Neither; or the folder holds something else.
    """
    from cambrian_eval import models

    kind = name.partition(":")[0]
    is_folder = kind not in models.MODELS.names() and ("/" in name or Path(name).exists())
    return models.load_model(f"cambrian:{name}" if is_folder else name)


def run_of(model_name: str) -> Path | None:
    """Returns the run's folder if the model is one, or the checkpoint inside one."""
    folder = Path(model_name.removeprefix("cambrian:"))
    run = folder.parent if folder.name == CHECKPOINT else folder
    return run if (run / RECIPE).is_file() and (run / CHECKPOINT).is_dir() else None


def default_output(
    task: str, model_name: str, run: Path | None, mode: "Mode", limit: int | None = None, seed: int = 0
) -> Path:
    """Returns the folder of an evaluation, the same for the same request, so that repeating a command resumes it."""
    parts = [task, mode if mode != "normal" else "", f"limit{limit}" if limit else "", f"seed{seed}" if seed else ""]
    name = "-".join(filter(None, parts))
    return run / "eval" / name if run else RUNS / f"eval-{name}-{re.sub(r'[^A-Za-z0-9._]+', '-', model_name)}"


def ask(
    plan: Plan,
    model: "Model",
    output: Path,
    *,
    mode: "Mode" = "normal",
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> "Result":
    """Evaluates, or goes on with an evaluation that was interrupted."""
    from cambrian_eval import evaluate

    return evaluate(
        plan.task,
        model,
        data=plan.data,
        output=output,
        limit=limit,
        seed=seed,
        mode=mode,
        batch_size=plan.batch_size,
        max_new_tokens=plan.max_new_tokens,
        progress=progress,
    )


def after_training(recipe: "Recipe", run_dir: Path, advance: AdvancePart) -> "list[Result]":
    """Evaluates a trained run as its recipe says, in every mode that it names."""
    if recipe.evaluation is None:
        return []
    silence_libraries()
    made, model = plan(TASK, str(run_dir), None), load_model(str(run_dir))
    return [
        ask(
            made,
            model,
            default_output(TASK, model.name, run_dir, mode),
            mode=mode,
            progress=partial(advance, f"asking {key(TASK, mode)}"),
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
    task, data = TASKS.get(TASK), datasets.cached_benchmark(section.cvbench)

    def evaluate(model: Any, processor: Any, stage: str, step: int) -> dict[str, float]:
        made = Plan(task, None, data, section.cvbench.batch_size, section.cvbench.max_new_tokens)
        asked = Cambrian(model, processor, run_dir, fingerprint=f"in training: {stage}, step {step}")
        with _folder_of_rank(run_dir / "eval" / f"{TASK}-{stage}-{step:06d}") as folder:
            result = ask(made, asked, folder, limit=section.limit)
        return {row.name: row.accuracy for row in result.metrics.rows if row.name in SCORES or row.group == "tasks"}

    return evaluate


@contextlib.contextmanager
def _folder_of_rank(folder: Path) -> Iterator[Path]:
    """Gives a folder that lasts to the first process, and one that does not to the others."""
    if is_first_process():
        yield folder
        return
    with tempfile.TemporaryDirectory() as other:
        yield Path(other) / folder.name


def key(task: str, mode: "Mode") -> str:
    """Returns the name of a result among others, such as ``cvbench_blind``."""
    return task if mode == "normal" else f"{task}_{mode}"


def summarise(results: "Sequence[Result]") -> dict[str, dict[str, Any]]:
    """Returns the results for machines, levels in percent."""
    names = (*SCORES, "parse_rate", "tasks")
    found = {key(result.task, result.mode): result.to_dict() for result in results}
    return {name: {field: values[field] for field in names} for name, values in found.items()}


def show(out: Report, result: "Result") -> None:
    """Prints one result for people."""
    from cambrian_eval.report import table

    out.table(table.heading(result), list(table.HEADER), table.table_rows(result))
    for note in table.notes(result):
        out.line(note)


class Comparison(NamedTuple):
    """Several modes of one evaluation as one table."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def compare(results: "Sequence[Result]") -> Comparison:
    """Returns one table of several modes, each cell with its 95 % interval."""
    first = results[0]
    columns = ["", *(MODE_LABELS[result.mode] for result in results), "chance", "best constant", "parsed", "n"]
    shown = [row for row in first.metrics.rows if row.group == "tasks" or row.name in SCORES]
    others = [{(row.group, row.name): row for row in result.metrics.rows} for result in results]
    rows = [
        [
            row.label,
            *(_with_interval(levels[row.group, row.name]) for levels in others),
            *(f"{level:.1f}" for level in (row.chance, row.best_constant, row.parse_rate)),
            str(row.n),
        ]
        for row in shown
    ]
    return Comparison(f"{first.task} after training, with 95 % intervals", columns, rows)


def _with_interval(row: "MetricRow") -> str:
    return f"{row.accuracy:.1f} ({row.low:.1f} to {row.high:.1f})"


def _held_out(run: Path) -> "CVBenchEvaluationSection | None":
    from cambrian_model import training

    evaluation = training.load_recipe(run / RECIPE).evaluation
    return evaluation.cvbench if evaluation else None
