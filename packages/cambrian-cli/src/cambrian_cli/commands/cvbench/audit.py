"""`cambrian cvbench audit`: what can be answered of a benchmark without its pictures, by priors and by models."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import progress, report, silence_libraries

if TYPE_CHECKING:
    from cambrian_cli.evaluation import Plan
    from cambrian_data.cvbench.audit import Guesser, Ordered
    from cambrian_eval import Model, Task
    from cambrian_eval.metrics import Metrics
    from cambrian_eval.types import ScoredAnswer

TASK = "cvbench"


def audit(
    benchmark: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the benchmark, as on the hub.")],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="As in `cambrian eval`, asked without pictures; may be repeated. Without one: priors alone.",
        ),
    ] = None,
    permutations: Annotated[
        int | None,
        typer.Option(
            min=2, help="Orders of the choices that are asked; as many as a question has choices if not given."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the audit; DIR/audit in the benchmark if not given.")
    ] = None,
    export_filtered: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the questions to drop, as decisions for `cambrian cvbench review`; a new file."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn by lot.")] = 0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Questions asked at once; 16 if not given.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Cap on a reply's length.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for questions that need no picture: letter and answer priors, category majorities, blind models.

    Nothing in the benchmark is changed. The same command goes on with an audit that was interrupted.
    """
    from cambrian_cli import evaluation
    from cambrian_data.cvbench import audit as library

    names = models or []
    if len(set(names)) < len(names):
        raise CommandError(
            f"--model {next(name for name in names if names.count(name) > 1)} is given twice; once will do."
        )
    if export_filtered is not None and export_filtered.exists():
        raise CommandError(f"{export_filtered} exists; decisions are never overwritten. Choose another name.")
    if export_filtered is not None and not names:
        raise CommandError("--export-filtered needs a --model: priors say what is biased, not which question to drop.")
    with report(as_json) as out:
        items = library.read_items(benchmark)
        asked = [one for item in items for one in library.in_orders(item, permutations)]
        plans = {name: evaluation.plan(TASK, name, benchmark, batch_size, max_new_tokens) for name in names}
        folder = output or benchmark / "audit"
        library.claim(benchmark, items, folder)
        guessers: dict[str, Guesser] = {}
        for name, plan in plans.items():  # one after another: two models need not fit into memory
            silence_libraries()
            model = evaluation.load_model(name)
            if model.name in guessers:
                raise CommandError(f"two models are called {model.name}; audit them one at a time, each with --output.")
            letters = ask_blind(model, plan, asked, folder / "models" / folder_name(model.name, permutations))
            guessers[model.name] = functools.partial(look_up, letters)
        found = library.audit(benchmark, guessers, orders=permutations, seed=seed)
        library.write(found, folder)
        for table in library.tabulate(found.audit):
            out.table(*table)
        for note in library.notes(found.audit):
            out.line(note)
        out.line(f"audit: {folder}")
        if export_filtered is not None and not found.drops:
            out.line(f"no question to drop: {export_filtered} is not written")
        elif export_filtered is not None:
            library.write_decisions(found.drops, export_filtered, datetime.now(UTC).isoformat(timespec="seconds"))
            out.line(f"{len(found.drops)} questions to drop: {export_filtered}")
        exported = export_filtered if found.drops else None
        out.result(library.to_dict(found.audit) | {"output": folder, "exported": exported})


def ask_blind(model: "Model", plan: "Plan", asked: "Sequence[Ordered]", folder: Path) -> dict[str, str | None]:
    """Asks a model every question in every order, as `cambrian eval --blind` does, and returns the letters by id.

    Replies are kept in the folder, so that an audit that was interrupted goes on.

    Raises:
        CommandError: Some were not answered.
        EvalError: The model's answers are not usable, or the folder holds replies to other questions.
    """
    from cambrian_cli import evaluation
    from cambrian_eval.log import SAMPLES
    from cambrian_eval.rows import read_rows

    made = plan._replace(task=blind_task(plan.task, asked))
    with progress(f"asking {model.name}") as advance:
        result = evaluation.ask(made, model, folder, mode="blind", progress=advance)
    if result.num_failed:
        raise CommandError(
            f"{model.name}: {result.num_failed} of {len(asked)} questions were not answered (why: "
            f"{folder / 'failures.json'}); an audit needs all. Repeat the command to ask them again."
        )
    rows = read_rows(folder / SAMPLES, ("id", "extracted"))
    return {row.values["id"]: row.values["extracted"] for row in rows}


def blind_task(task: "Task", asked: "Sequence[Ordered]") -> "Task":
    """Returns the task with these questions and its own prompt, scoring and metrics, those of the published order."""
    from cambrian_eval import Question

    questions = [
        Question(
            id=one.id,
            text=one.prompt,
            choices=one.choices,
            answers=(one.letter,),
            pictures=(),
            part=one.item.part,
            task=one.item.task,
            source=one.item.source,
        )
        for one in asked
    ]
    published = {one.id for one in asked if one.shift == 0}

    def metrics(answers: "Sequence[ScoredAnswer]") -> "Metrics":
        return task.metrics([answer for answer in answers if answer.question.id in published])

    return dataclasses.replace(task, name=f"{TASK}-audit", questions=lambda folder, split: questions, metrics=metrics)


def look_up(letters: "Mapping[str, str | None]", asked: "Sequence[Ordered]") -> list[str | None]:
    """Returns the letters that were given, in the order in which they are asked for."""
    return [letters[one.id] for one in asked]


def folder_name(model: str, permutations: int | None) -> str:
    """Returns the name of the folder of a model's replies: another number of orders is another set of questions."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", model) + (f"-orders{permutations}" if permutations else "")
