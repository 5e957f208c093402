"""Why two runs of one benchmark differ: model, prompt, parser, decoding, data, questions, software.

Everything is told from what the runs left behind: the settings in `run.json`, the versions in `metrics.json`, and the
answers, which show how many prompts, readings or truths really differ and one of each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cambrian_eval.types import ScoredAnswer

Kind = Literal["model", "prompt", "parser", "decoding", "data", "questions", "software", "other"]
Pair = tuple["ScoredAnswer", "ScoredAnswer"]

# What of `run.json` speaks for itself. Hashes of prompts are left to the prompts.
_SETTINGS: dict[str, tuple[Kind, str]] = {
    "model": ("model", "name"),
    "model_fingerprint": ("model", "fingerprint (weights, processor or code)"),
    "prompt": ("prompt", "form"),
    "permute": ("prompt", "orders of the options"),
    "compat": ("parser", "tool whose prompt and parser are used"),
    "rescored": ("parser", "rules with which replies were read again"),
    "task_version": ("parser", "version of the task"),
    "max_new_tokens": ("decoding", "cap on new tokens"),
    "scoring": ("decoding", "what is scored"),
    "split": ("data", "split"),
    "mode": ("data", "pictures shown"),
    "data_sha256": ("data", "hash of the questions"),
    "limit": ("questions", "limit"),
    "ids": ("questions", "ids"),
    "seed": ("questions", "seed"),
}
_SILENT = frozenset({"task", "prompts_sha256", "verify_batching"})
_SHOWN = 160
_HASH = re.compile(r"\b[0-9a-f]{32,}\b")


@dataclass(frozen=True)
class Reason:
    """One thing that differs.

    Attributes:
        kind: What it is about.
        text: What people read.
        num: Number of shared questions it was seen on; None for a setting.
        example: One of them: id, and both sides.
    """

    kind: Kind
    text: str
    num: int | None = None
    example: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def explain(
    identities: tuple[Mapping[str, Any], Mapping[str, Any]],
    provenances: tuple[Mapping[str, Any], Mapping[str, Any]],
    pairs: Sequence[Pair],
) -> list[Reason]:
    """All that differs between two runs, by kind.

    Args:
        identities: Their `run.json`.
        provenances: What their `metrics.json` says of data, versions and hardware; empty where there is none.
        pairs: Their answers to the shared questions.
    """
    found = [*_settings(*identities), *_samples(pairs), *_surroundings(*provenances)]
    return sorted(found, key=lambda reason: get_args(Kind).index(reason.kind))


def cause(pair: Pair) -> str:
    """What a flip comes with: the first of truth, reading, truncation, prompt, pictures and scoring that differs."""
    first, second = pair
    if set(first.question.answers) != set(second.question.answers):
        return "other truth"
    if first.answer.text == second.answer.text:
        return "same reply, read differently"
    if first.answer.truncated != second.answer.truncated:
        return "truncated in one run"
    if _prompt(first) != _prompt(second):
        return "other prompt"
    if _pictures(first) != _pictures(second):
        return "other pictures"
    if bool(first.answer.option_scores) != bool(second.answer.option_scores):
        return "letters scored in one run"
    return "other reply to the same prompt"


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Reason]:
    for name in sorted({*first, *second} - _SILENT):
        here, there = first.get(name), second.get(name)
        if here != there:
            kind, label = _SETTINGS.get(name, ("other", name))
            yield Reason(kind, f"{label}: {_show(here)} against {_show(there)}")


def _samples(pairs: Sequence[Pair]) -> Iterator[Reason]:
    yield from _prompts(pairs)
    yield from _differing(pairs, "prompt", "pictures differ", _pictures)
    yield from _readings(pairs)
    yield from _differing(pairs, "decoding", "budgets of new tokens differ", lambda a: str(a.prompt.max_new_tokens))
    truncated = [sum(pair[side].answer.truncated for pair in pairs) for side in (0, 1)]
    if truncated[0] != truncated[1]:
        yield Reason(
            "decoding", f"replies cut off by the budget: {truncated[0]} against {truncated[1]}", max(truncated)
        )
    yield from _differing(pairs, "data", "truths differ", lambda a: " | ".join(a.question.answers))
    yield from _differing(pairs, "data", "options differ", lambda a: " | ".join(a.question.choices))


def _prompts(pairs: Sequence[Pair]) -> Iterator[Reason]:
    changed = [pair for pair in pairs if _prompt(pair[0]) != _prompt(pair[1])]
    if not changed:
        return
    instructions = Counter((first.prompt.instruction, second.prompt.instruction) for first, second in changed)
    (here, there), _ = instructions.most_common(1)[0]
    only = all(_without_instruction(first) == _without_instruction(second) for first, second in changed)
    what = f"; only the format instruction: {_show(here)} against {_show(there)}" if only and here != there else ""
    yield Reason("prompt", f"texts differ on {_of(changed, pairs)}{what}", len(changed), _example(changed[0], _prompt))


def _readings(pairs: Sequence[Pair]) -> Iterator[Reason]:
    same = [pair for pair in pairs if pair[0].answer.text == pair[1].answer.text]
    changed = [pair for pair in same if pair[0].score != pair[1].score]
    if changed:
        text = f"of {len(same)} replies that are equal in both runs, {len(changed)} are read differently"
        yield Reason("parser", text, len(changed), _example(changed[0], _reading))


def _differing(pairs: Sequence[Pair], kind: Kind, what: str, look: Callable[[ScoredAnswer], str]) -> Iterator[Reason]:
    changed = [pair for pair in pairs if look(pair[0]) != look(pair[1])]
    if changed:
        yield Reason(kind, f"{what} on {_of(changed, pairs)}", len(changed), _example(changed[0], look))


def _surroundings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Reason]:
    """Where the data came from, and on what it ran."""
    sections: tuple[tuple[str, Kind], ...] = (("data", "data"), ("versions", "software"), ("hardware", "software"))
    for section, kind in sections:
        here, there = first.get(section) or {}, second.get(section) or {}
        if bool(here) != bool(there):
            yield Reason(kind, f"{section}: known of the {'first' if here else 'second'} run only")
            continue
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                yield Reason(kind, f"{name}: {_show(here.get(name))} against {_show(there.get(name))}")


def _prompt(answer: ScoredAnswer) -> str:
    return answer.prompt.text


def _without_instruction(answer: ScoredAnswer) -> str:
    return answer.prompt.text.removesuffix(answer.prompt.instruction).rstrip("\n")


def _pictures(answer: ScoredAnswer) -> str:
    return ", ".join(picture.sha256[:12] for picture in answer.prompt.pictures) or "none"


def _reading(answer: ScoredAnswer) -> str:
    score = answer.score
    return f"{_show(answer.answer.text)} read as {_show(score.extracted)} by {score.rule}, worth {score.value}"


def _example(pair: Pair, look: Callable[[ScoredAnswer], str]) -> dict[str, str]:
    return {"id": pair[0].question.id, "first": look(pair[0]), "second": look(pair[1])}


def _of(changed: Sequence[Pair], pairs: Sequence[Pair]) -> str:
    return f"{len(changed)} of {len(pairs)} shared questions"


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {_show(held)}" for name, held in value.items())
    text = "none" if value is None else repr(value) if isinstance(value, str) and not value.strip() else str(value)
    text = _HASH.sub(lambda found: found[0][:12], text.replace("\n", "\\n"))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
