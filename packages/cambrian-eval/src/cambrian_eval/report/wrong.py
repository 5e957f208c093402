"""Cards of answers that are not wholly right, with what was shown and how it was read: unread replies first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.report.page import own, text
from cambrian_eval.report.thumbnails import Thumbnails

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cambrian_eval.types import ScoredAnswer

MAX_SHOWN = 60
MAX_REPLY = 600
MAX_PROMPT = 1500
MAX_PICTURES = 8


def pick_wrong(answers: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """Answers worth less than 1, those that were not read first; in turn from each task, so that none hides another."""
    wrong = [answer for answer in answers if answer.score.value is not None and answer.score.value < 1]
    return [
        *_in_turn(answer for answer in wrong if answer.score.extracted is None),
        *_in_turn(answer for answer in wrong if answer.score.extracted is not None),
    ]


def cards(answers: Iterable[ScoredAnswer]) -> str:
    """A card for each."""
    thumbnails = Thumbnails()
    return f'<div class="cards">{"".join(_card(answer, thumbnails) for answer in answers)}</div>'


def shorten(value: str, most: int) -> str:
    """The beginning of a text, saying how much is left out."""
    return value if len(value) <= most else f"{value[:most]} ... ({len(value) - most:,} more characters)"


def _in_turn(answers: Iterable[ScoredAnswer]) -> Iterator[ScoredAnswer]:
    tasks: dict[tuple[str, str, str], list[ScoredAnswer]] = {}
    for answer in answers:
        tasks.setdefault(answer.question.stratum, []).append(answer)
    for place in range(max(map(len, tasks.values()), default=0)):
        yield from (group[place] for group in tasks.values() if place < len(group))


def _card(answer: ScoredAnswer, thumbnails: Thumbnails) -> str:
    question, score = answer.question, answer.score
    pictures = answer.prompt.pictures
    shown = [
        thumbnails.show(picture, f"Picture {number} of {len(pictures)} of question {question.id}")
        for number, picture in enumerate(pictures[:MAX_PICTURES], start=1)
    ]
    more = len(pictures) - len(shown)
    badge = '<span class="badge">not read</span> ' if score.extracted is None else ""
    told = " | ".join(filter(None, (question.id, question.part, question.task, question.source, question.group)))
    return (
        '<article class="card">'
        + "".join(shown)
        + (f'<p class="faint">and {more} more pictures</p>' if more > 0 else "")
        + f"<pre>{text(shorten(answer.prompt.text, MAX_PROMPT))}</pre>"
        + f'<pre class="reply">{text(shorten(answer.answer.text, MAX_REPLY)) or "(empty)"}</pre>'
        + f"<p>{badge}{_reading(answer)}</p>"
        + f'<p class="faint">{own(score.rule)}<br>{own(told)}</p></article>'
    )


def _reading(answer: ScoredAnswer) -> str:
    question, score = answer.question, answer.score
    read = "nothing" if score.extracted is None else _option(question.choices, score.extracted)
    right = " or ".join(dict.fromkeys(_option(question.choices, truth) for truth in question.answers))
    partly = f", worth {score.value:.2f}" if score.value else ""
    return (
        f'read <b class="bad">{own(shorten(read, MAX_REPLY))}</b>{partly}, '
        f'right is <b class="good">{own(shorten(right, MAX_REPLY))}</b>'
    )


def _option(choices: Sequence[str], letter: str) -> str:
    """A letter with what it stands for."""
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    return f"{letter} ({choices[place]})" if 0 <= place < len(choices) else letter
