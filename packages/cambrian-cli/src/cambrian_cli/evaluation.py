"""Which model, which questions, which folder, and what is printed of the result.

A run whose recipe has an `evaluation` brings its own benchmark: questions about scenes that it was not trained on, made
when they are first asked for. `cambrian eval` asks the same ones when it is given the run and no other data.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_cli import datasets
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report, is_first_process, progress_of_parts
from cambrian_cli.runs import CHECKPOINT, RECIPE, RUNS

if TYPE_CHECKING:
    from cambrian_eval import Mode, Model, Prompt, Result, Task
    from cambrian_eval.conditions import Conditions
    from cambrian_eval.workers import Workers
    from cambrian_model.training.recipe.recipe import CVBenchEvaluationSection

REPORT = "report.html"
HELD_OUT_TASKS = ("cvbench", "cvbench-2d", "cvbench-3d")  # what the scene benchmark of a run holds questions for
TASK = "cvbench"
SCORES = ("score", "score_2d", "score_3d")
FIELDS = (*SCORES, "parse_rate", "scores", "tasks", "permuted", "positions", "position_bias")  # of a result's JSON


class Plan(NamedTuple):
    """What is asked, before the model is loaded.

    Attributes:
        task: The benchmark.
        run: Folder of the run that the model is from, if it is from one.
        data: Folder of the benchmark; None for the hub's.
        batch_size: Questions asked at once; None for what the model prefers.
        max_new_tokens: Cap on a reply's length; None for the benchmark's own.
        revision: Of the hub's data; None for the benchmark's own.
        conditions: How it is asked; None for the published way.
    """

    task: "Task"
    run: Path | None
    data: Path | None
    batch_size: int | None
    max_new_tokens: int | None
    revision: str | None = None
    conditions: "Conditions | None" = None


class Wanted(NamedTuple):
    """What `cambrian eval` is asked for: benchmarks, and groups of them whose averages are wanted too."""

    tasks: tuple[str, ...]
    groups: tuple[str, ...]


def choose_tasks(text: str) -> Wanted:
    """Returns the benchmarks that names with commas between stand for, each once.

    Raises:
        EvalError: A name that is neither a benchmark nor a group.
    """
    from cambrian_eval import TASKS
    from cambrian_eval.groups import GROUPS
    from cambrian_eval.registry import unknown_name

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in GROUPS and name not in TASKS.names():
            raise unknown_name("task", name, [*TASKS.names(), *GROUPS])
    tasks = [task for name in names for task in GROUPS.get(name, (name,))]
    return Wanted(tuple(dict.fromkeys(tasks)), tuple(name for name in dict.fromkeys(names) if name in GROUPS))


def make_conditions(*, ids: str | None, **chosen: Any) -> "Conditions":
    """Returns how questions are asked, from the options of the command line.

    Args:
        ids: Ids with commas between, or the name of a file that lists them.
        **chosen: The other fields of `Conditions`.
    """
    from cambrian_eval.conditions import Conditions
    from cambrian_eval.picture import is_file
    from cambrian_eval.selection import parse_ids

    if ids is not None and is_file(Path(ids)):
        try:
            ids = Path(ids).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CommandError(f"{ids}: not a text file ({error}); expected ids, as in 12,2d-40,40-60.") from error
    return Conditions(ids=None if ids is None else parse_ids(ids), **chosen)


def choose_mode(blind: bool, shuffle_images: bool) -> "Mode":
    """Returns what pictures the model sees.

    Raises:
        CommandError: Both of the two options are set.
    """
    if blind and shuffle_images:
        raise CommandError("--blind shows no pictures and --shuffle-images shows other ones; give one of them.")
    return "blind" if blind else "shuffled" if shuffle_images else "normal"


def plan(
    task_name: str,
    model_name: str,
    data: Path | None,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    revision: str | None = None,
    conditions: "Conditions | None" = None,
) -> Plan:
    """Finds task and data, so that mistakes show before a model is loaded, which may take a while.

    What is not given is taken from the evaluation of the run that the model is from, if there is one.

    Raises:
        EvalError: An unknown task, conditions that do not go together, or data that is not there.
    """
    from cambrian_eval import hub
    from cambrian_eval.conditions import Conditions
    from cambrian_eval.runner import resolve

    asked = conditions or Conditions()
    task = resolve(task_name)
    checked = asked.checked(resolve(task, asked.compat))
    run = run_of(model_name)
    held_out = _held_out(run) if run and task_name in HELD_OUT_TASKS else None
    if held_out is not None and revision is None:
        data = data or datasets.cached_benchmark(held_out)
        batch_size = batch_size or held_out.batch_size
        max_new_tokens = max_new_tokens or held_out.max_new_tokens
    hub.locate(task.hub, data, revision, checked.split)
    return Plan(task, run, data, batch_size, max_new_tokens, revision, asked)


def plan_all(
    wanted: Wanted,
    model_name: str,
    data: Path | None,
    batch_size: int | None,
    max_new_tokens: int | None,
    revision: str | None,
    conditions: "Conditions",
) -> list[Plan]:
    """Finds all benchmarks and their data before a model is loaded; of several, each has a folder of its own in `data`.

    Raises:
        CommandError: One revision for several benchmarks.
        EvalError: As for `plan`.
    """
    if len(wanted.tasks) == 1:
        return [plan(wanted.tasks[0], model_name, data, batch_size, max_new_tokens, revision, conditions)]
    if revision is not None:
        raise CommandError(f"--revision names a commit of one benchmark, and {len(wanted.tasks)} are asked; ask one.")
    return [
        plan(task, model_name, data and data / task, batch_size, max_new_tokens, None, conditions)
        for task in wanted.tasks
    ]


def load_model(name: str) -> "Model":
    """Loads a run or checkpoint folder, or a model of cambrian_eval by its name.

    Raises:
        EvalError: Neither; or the folder holds something else.
    """
    from cambrian_eval import models

    return models.load_model(_spec(name))


@contextlib.contextmanager
def loaded(name: str, workers: int) -> "Iterator[Model | Workers]":
    """Gives a model in this process, or one that several processes have loaded.

    Raises:
        CommandError: Workers are asked for where torchrun has started processes already.
        EvalError: As for `load_model`.
    """
    from cambrian_eval import torchrun
    from cambrian_eval.workers import Workers

    if torchrun.num_processes() > 1:
        if workers > 1:
            raise CommandError(
                f"torchrun has started {torchrun.num_processes()} processes, which share the questions; "
                "leave --workers out."
            )
        torchrun.use_own_device()
    if workers == 1:
        yield load_model(name)
        return
    with Workers(_spec(name), workers) as crew:
        yield crew


def _spec(name: str) -> str:
    """Returns the name by which `cambrian_eval` knows a model; a path is short for a Cambrian one."""
    from cambrian_eval import models

    kind = name.partition(":")[0]
    is_folder = kind not in models.MODELS.names() and ("/" in name or Path(name).exists())
    return f"cambrian:{name}" if is_folder else name


def run_of(model_name: str) -> Path | None:
    """Returns the run's folder if the model is one, or the checkpoint inside one."""
    from cambrian_eval import models

    kind = model_name.partition(":")[0]
    if kind != "cambrian" and kind in models.MODELS.names():
        return None  # and what follows is no path: an address or a reply, of any length
    folder = Path(model_name.removeprefix("cambrian:"))
    run = folder.parent if folder.name == CHECKPOINT else folder
    return run if (run / RECIPE).is_file() and (run / CHECKPOINT).is_dir() else None


