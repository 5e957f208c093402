"""`cambrian cvbench build` and `rules`: a benchmark from annotation files, and what decides what it asks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report, progress_of_parts, report

if TYPE_CHECKING:
    from cambrian_data.cvbench.inputs import Form, Input
    from cambrian_data.cvbench.rules import Rules
    from cambrian_data.cvbench.summary import BenchmarkSummary, SourceTask

RulesFile = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="YAML or JSON file of rules that differ from the defaults."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--rule", metavar="NAME=VALUE", help="Change one rule, as relation.margin=0.2; may be repeated."),
]
Sources = list[str] | None


def build(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write; empty, missing, or of the same benchmark.")
    ],
    coco: Annotated[
        Sources, typer.Option(metavar="FILE[=IMAGES]", help="COCO-format instances, for Count and Relation.")
    ] = None,
    ade20k: Annotated[
        Sources,
        typer.Option(
            metavar="DIR[=IMAGES]", help="ADE20K in its full format, pictures beside its JSON files; or one JSON file."
        ),
    ] = None,
    ade20k_exhaustive: Annotated[
        bool,
        typer.Option(
            "--ade20k-exhaustive",
            help="Believe that all was outlined of what was outlined in ADE20K, and ask Count too; review it then.",
        ),
    ] = False,
    ade20k_masks: Annotated[
        Sources, typer.Option(metavar="DIR[=IMAGES]", help="ADE20K's masks of 150 classes, for Relation alone.")
    ] = None,
    ade20k_classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the masks' classes: object150_info.csv.")
    ] = None,
    omni3d: Annotated[
        Sources, typer.Option(metavar="FILE[=IMAGES]", help="Omni3D-format cuboids, for Depth and Distance.")
    ] = None,
    scenes: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Scenes that `cambrian data scenes` has rendered, for all four tasks."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder that the pictures' paths begin in, where =IMAGES does not name another."
        ),
    ] = None,
    count_per_task: Annotated[
        int | None,
        typer.Option(
            min=1, help="Questions of each task, shared by its sources; as many as can be balanced if not given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which questions are asked, and how.")] = 0,
    rules_file: RulesFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Write a CV-Bench about annotated pictures, in the hub's layout, as `cambrian eval cvbench --data DIR` reads it.

    Every source may be given several times. Same seed, same bytes. An interrupted build starts anew.
    """
    from cambrian_data.cvbench.benchmark import write_benchmark
    from cambrian_data.cvbench.inputs import Form, Input

    inputs = [
        *to_inputs(Form.COCO, coco, images),
        *(one._replace(exhaustive=ade20k_exhaustive) for one in to_inputs(Form.ADE20K, ade20k, None)),
        *to_inputs(Form.ADE20K_MASKS, ade20k_masks, images, ade20k_classes),
        *to_inputs(Form.OMNI3D, omni3d, images),
        *(Input(Form.SCENES, folder) for folder in scenes or ()),
    ]
    if not inputs:
        raise CommandError("nothing to ask about; give --coco, --ade20k, --ade20k-masks, --omni3d or --scenes.")
    photographs, rendered = both_sets(rules_file, changes)
    with report(as_json) as out:
        with progress_of_parts() as advance:
            summary = write_benchmark(
                inputs,
                output,
                count_per_task=count_per_task,
                seed=seed,
                rules=photographs,
                scene_rules=rendered,
                progress=advance,
            )
        show(out, summary)
        out.line(f"{summary.num_questions} questions about {summary.num_pictures} pictures: {output}")
        out.result(
            {
                "output": output,
                "seed": seed,
                "num_questions": summary.num_questions,
                "num_pictures": summary.num_pictures,
                "tasks": {
                    task: sum(one.questions for one in summary.tasks if one.task == task)
                    for task in dict.fromkeys(one.task for one in summary.tasks)
                },
                "sources": [
                    {
                        "task": one.task,
                        "source": one.source,
                        "wanted": one.wanted,
                        "questions": one.questions,
                        "candidates": one.candidates,
                        "rejections": one.rejections,
                    }
                    for one in summary.tasks
                ],
                "left_out": {one.name: one.left_out for one in summary.files},
                "content_hash": summary.content_hash,
            }
        )


