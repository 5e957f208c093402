"""The dataset card of a benchmark: README.md, whose head tells the `datasets` library which file is which part."""

from __future__ import annotations

from collections.abc import Mapping

from cambrian_data.cvbench.markdown import table
from cambrian_data.cvbench.rejections import FIXED
from cambrian_data.cvbench.rulebook import entries, shown
from cambrian_data.cvbench.rules import Rules
from cambrian_data.cvbench.summary import BenchmarkSummary

CARD = "README.md"
HEAD = """---
license: other
task_categories:
- visual-question-answering
language:
- en
pretty_name: Vision-centric questions in the manner of CV-Bench
configs:
- config_name: default
  data_files:
  - split: test
    path: "test*.parquet"
{parts}---
"""
PART = """- config_name: {part}
  data_files:
  - split: test
    path: "{file}"
"""
FIELDS = (
    ("idx", "number of the question, unique over both parts"),
    ("type", "`2D` or `3D`"),
    ("task", "`Count`, `Relation`, `Depth` or `Distance`"),
    ("image", "the picture, with the boxes that the question names drawn on it (Parquet only)"),
    ("question", "the question alone"),
    ("choices", "texts to choose from"),
    ("answer", "letter of the right choice, such as `(A)`"),
    ("prompt", "question and lettered choices"),
    ("filename", "path of the picture"),
    ("source", "by which the official score weighs"),
    ("source_dataset", "where the picture comes from, more exactly"),
    ("source_filename", "the picture's name in its annotations"),
    ("target_class", "Count: the category that is counted, as its annotations name it"),
    ("target_size", "Count: pixels of the smallest thing counted"),
    ("bbox", "3D: left, top, right, bottom in pixels of the things in the red, blue and green box"),
)


def card(summary: BenchmarkSummary, rules: Mapping[str, Rules], count_per_task: int | None, seed: int) -> str:
    """The text of the card.

    Args:
        summary: of the benchmark.
        rules: by what they hold for: photographs, scenes.
        count_per_task: that was asked for.
        seed: of the choice.
    """
    parts = "".join(PART.format(part=part, file=f"test_{part.lower()}.parquet") for part in summary.parts)
    wanted = "as many questions as can be balanced" if count_per_task is None else f"{count_per_task} questions a task"
    sections = (
        HEAD.format(parts=parts),
        "# Vision-centric questions in the manner of CV-Bench\n",
        f"{summary.num_questions} multiple-choice questions, made from annotations by `cambrian cvbench build`: "
        f"{wanted}, seed {seed}. Wording and layout are those of CV-Bench (arXiv 2406.16860), its questions are not. "
        "No person has looked at them yet, unless `review/` says so.\n",
        "The pictures and their annotations keep the licences of their sources.\n",
        "## Questions\n",
        questions_table(summary),
        "Within a task and source each letter is right equally often, and so is each of the answers that a question "
        "offers, to within the last round of the choice.\n",
        "## Score\n",
        "Accuracy of a part is the mean over its sources, that of the benchmark the mean over its parts.\n",
        "## Fields\n",
        table(("field", "what it holds"), [(f"`{name}`", meaning) for name, meaning in FIELDS]),
        "`geometry.jsonl` holds, for each `idx`, the boxes, vertices and distances that the answer follows from; "
        "`cvbench.json` holds everything that is said here, for machines.\n",
        "## Sources\n",
        sources_table(summary),
        *rules_sections(rules),
        "## Refused\n",
        "What was not asked, by the rule that forbade it. What fails several rules is counted under the first.\n",
        rejections_table(summary),
        *left_out_section(summary),
    )
    return "\n".join(sections)


def counts(numbers: Mapping[str, int]) -> str:
    """How often each is, in a line."""
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def questions_table(summary: BenchmarkSummary) -> str:
    """What each source was asked in each task."""
    columns = ("task", "source", "questions", "wanted", "pictures", "candidates", "answers", "letters", "categories")
    rows = [
        (
            *(one.task, one.source, one.questions, "all" if one.wanted is None else one.wanted, one.pictures),
            *(one.candidates, counts(one.answers), counts(one.letters), len(one.categories)),
        )
        for one in summary.tasks
    ]
    return table(columns, rows)


def sources_table(summary: BenchmarkSummary) -> str:
    """What was read."""
    columns = ("source", "data set", "file", "part", "pictures", "things")
    return table(columns, [(f.source, f.dataset, f.name, f.part, f.pictures, f.things) for f in summary.files])


def rules_sections(rules: Mapping[str, Rules]) -> list[str]:
    """The rules with their values and reasons, and those that no option changes."""
    sections = []
    for name, held in rules.items():
        rows = [(f"`{entry.name}`", shown(entry.value), entry.reason) for entry in entries(held)]
        sections += [f"## Rules for {name}\n", table(("rule", "value", "what it means, and why"), rows)]
    fixed = [(f"`{name}`", reason) for name, reason in FIXED.items()]
    return [*sections, "Whatever these values are, refused is also:\n", table(("rule", "because"), fixed)]


def rejections_table(summary: BenchmarkSummary) -> str:
    """How often each rule refused something."""
    rows = [
        (one.task, one.source, *key.split(": ", 1), number)
        for one in summary.tasks
        for key, number in one.rejections.items()
    ]
    return table(("task", "source", "refused", "by", "number"), rows)


def left_out_section(summary: BenchmarkSummary) -> list[str]:
    """Annotations that gave no thing, if there are any."""
    rows = [(one.name, reason, number) for one in summary.files for reason, number in one.left_out.items()]
    if not rows:
        return []
    return ["## Annotations left out\n", table(("file", "reason", "number"), rows)]