def default_output(
    tasks: str, model_name: str, run: Path | None, conditions: "Conditions | None" = None, mode: "Mode" = "normal"
) -> Path:
    """Returns the folder of an evaluation, the same for the same request, so that repeating a command resumes it."""
    from cambrian_eval.conditions import Conditions

    asked = conditions or Conditions(mode=mode)
    ids = f"ids{hashlib.sha256(','.join(asked.ids).encode()).hexdigest()[:8]}" if asked.ids else ""
    parts = [
        re.sub(r"[^A-Za-z0-9._-]+", "+", tasks),
        asked.split,
        asked.compat,
        asked.mode if asked.mode != "normal" else "",
        asked.prompt if asked.prompt != "direct" else "",
        asked.scoring if asked.scoring != "generate" else "",
        f"permute{asked.permute}" if asked.permute else "",
        f"verify{asked.verify_batching}" if asked.verify_batching else "",
        ids,
        f"limit{asked.limit}" if asked.limit else "",
        f"seed{asked.seed}" if asked.seed else "",
    ]
    name = "-".join(filter(None, parts))
    return run / "eval" / name if run else RUNS / f"eval-{name}-{re.sub(r'[^A-Za-z0-9._]+', '-', model_name)}"


def ask(
    plan: Plan,
    model: "Model | Workers",
    output: Path,
    *,
    mode: "Mode | None" = None,
    limit: int | None = None,
    is_shared: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> "Result":
    """Evaluates, or goes on with an evaluation that was interrupted.

    Args:
        plan: What is asked.
        model: What answers.
        output: The evaluation's folder.
        mode: What pictures the model sees, if not what the plan says.
        limit: How many questions are asked, if not what the plan says.
        is_shared: Whether the processes that torchrun started share the questions; else each asks all of them.
        progress: Called with the number of questions answered and the number of all.
    """
    from cambrian_eval import evaluate

    conditions = _conditions(plan)
    chosen = {field.name: getattr(conditions, field.name) for field in dataclasses.fields(conditions)}
    return evaluate(
        plan.task,
        model,
        data=plan.data,
        output=output,
        revision=plan.revision,
        batch_size=plan.batch_size,
        workers="torchrun" if is_shared else 1,
        progress=progress,
        **{**chosen, "mode": mode or conditions.mode, "limit": limit or conditions.limit},
    )


def _conditions(plan: Plan) -> "Conditions":
    from cambrian_eval.conditions import Conditions

    return dataclasses.replace(plan.conditions or Conditions(), max_new_tokens=plan.max_new_tokens)


def ask_all(plans: Sequence[Plan], model: "Model | Workers", folder: Path) -> "list[Result]":
    """Evaluates one benchmark after another, each in a folder of its own if there are several."""
    with progress_of_parts() as advance:
        return [
            ask(
                made,
                model,
                folder if len(plans) == 1 else folder / made.task.name,
                is_shared=True,
                progress=partial(advance, f"asking {made.task.name}"),
            )
            for made in plans
        ]


def key(task: str, mode: "Mode") -> str:
    """Returns the name of a result among others, such as ``cvbench_blind``."""
    return task if mode == "normal" else f"{task}_{mode}"


def summarise(results: "Sequence[Result]") -> dict[str, dict[str, Any]]:
    """Returns the results for machines, levels in percent."""
    found = {key(result.task, result.mode): result.to_dict() for result in results}
    return {name: {field: values[field] for field in FIELDS if field in values} for name, values in found.items()}


def show(out: Report, result: "Result") -> None:
    """Prints one result for people."""
    from cambrian_eval.report import table

    out.table(table.heading(result), list(table.HEADER), table.table_rows(result))
    for note in table.notes(result):
        out.line(note)
    for warning in result.checks.get("warnings", ()):
        out.line(f"warning: {warning}")


def show_plans(out: Report, plans: Sequence[Plan]) -> dict[str, Any]:
    """Prints what would be asked, and returns it for machines; no model is loaded."""
    from cambrian_eval import hub
    from cambrian_eval.jobs import make_jobs, preview
    from cambrian_eval.runner import BATCH_SIZE, resolve

    shown = {}
    for made in plans:
        conditions = _conditions(made)
        task = resolve(made.task, conditions.compat)
        conditions = conditions.checked(task)
        folder = hub.locate(task.hub, made.data, made.revision, conditions.split)
        found = preview(make_jobs(task, folder.path, conditions).jobs, made.batch_size or BATCH_SIZE)
        counts = {name: value for name, value in found._asdict().items() if name != "first"}
        shown[task.name] = {**counts, "prompt": _as_text(found.first)}
        out.line(f"{task.name}, question {found.first.id}:")
        out.line(_as_text(found.first))
        out.line(
            f"{found.num_questions} questions, {found.num_requests} different requests, {found.num_pictures} pictures, "
            f"{found.num_batches} batches, at most {found.max_new_tokens} new tokens"
        )
    return shown


def _as_text(prompt: "Prompt") -> str:
    parts = [part if isinstance(part, str) else f"<picture {part.name}>" for part in prompt.content]
    return "\n".join(parts)


def finish(out: Report, wanted: Wanted, results: "Sequence[Result]", folder: Path) -> dict[str, Any]:
    """Prints and writes what several results amount to, and returns everything for machines."""
    from cambrian_eval import summary

    num_failed = sum(result.num_failed for result in results)
    fields = {
        "evaluation": summarise(results),
        "run_dir": folder,
        "n_failed": num_failed,
        "complete": num_failed == 0,
        "warnings": [warning for result in results for warning in result.checks["warnings"]],
    }
    if len(results) == 1:
        return fields
    found = summary.summarise(results, wanted.groups)
    if is_first_process():
        summary.write_summary(folder, found)
    out.table(f"{results[0].model}, all benchmarks", list(summary.HEADER), found.rows())
    for name in found.incomplete:
        out.line(f"{name}: no average, for a benchmark of it is not answered in full or has no score")
    out.line(f"summary: {folder / summary.SUMMARY_TABLE}")
    return {**fields, "summary": found.to_dict()}


def check_complete(results: "Sequence[Result]", folder: Path) -> None:
    """Makes sure that every question was answered.

    Raises:
        CommandError: Some were not.
    """
    failed = [result for result in results if result.num_failed]
    if failed:
        counts = ", ".join(f"{one.num_failed} of {one.task} (why: {one.output / 'failures.json'})" for one in failed)
        raise CommandError(
            f"{folder} is incomplete: questions were not answered, {counts}. Repeat the command to ask them again."
        )


def _held_out(run: Path) -> "CVBenchEvaluationSection | None":
    from cambrian_model import training

    evaluation = training.load_recipe(run / RECIPE).evaluation
    return evaluation.cvbench if evaluation else None