def rules(
    kind: Annotated[
        Literal["photographs", "scenes"], typer.Option("--for", help="Whose defaults: photographs' or scenes'.")
    ] = "photographs",
    rules_file: RulesFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """List every rule with its value, its range and its reason, after --rules and --rule."""
    from cambrian_data.cvbench.rulebook import entries, expected, shown

    held = dict(zip(("photographs", "scenes"), both_sets(rules_file, changes), strict=True))[kind]
    with report(as_json) as out:
        found = list(entries(held))
        rows = [[entry.name, shown(entry.value), expected(entry), entry.reason] for entry in found]
        out.table(f"Rules for {kind}", ["rule", "value", "may be", "what it means, and why"], rows)
        out.result({"rules": {entry.name: entry.value for entry in found}})


def both_sets(rules_file: Path | None, changes: Sequence[str] | None) -> "tuple[Rules, Rules]":
    """The rules for photographs and for scenes: their defaults, changed by the file and then one by one."""
    from cambrian_data.cvbench.rulebook import changed, parse, read
    from cambrian_data.cvbench.rules import Rules

    in_file = read(rules_file) if rules_file is not None else []
    one_by_one = [parse(text) for text in changes or ()]
    photographs, scenes = (
        changed(changed(defaults, in_file, str(rules_file)), one_by_one, "--rule")
        for defaults in (Rules.photographs(), Rules())
    )
    return photographs, scenes


def to_inputs(
    form: "Form", given: Sequence[str] | None, images: Path | None, classes: Path | None = None
) -> "Iterator[Input]":
    """The inputs of one form, as they were given: PATH or PATH=IMAGES."""
    from cambrian_data.cvbench.inputs import Input

    for text in given or ():
        path, folder = split(text)
        yield Input(form, path, folder or images, classes)


def split(text: str) -> tuple[Path, Path | None]:
    """PATH=IMAGES as two paths; the second None if there is only PATH, which may hold an equals sign itself."""
    path, equals, images = text.rpartition("=")
    if not equals or Path(text).exists():
        return Path(text), None
    if not path or not images:
        raise CommandError(f"{text!r}: expected PATH or PATH=IMAGES, both not empty.")
    return Path(path), Path(images)


def show(out: Report, summary: "BenchmarkSummary") -> None:
    """Prints what was asked, what was refused by which rule, and what was left out of the annotations."""
    asked = [
        [
            one.task,
            one.source,
            f"{one.questions:,}",
            "all" if one.wanted is None else f"{one.wanted:,}",
            f"{one.pictures:,}",
            f"{one.candidates:,}",
            ", ".join(f"{letter} {number}" for letter, number in one.letters.items()),
        ]
        for one in summary.tasks
    ]
    out.table("Questions", ["task", "source", "questions", "wanted", "pictures", "candidates", "letters"], asked)
    for one in summary.tasks:
        if one.questions < (one.wanted or 1):
            out.line(shortage(one))
    refused = [
        [one.task, one.source, *key.split(": ", 1), f"{number:,}"]
        for one in summary.tasks
        for key, number in one.rejections.items()
    ]
    if refused:
        out.table("Refused", ["task", "source", "what", "by rule", "number"], refused)
    left_out = [[one.name, reason, f"{number:,}"] for one in summary.files for reason, number in one.left_out.items()]
    if left_out:
        out.table("Annotations left out", ["file", "reason", "number"], left_out)


def shortage(task: "SourceTask") -> str:
    """Says that fewer questions were made than wanted, and why."""
    wanted = "none" if task.wanted is None else f"{task.questions:,} of {task.wanted:,} questions"
    why = "the rules refuse everything" if task.candidates == 0 else "more cannot be balanced over the answers"
    return f"{task.task} from {task.source}: {wanted}, for {why}; use more pictures, or wider rules (see Refused)."
