"""Option texts inside replies: equal to one, or naming exactly one."""

from __future__ import annotations

import re
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError

if TYPE_CHECKING:
    from collections.abc import Sequence

# "-3", "2.5", then "3D" and "1.2.3" as one word each, so that they are not the number 3 or 1.
_WORD = re.compile(r"-?\d++(?:\.\d++)?+(?![^\W_])|\d[\w.]*|[^\W_]+")
_ARTICLE = re.compile(r"[\"'\s]*(?:the|an?)\s+\w", re.IGNORECASE)
_NEVER_AFTER_A = {"left", "right", "above", "below", "under", "behind", "yes", "no", "true", "false"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}

_CONTRARY = re.compile(
    r"n't\b|\b(?:not|no|none|never|neither|nor|cannot|or|either|if|unless|whether|than|except|instead|unlike|without"
    r"|unclear|unsure|wrong|incorrect|false|behind|away|farther|further|farthest|furthest|distant|least|more|less"
    r"|fewer|about|around|approximately|almost|might|maybe|perhaps|could|between|far(?!\s+(?:left|right))|background"
    r"|back|missing|hidden|hundred|thousand|dozen|opposite|thought|ruled\s+out|used\s+to"
    r"|(?:anything|everything)\s+but|one\s+of|\d+\s+(?:m|cm|km|ft|feet|met(?:er|re)s?))\b|\?",
    re.IGNORECASE,
)
# "right", "left", "above" and "below" as other words than those of a place.
_NO_PLACE = re.compile(
    r"""
      \bright\s+(?: above | below | under | underneath | over | beside | next | in | on | at | by | here | there
        | now | after | before )\b
    | \b(?: that | is )\s+right\s*,
    | \b(?: you're | you\s+are | that's | that\s+is | all )\s+right\b
    | \Aright\s*[,!]
    | \b(?: of\s+the | see | as | image | picture | photo | mentioned | stated | shown | described | given | listed
        | explained )\s+(?:above|below)\b
    | \b(?:above|below)\s+(?: is | are | image | picture | photo )\b
    | \bexplanation\b
    | \bthe\s+right\s+to\s+(?!the\b|its\b|your\b)\w
    | \b(?: he | she | they | you )(?: \s+(?:is|are) | 's | 're )\s+right\b(?!\s*(?:of|-|hand|side))
    | \b(?: he | she | they | who | man | woman | person | people | boy | girl )\s+left\b(?!\s+(?:of|side|hand))
    | \b(?: has | have | had | nothing | anything | what's | what\s+is )\s+left\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_COUNTED = re.compile(
    r"\b(?:there\s+(?:is|are)|i\s+(?:can\s+)?(?:see|count)|total\s+(?:of|is)|number\s+of\s+[^.,;:]{1,60}\s+is)"
    r"\s+(?:\w+\s+)?\Z",
    re.IGNORECASE,
)
# "cat-like" is no cat and "orange-red" no red; "right-hand" is right.
_COMPOUND = r"(?<=[^\W\d_]-){0}\b|\b{1}-(?!hand|side|most)[^\W\d_]"
_MENTION_WORDS = 30
_NUMBER_AND_NOUN = 3


def words_of(text: str) -> list[str]:
    """Lower-case words, number words as digits."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [_DIGITS.get(word, word) for word in found]


def equal_option(text: str, choices: Sequence[str]) -> int | None:
    """Index of the option that `text` spells, whatever its case, punctuation and article.

    Raises:
        AbstainError: Two options have this text. Even where the right one is among them, the model has not said which.
    """
    wanted = _bare_words(text)
    if not wanted:
        return None
    equal = [index for index, choice in enumerate(choices) if _bare_words(choice) == wanted]
    if len(equal) > 1:
        raise AbstainError("text of two options")
    return equal[0] if equal else None


def after_option(text: str, choice: str) -> str | None:
    """What follows the option's words in a text that begins with them; None if it begins with something else."""
    wanted = _bare_words(choice)
    article = len(words_of(text)) - len(_bare_words(text))
    words = list(islice(_WORD.finditer(text), article + len(wanted)))
    said = [words_of(word[0]) for word in words[article:]]
    return text[words[-1].end() :] if wanted and said == [[word] for word in wanted] else None


def takes_article(choice: str) -> bool:
    """Whether "a" before the option's text may be an article: "a cat", but not "a left", "a 3" or "a the cat"."""
    words = words_of(choice)
    article = bool(_ARTICLE.match(choice)) and len(words) > 1
    return bool(words) and not article and words[0].isalpha() and words[0] not in _NEVER_AFTER_A


def mentioned_option(text: str, choices: Sequence[str], *, declared: bool = False) -> int | None:
    """Index of the only option that a short plain statement names.

    Statements that deny, compare or doubt are left alone, since naming an option there need not mean choosing it. A
    number counts only where it is counted ("there are 3"), unless `declared` says that an answer was announced.
    """
    words = words_of(text)
    if len(words) > _MENTION_WORDS or _CONTRARY.search(text) or _NO_PLACE.search(text):
        return None
    if words[:1] == ["a"] and _NEVER_AFTER_A.intersection(words[1:2]):
        return None
    spans = _mentions(words, choices)
    named = {index for index, _, _ in spans}
    if len(named) != 1:
        return None
    index = named.pop()
    return index if _is_fair_mention(text, choices[index], declared=declared) else None


def _is_fair_mention(text: str, choice: str, *, declared: bool) -> bool:
    bare = _bare_words(choice)
    if len(bare) == 1 and len(bare[0]) == 1 and bare[0].isalpha():
        return False
    if bare and re.search(_COMPOUND.format(re.escape(bare[0]), re.escape(bare[-1])), text, re.IGNORECASE):
        return False
    if not any(word.lstrip("-").replace(".", "").isdigit() for word in bare):
        return True
    numbers = [word for word in words_of(text) if word.lstrip("-").replace(".", "").isdigit()]
    if len(numbers) != 1 or len(bare) != 1:
        return False
    if declared:
        return True
    first = next(match for match in _WORD.finditer(text) if _DIGITS.get(match[0].casefold(), match[0]) == bare[0])
    before = text[: first.start()]
    return bool(_COUNTED.search(before)) or (not before.strip() and len(words_of(text)) <= _NUMBER_AND_NOUN)


def _mentions(words: list[str], choices: Sequence[str]) -> list[tuple[int, int, int]]:
    spans = []
    for index, choice in enumerate(choices):
        wanted = _bare_words(choice)
        size = len(wanted)
        if size:
            spans += [(index, at, at + size) for at in range(len(words)) if words[at : at + size] == wanted]
    return [span for span in spans if not any(_lies_inside(span, other) for other in spans)]


def _lies_inside(span: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    longer = other[2] - other[1] > span[2] - span[1]
    return longer and other[1] <= span[1] and span[2] <= other[2]


def _bare_words(text: str) -> list[str]:
    """The words without an article. In "(A) bus" and "A left" the first word is a label, not an article."""
    words = words_of(text)
    if len(words) < 2 or not _ARTICLE.match(text):
        return words
    return words if words[0] == "a" and (words[1] in _NEVER_AFTER_A or words[1].isdigit()) else words[1:]
