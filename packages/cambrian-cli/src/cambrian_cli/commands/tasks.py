"""`cambrian tasks`: the benchmarks that `cambrian eval` asks, and all that is known of one without its data.

`list` takes no option with a value: typer imports pydantic for those, which takes longer than all else.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import report
from cambrian_cli.quick import QUICK

if TYPE_CHECKING:
    from cambrian_eval.types import Prompt

app = typer.Typer(
    name="tasks",
    help="List and show benchmarks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={**QUICK},
)

TaskName = Annotated[str, typer.Argument(metavar="NAME", help="A name of the list.")]
GroupName = Annotated[str | None, typer.Argument(metavar="NAME", help="One group, to see its benchmarks.")]

COLUMNS = ["name", "group", "questions", "split", "rule", "headline"]
PICTURE = "<picture>"


@app.command("list", context_settings={**QUICK})
def list_tasks(as_json: AsJson = False) -> None:
    """List the benchmarks with their groups, sizes, rules and scores. Reads no data and downloads none."""
    from cambrian_eval.listing import read_listing

    with report(as_json) as out:
        tasks = read_listing()
        out.table("Benchmarks", COLUMNS, [_row(task) for task in tasks])
        out.line("cambrian tasks show NAME tells all of one; cambrian eval NAME --model MODEL asks it.")
        out.result({"tasks": tasks})


@app.command("groups")
def list_groups(group: GroupName = None, as_json: AsJson = False) -> None:
    """List the paper's groups of benchmarks, or the benchmarks of one, and how their scores are averaged."""
    from cambrian_eval.groups import CATEGORIES, GROUPS, WHOLE, members
    from cambrian_eval.listing import read_listing

    with report(as_json) as out:
        if group is not None:
            listed = {task["name"]: task for task in read_listing()}
            tasks = [listed[name] for name in members(group)]
            out.table(f"Benchmarks of {group}", COLUMNS, [_row(task) for task in tasks])
            out.result({"group": group, "tasks": tasks})
            return
        out.table("Groups", ["group", "benchmarks"], [[name, ", ".join(tasks)] for name, tasks in CATEGORIES.items()])
        out.line(f"A group's score is the mean of its benchmarks, MME's perception over 20; {WHOLE} is the mean of all")
        out.line(f"{len(CATEGORIES)} groups.")
        out.result({"groups": {name: list(tasks) for name, tasks in GROUPS.items()}})


@app.command()
def show(name: TaskName, as_json: AsJson = False) -> None:
    """Print a benchmark's data, an example prompt, its rule and its metrics. Reads no data and downloads none."""
    from cambrian_eval.examples import example_files, example_questions
    from cambrian_eval.groups import GROUPS
    from cambrian_eval.listing import describe
    from cambrian_eval.tasks import TASKS

    with report(as_json) as out:
        if name in GROUPS:
            raise CommandError(f'"{name}" is a group of benchmarks; "cambrian tasks groups {name}" lists them.')
        task = TASKS.get(name)
        prompt = task.prompt(example_questions(task)[0])
        facts = describe(task) | {
            "max_new_tokens": prompt.max_new_tokens,
            "instruction": prompt.instruction,
            "files": task.hub.files_of(task.splits[0]),
            "own_files": list(example_files(task)),
        }
        for key, value in _described(facts).items():
            out.line(f"{key:<13}{value}".rstrip())
        out.line("example prompt, of a made-up question")
        for line in _shown(prompt).splitlines():
            out.line(f"    {line}")
        out.result(facts | {"example": _shown(prompt)})


def _row(facts: dict[str, Any]) -> list[str]:
    group = facts["groups"][0] if facts["groups"] else ""
    return [facts["name"], group, _size(facts), ", ".join(facts["splits"]), facts["rule"], facts["headline"]]


def _size(facts: dict[str, Any]) -> str:
    return "not known" if facts["num_questions"] is None else str(facts["num_questions"])


def _described(facts: dict[str, Any]) -> dict[str, str]:
    own = ", ".join(facts["own_files"])
    lines = {
        "name": f"{facts['name']} (version {facts['version']})",
        "about": facts["description"],
        "groups": ", ".join(facts["groups"]) or "none",
        "hub": f"{facts['hub']} at commit {facts['revision']}; --revision names another",
        "splits": f"{', '.join(facts['splits'])}; the first unless --split names another",
        "files": ", ".join(facts["files"]),
        "own data": f"--data DIR with these files, or {own} with the pictures beside it; see docs/evaluation/tasks.md",
        "fields": ", ".join(facts["fields"]),
        "questions": _size(facts),
        "tokens": f"{facts['max_new_tokens']} for the example's reply",
        "rule": facts["rule"],
        "score": facts["headline"],
        "metrics": facts["metrics"],
    }
    if facts["submission"]:
        lines["submission"] = f"{facts['submission']}, for the benchmark's server"
    return lines | {"run": f"cambrian eval {facts['name']} --model MODEL [--data DIR]"}


def _shown(prompt: "Prompt") -> str:
    return "\n".join(part if isinstance(part, str) else PICTURE for part in prompt.content)
