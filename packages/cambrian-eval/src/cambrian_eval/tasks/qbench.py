"""Q-Bench (LLVisionQA): low-level vision, such as blur, noise and light; questions with two to four options.

Source: teowu/LLVisionQA-QBench on the hub; Q-Bench (arXiv 2309.14181).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval import metrics, suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.picture import Album, is_file
from cambrian_eval.prompts import ask, options
from cambrian_eval.published_table import check_split
from cambrian_eval.rows import Row
from cambrian_eval.scoring.letters import extract_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question, Score

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.picture import Picture
    from cambrian_eval.types import Prompt, ScoredAnswer

FIELDS = ("question", "candidates", "correct_ans", "img_path")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 1495
ARCHIVE = "images_llvisionqa.tar"
FOLDERS = ("images", "images_llvisionqa", "")
TYPES = ("yes or no", "what", "how")
CONCERNS = ("distortion", "other", "in-context distortion", "in-context other")
"""The kinds of question and what they are about, by the numbers that the published file has for them."""


def read_questions(folder: Path, split: str = "dev") -> list[Question]:
    """Read the published JSON with the pictures of its folder or of its archive, or one table that holds both.

    Raises:
        DataError: A file, a field or a picture is missing, or the right answer is none of the candidates.
    """
    table = folder / f"llvisionqa_{split}.json"
    if not table.is_file():
        check_split(folder, table.name, split)
        fields = (*FIELDS[:3], "image")
        rows = read_split(folder, split, fields, optional=("type", "concern", "file_name"))
        return unique(folder, (_question(row, number, row.picture("image")) for number, row in enumerate(rows)))
    found = list(_json_rows(table))
    packed = _unpack(folder, {row.text("img_path") for row in found})
    return unique(folder, (_question(row, number, _picture(row, folder, packed)) for number, row in enumerate(found)))


def render(question: Question) -> Prompt:
    """The options below the question, then the instruction to answer with only the letter."""
    return ask(question, suffixes.LETTER_ONLY, MAX_NEW_TOKENS)


def score(question: Question, reply: str) -> Score:
    """The letter rule. The data gives the right text and not its letter, so an equal text under another is right."""
    found = extract_letter(reply, question.choices)
    texts = dict(zip(ascii_uppercase, question.choices, strict=False))
    right = found.letter is not None and texts[found.letter] == texts[question.answers[0]]
    return Score(float(right), found.letter, found.rule)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions; by kind of question and by what it is about."""
    return sized(metrics.measure(answers, label="Q-Bench"), NUM_QUESTIONS)


# Reading.


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON ({error}); a list of objects is expected.") from error
    if not isinstance(found, list) or not found:
        kind = "an empty list" if found == [] else type(found).__name__
        raise DataError(f"{path.name}: found {kind}, expected a list of at least one question.")
    album = Album(path.parent)
    for number, values in enumerate(found, start=1):
        yield Row(f"{path.name}:{number}", _checked(values, f"{path.name}:{number}"), album)


def _checked(values: Any, place: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise DataError(f"{place}: found {type(values).__name__}, expected an object with named fields.")
    missing = [name for name in FIELDS if name not in values]
    if missing:
        raise DataError(
            f"{place}: missing field {', '.join(map(repr, missing))}; found: {', '.join(values)}; "
            f"needed: {', '.join(FIELDS)}. Add the field or use the published data."
        )
    return {"type": None, "concern": None, **values}


def _unpack(folder: Path, names: set[str]) -> Mapping[str, bytes]:
    """The named pictures of the archive, in memory: nothing is written into a folder that may be a shared cache."""
    archive = folder / ARCHIVE
    if any((folder / name).is_dir() for name in FOLDERS if name) or not archive.is_file():
        return {}
    import tarfile

    found = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in names:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{ARCHIVE}: cannot be read as a tar archive ({error}). Download it again.") from error
    return found


def _picture(row: Row, folder: Path, packed: Mapping[str, bytes]) -> Picture:
    name = row.text("img_path")
    if name in packed:
        return row.album.embedded(name, packed[name])
    inside = next((f"{base}/{name}" for base in FOLDERS if base and is_file(folder / base / name)), name)
    return row.album.file(inside, row.place)


def _question(row: Row, number: int, picture: Picture) -> Question:
    choices = row.choices("candidates")
    right = row.text("correct_ans")
    if right not in choices:
        raise row.error("correct_ans", f"one of the candidates: {', '.join(choices)}")
    return Question(
        id=str(number),
        text=f"{row.text('question')} Options:\n{options(choices)}",
        choices=choices,
        answers=(ascii_uppercase[choices.index(right)],),
        pictures=(picture,),
        part="Q-Bench",
        task=_named(row, "type", TYPES),
        source=_named(row, "concern", CONCERNS),
        group=picture.sha256,
    )


def _named(row: Row, field: str, names: Sequence[str]) -> str:
    """The name of a kind; empty where the data does not tell it."""
    number = row.optional_number(field)
    if number is None:
        return ""
    if number not in range(len(names)):
        raise row.error(field, f"a whole number from 0 to {len(names) - 1}")
    return names[int(number)]


TASK = Task(
    name="qbench",
    version=1,
    description=f"Q-Bench: low-level vision, {NUM_QUESTIONS} questions",
    # The commit as the hub's pages show it.
    hub=HubDataset(
        "teowu/LLVisionQA-QBench",
        ("llvisionqa_{split}.json", ARCHIVE),
        revision="df96e9f1c702561154ba0ae80e3c95de3808814f",
    ),
    questions=read_questions,
    prompt=render,
    score=score,
    metrics=measure,
    splits=("dev",),
    fields=FIELDS,
    rule="letter",
    headline="accuracy, %",
    num_questions=NUM_QUESTIONS,
)
