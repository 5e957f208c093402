"""All checks of a built folder against the annotations that it was made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.cvbench_oracle import answers, built, drawing, raw, records, seen, subjects, tally, wording
from tests.support.cvbench_oracle.raw import Picture, Source, Thing
from tests.support.cvbench_oracle.violations import Violation

RULES = {
    "count": {"seen", "num_choices", "max_count", "absent_per_picture", "per_picture", "per_category"},
    "relation": {"seen", "margin", "max_overlap", "draw_boxes", "per_picture", "per_category", "pool_per_picture"},
    "depth": {"seen", "margin", "max_overlap", "max_covered", "only_unique", "per_picture", "per_category"}
    | {"pool_per_picture"},
}
RULES["distance"] = RULES["depth"]
ASK = {"Relation": answers.relation, "Depth": answers.depth, "Distance": answers.distance}
Faults = list[tuple[str, str]]


def judge(folder: Path, sources: Sequence[Source]) -> list[Violation]:
    """Everything in a built folder that the annotations or the stated rules do not bear out.

    Args:
        folder: of the benchmark.
        sources: all that it was made from.
    """
    written = built.read(folder)
    pictures = raw.read(list(sources))
    by_name = {(picture.source, picture.file_name): picture for picture in pictures}
    found = check_rules(written) + records.check_numbers(written) + records.check_tables(written)
    judged = []
    for row in written.rows:
        picture = by_name.get((row["source"], row["source_filename"]))
        if picture is None:
            found.append(Violation(row["idx"], "source_filename", f"no {row['source_filename']} in {row['source']}"))
            continue
        question, faults = judge_row(row, picture, written)
        found += [Violation(row["idx"], rule, text) for rule, text in faults]
        judged += [question] if question is not None else []
    return found + tally.check(written, judged, pictures)


def check_rules(written: built.Built) -> list[Violation]:
    """The judge knows every rule that was applied; else it would pass over a new one in silence."""
    found = []
    for kind, groups in written.manifest["request"]["rules"].items():
        for task, known in RULES.items():
            new = (set(groups[task]) - known) | (set(groups[task]["seen"]) - seen.ANSWERED)
            found += [
                Violation(None, "rules", f"{kind}: the judge does not know {task}.{name}") for name in sorted(new)
            ]
    return found


def judge_row(row: dict[str, Any], picture: Picture, written: built.Built) -> tuple[tally.Judged | None, Faults]:
    """What is wrong with one question, and what it is about if that is sure."""
    faults = records.row_faults(row)
    if {rule for rule, _ in faults} & {"choices", "letter"}:
        return None, faults
    asked = wording.read(row["task"], row["question"])
    if asked is None:
        return None, [*faults, ("wording", row["question"])]
    drawn = drawing.compare(records.open_picture(written, row), picture)
    if drawn is None:
        return None, [*faults, ("picture", "it has not the size of the original")]
    if drawn.stray:
        faults.append(("picture", f"{drawn.stray} pixels were changed to no colour of a box"))
    rules = written.rules(row["source"])[row["task"].lower()]
    things, answer, against = ask(row, asked, picture, drawn, rules)
    faults += against
    if answer is None:
        return None, faults
    if built.right(row) != answer:
        faults.append(("answer", f"{row['answer']} {built.right(row)}; expected {answer}"))
    faults += records.geometry_faults(row, written.geometry[row["idx"]], things, picture)
    faults += records.bbox_faults(row, things)
    if row["task"] == "Count" and any(rule == "choices" for rule, _ in faults):
        return None, faults
    return tally.Judged(row, asked, things, picture), faults


def ask(
    row: dict[str, Any], asked: wording.Asked, picture: Picture, drawn: drawing.Drawing, rules: dict[str, Any]
) -> tuple[list[Thing], str | None, Faults]:
    """The things of a question, its right answer, None if that is not sure, and what stands against asking it."""
    if row["task"] == "Count":
        faults = [("drawn", f"a {colour} box in a count") for colour, mask in drawn.masks.items() if mask.any()]
        answer, against = answers.count(row, asked.named[0].name, picture, rules)
        things = [thing for thing in picture.things if thing.name == row["target_class"] and not thing.part]
        return things, answer, faults + against
    things, faults = subjects.find(asked, picture, drawn)
    if not things:
        return [], None, faults
    if row["task"] == "Relation" and (asked.verb == "are") != wording.are_several(asked.named[0].name):
        faults.append(("wording", f"{asked.verb} of {asked.named[0].name}"))
    answer, against = ASK[row["task"]](row, things, picture, rules)
    for thing in things:
        faults += [(f"seen.{rule}", text) for rule, text in seen.faults(thing, picture, rules["seen"])]
    return things, answer, faults + against
