"""The benchmark as a whole: counts of the manifest, caps, balance, and nothing asked twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.support.cvbench_oracle.built import Built, right
from tests.support.cvbench_oracle.raw import Picture, Thing, shown_name
from tests.support.cvbench_oracle.violations import Violation
from tests.support.cvbench_oracle.wording import Asked

GROUPS = {
    "Relation": (("left", "right"), ("above", "below")),
    "Depth": (("red", "blue"),),
    "Distance": (("blue", "green"),),
}


class Judged(NamedTuple):
    """A question whose things are known.

    Attributes:
        row: of the table.
        asked: what its words say.
        things: that it is about.
        picture: that it is about.
    """

    row: dict[str, Any]
    asked: Asked
    things: list[Thing]
    picture: Picture

    @property
    def answer(self) -> str:
        """A number, a side, or the colour of the box of the right thing."""
        text = str(right(self.row))
        if self.row["type"] == "2D":
            return text
        offered = self.asked.named if self.row["task"] == "Depth" else self.asked.named[1:]
        return next((str(named.colour) for named in offered if named.name == text), text)

    @property
    def category(self) -> str:
        """What is counted, or the category of the thing named first."""
        return self.row["target_class"] if self.row["task"] == "Count" else self.things[0].name

    @property
    def fact(self) -> tuple[object, ...]:
        """What is asked, whichever of two things is named first and whatever the order of the choices."""
        ids = [thing.id for thing in self.things]
        where = (self.picture.source, self.picture.file_name)
        if self.row["task"] == "Count":
            return (*where, self.category)
        if self.row["task"] == "Distance":
            return (*where, ids[0], frozenset(ids[1:]))
        return (
            *where,
            self.row["task"],
            frozenset(ids),
            frozenset(self.row["choices"] if self.row["type"] == "2D" else ()),
        )


def check(built: Built, judged: list[Judged], pictures: list[Picture]) -> list[Violation]:
    """Everything that only the whole benchmark can tell."""
    groups = defaultdict(list)
    for one in judged:
        groups[one.row["task"], one.row["source"]].append(one)
    found = check_facts(judged) + check_files(built, pictures)
    for (task, source), questions in groups.items():
        rules = built.rules(source)[task.lower()]
        found += [
            Violation(None, rule, f"{task} of {source}: {text}") for rule, text in group_faults(task, questions, rules)
        ]
    return found + check_summary(built, groups) + check_refusals(built, pictures)


def check_facts(judged: list[Judged]) -> list[Violation]:
    """Nothing is asked twice."""
    seen: dict[tuple[object, ...], int] = {}
    found = []
    for one in judged:
        first = seen.setdefault(one.fact, one.row["idx"])
        if first != one.row["idx"]:
            found.append(Violation(one.row["idx"], "fact", f"asks what {first} asks"))
    return found


def group_faults(task: str, questions: list[Judged], rules: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Caps and balance of the questions of one task and source."""
    for rule, keys in (
        ("per_picture", [one.picture.file_name for one in questions]),
        ("per_category", [one.category for one in questions]),
    ):
        most = rules.get(rule)
        over = {key: number for key, number in Counter(keys).items() if most is not None and number > most}
        if over:
            yield rule, f"{over}; expected {most} at most"
    num_letters = max(len(one.row["choices"]) for one in questions)
    letters = Counter(one.row["answer"] for one in questions)
    if uneven([letters[f"({letter})"] for letter in "ABCDEF"[:num_letters]]):
        yield "letters", f"{dict(letters)}"
    answers = Counter(one.answer for one in questions)
    for group in GROUPS.get(task, ()):
        if uneven([answers[answer] for answer in group]):
            yield "answers", f"{dict(answers)}; expected those of {group} equally often"
    if task == "Count":
        ranks = Counter(sorted(map(int, one.row["choices"])).index(int(one.answer)) for one in questions)
        if uneven([ranks[rank] for rank in range(num_letters)]):
            yield "answers", f"the truth is the smallest choice, the second and so on {sorted(ranks.items())} times"


def uneven(counts: list[int]) -> bool:
    """Whether counts differ by more than the last round of a choice explains."""
    return max(counts) - min(counts) > 1


def check_files(built: Built, pictures: list[Picture]) -> list[Violation]:
    """The manifest's pictures and annotations are those of the files."""
    by_file = defaultdict(list)
    for picture in pictures:
        by_file[picture.file_key, picture.source].append(picture)
    expected = sorted(
        (source, len(group), sum(picture.num_raw for picture in group)) for (_, source), group in by_file.items()
    )
    stated = sorted(
        (one["source"], one["pictures"], one["things"] + sum(one["left_out"].values()))
        for one in built.manifest["summary"]["files"]
    )
    return [] if stated == expected else [Violation(None, "files", f"{stated}; expected {expected}")]


def check_summary(built: Built, groups: dict[tuple[str, str], list[Judged]]) -> list[Violation]:
    """The manifest's counts are those of the rows."""
    summary = built.manifest["summary"]
    found = []
    if summary["num_questions"] != len(built.rows):
        found.append(Violation(None, "summary", f"{summary['num_questions']} questions; there are {len(built.rows)}"))
    stated = {(one["task"], one["source"]): one for one in summary["tasks"] if one["questions"]}
    if stated.keys() != groups.keys():
        found.append(Violation(None, "summary", f"tells of {sorted(stated)}; there are {sorted(groups)}"))
    for key in stated.keys() & groups.keys():
        questions = groups[key]
        expected = {
            "questions": len(questions),
            "pictures": len({one.picture.file_name for one in questions}),
            "answers": Counter(one.answer for one in questions),
            "letters": Counter(one.row["answer"].strip("()") for one in questions),
            "categories": Counter(shown_name(one.category) for one in questions),
        }
        told = stated[key] | {"categories": {shown_name(name): n for name, n in stated[key]["categories"].items()}}
        found += [
            Violation(None, "summary", f"{key}: {name} is {told[name]}; expected {value}")
            for name, value in expected.items()
            if told[name] != value
        ]
    return found


def check_refusals(built: Built, pictures: list[Picture]) -> list[Violation]:
    """Of each task, candidates are either asked or refused; and every crowd is refused a place."""
    found = []
    for one in built.manifest["summary"]["tasks"]:
        refused = {key.partition(": ")[2]: n for key, n in one["rejections"].items() if key.startswith("candidate: ")}
        left = sum(number for rule, number in refused.items() if rule != "pool_per_picture")
        if one["candidates"] != one["questions"] + left:
            text = f"{one['candidates']} candidates; {one['questions']} are asked and {left} refused"
            found.append(Violation(None, "refusals", f"{one['task']} of {one['source']}: {text}"))
        if one["task"] == "Relation":
            things = [thing for picture in pictures if picture.source == one["source"] for thing in picture.things]
            crowds, counted = sum(thing.crowd for thing in things), one["rejections"].get("thing: crowd", 0)
            if crowds != counted:
                found.append(Violation(None, "refusals", f"{counted} crowds; {one['source']} has {crowds}"))
    return found
