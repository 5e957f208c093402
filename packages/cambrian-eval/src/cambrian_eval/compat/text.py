"""The reference's scripts that compare texts: GQA, MME, ScienceQA, OCRBench, TextVQA, VizWiz, SynthDoG.

Two evaluators that the reference ships and never calls, for ST-VQA and ANLS, are here as well.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from cambrian_eval.compat import m4c
from cambrian_eval.compat.reply import announced
from cambrian_eval.compat.rule import Rule, needed, scored
from cambrian_eval.scoring.abstention import AbstainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian_eval.types import Score

HANDWRITTEN = "Handwritten Mathematical Expression Recognition"

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _without_stop(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """GQA and MME: white space and commas count."""
    text = answer.lower().rstrip(".")
    return scored(text == truth.lower(), text, "equal text without full stops")


def _scienceqa(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """The option's text without punctuation, or a letter before the first full stop; "(C)" is neither."""
    text = announced(answer).rstrip(".")
    texts = row.get("text_answer_per_gt")
    wanted = needed(row, "text_answer", "scienceqa") if texts is None else needed(texts, truth, "text_answer_per_gt")
    letter = text.split(".")[0]
    right = _plain(text) == _plain(wanted.lower().strip()) or letter == str(truth).lower().strip()
    return scored(right, text, "option text or letter before the first full stop")


def _plain(text: str) -> str:
    return text.translate(_NO_PUNCTUATION).lower().strip()


def _scienceqa_text(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """A question whose letter is B and whose right option reads `truth`."""
    return _scienceqa(answer, "B", {"text_answer": truth})


def _ocrbench(answer: str, truth: Sequence[str], row: Mapping[str, Any]) -> Score:
    """The command line looks for the truth anywhere in the reply, "house" in "warehouse" and "" in all of them."""
    handwritten = row.get("category") == HANDWRITTEN
    text = _ocr_text(answer, handwritten)
    wanted = [_ocr_text(one, handwritten) for one in truth]
    if row.get("extra_penalization", False):
        return scored(text in wanted, text, "equal text")
    return scored(any(one in text for one in wanted), text, "text contained")


def _ocr_text(text: str, handwritten: bool) -> str:
    if handwritten:
        return text.strip().replace("\n", " ").replace(" ", "")
    return text.lower().strip().replace("\n", " ")


def _soft_accuracy(answer: str, truth: Sequence[str], _row: Mapping[str, Any]) -> Score:
    """TextVQA and VizWiz: agreement with ten annotators."""
    text = m4c.normalise(answer.lower())
    return scored(m4c.soft_accuracy(text, [one.lower() for one in truth]), text, "soft accuracy (m4c)")


def _one_of(answer: str, truth: Sequence[str], _row: Mapping[str, Any]) -> Score:
    """Shipped for ST-VQA, never called."""
    text = m4c.normalise(answer)
    return scored(text in map(m4c.normalise, truth), text, "one of the answers (m4c)")


def _anls(answer: str, truth: Sequence[str], _row: Mapping[str, Any]) -> Score:
    """Shipped for ST-VQA, never called: DocVQA, InfoVQA and ST-VQA only write files for their servers."""
    text = answer.lower().strip()
    if not truth:
        raise AbstainError("the original crashes where there is no truth")
    return scored(max(_similarity(text, one.lower().strip()) for one in truth), text, "anls")


def _similarity(text: str, wanted: str) -> float:
    if not text and not wanted:
        raise AbstainError("the original crashes where reply and truth are empty")
    similarity = 1 - edit_distance(text, wanted) / max(len(text), len(wanted))
    return similarity if similarity >= 0.5 else 0.0


def _synthdog(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """Right within `distance` edits (0 unless the row says otherwise)."""
    limit = row.get("distance", 0)
    text = answer.lower().strip()
    return scored(edit_distance(text, truth.lower().strip()) <= limit, text, f"within {limit} edits")


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements that turn one text into the other."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(one, other)


TEXT: dict[str, Rule] = {
    "gqa": _without_stop,
    "mme": _without_stop,
    "scienceqa": _scienceqa,
    "scienceqa_text": _scienceqa_text,
    "ocrbench": _ocrbench,
    "textvqa": _soft_accuracy,
    "vizwiz": _soft_accuracy,
    "m4c_stvqa_accuracy_bundled_but_unused": _one_of,
    "anls_bundled_evaluator": _anls,
    "synthdog": _synthdog,
}
