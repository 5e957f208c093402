r"""Numbers as people write them: "$1,234.5", "12 %", "3.2 million", "1.2e-3", "3/4", "\frac{3}{4}", "seven apples"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cambrian_eval.scoring.unwrapping import plain_characters

MOST_CHARACTERS = 120
"""No quantity is written in more."""


@dataclass(frozen=True)
class Quantity:
    """A number and what stood beside it.

    Attributes:
        value: The number itself.
        scale: What a percent sign or a word such as "million" multiplies it with; 1 without one.
        unit: The words behind it, lower case; empty if there are none.
    """

    value: float
    scale: float = 1.0
    unit: str = ""

    def equals(self, other: Quantity, same: Tolerance) -> bool:
        """Whether this is what `other` asks for.

        A scale on one side only is the scale of a chart's axis or of the question: "12 %" and "12 million" answer a
        question whose accepted answer is 12, and so they do if it is 0.12 or 12,000,000.
        """
        if same.holds(self.value * self.scale, other.value * other.scale):
            return True
        one_sided = (self.scale == 1) != (other.scale == 1)
        return one_sided and same.holds(self.value, other.value)


@dataclass(frozen=True)
class Tolerance:
    """How far a number may lie from the accepted one.

    Attributes:
        relative: Share of the accepted number.
        decimals: Both are first rounded to so many decimals; None for no rounding.
    """

    relative: float = 0.0
    decimals: int | None = None

    def holds(self, value: float, accepted: float) -> bool:
        """Whether `value` is near enough. An accepted 0 wants 0."""
        if self.decimals is not None:
            value, accepted = round(value, self.decimals), round(accepted, self.decimals)
        allowed = self.relative * abs(accepted)
        # Binary fractions: 2.1 lies 0.10000000000000009 from 2, and is meant to be within 5 %.
        return abs(value - accepted) <= allowed + 1e-9 * max(abs(value), abs(accepted))


_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
WORD_VALUES = {word: float(value) for value, word in enumerate(_WORDS)}
_SCALES = {
    "%": 0.01,
    "percent": 0.01,
    "per cent": 0.01,
    "k": 1e3,
    "thousand": 1e3,
    "m": 1e6,
    "mn": 1e6,
    "million": 1e6,
    "b": 1e9,
    "bn": 1e9,
    "billion": 1e9,
    "trillion": 1e12,
    "\u4e07": 1e4,
    "\u4ebf": 1e8,
}
NUMBER = (
    r"(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?|\.\d++)"  # 1,234.5 or 1234.5 or .5
    r"(?:[eE][-+]?\d{1,3}(?![\w]))?"
)
SIGNED = rf"(?<![\w.,])[-+]?\s?(?:US\$|[$\u20ac\u00a3\u00a5\u20b9])?\s?[-+]?{NUMBER}(?:\s?/\s?{NUMBER})?"
_SCALE = (
    r"(?:\s?%|\s?percent(?:age\s+points?)?\b|\s?per\s+cent\b|\s?(?:thousand|million|billion|trillion)s?\b|\s?(?:mn|bn)\b"
    r"|[kKMB](?!\w)|\s?[\u4e07\u4ebf])"
)
_APPROXIMATELY = (
    r"(?:(?:about|approximately|approx\.?|around|roughly|nearly|almost|exactly|only|just|circa)\s+|[~\u2248=])"
)
_CURRENCY = re.compile(
    r"\s*(?:US\$|[$\u20ac\u00a3\u00a5\u20b9])\s*|\b(?:usd|eur|gbp|inr|rs\.?)\s+(?=[-+]?\d)", re.IGNORECASE
)
# Words behind a number that are no unit: they go on counting ("twenty five", "2 dozen") or name another answer.
_NO_UNIT = (
    r"or|and|not|is|are|was|were|isn't|cannot|can't|to|of|out|nor|versus|vs|than|point|plus|minus|times|half|squared|cubed|pi|\u03c0|[xyzi]|per\s+cent"
    r"|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|dozens?"
    r"|thirds?|quarters?|fourths?|fifths?|tenths?|" + "|".join(_WORDS)
)
_UNIT_WORD = rf"(?:(?!(?:{_NO_UNIT})\b)[^\W\d_][\w\u00b0/^'\u00b7.-]*|\u00b0\w?|[^\W\d_]{{1,4}}/[^\W\d_]{{1,4}})"
_UNIT = rf"(?:\s?{_UNIT_WORD}(?:\s(?:of\s)?{_UNIT_WORD}){{0,3}})?"
_WHOLE = re.compile(
    rf"{_APPROXIMATELY}*\s*(?P<sign>[-+]?)\s*"
    rf"(?:(?P<number>{NUMBER})(?:\s?/\s?(?P<divisor>{NUMBER}))?|(?P<word>(?:{'|'.join(_WORDS)})\b))"
    rf"(?P<scale>{_SCALE})?(?P<unit>{_UNIT})\s*[.!]?\s*",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(?:\\[dt]?frac)\s*\{\s*(-?[\d.]+)\s*\}\s*\{\s*([\d.]+)\s*\}")
_POWER = re.compile(r"(?<=\d)\s*(?:\u00d7|x|\*|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\s*(-?\d{1,3})\s*\}?")
_TEX = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}|\\[,;!: ]|\\left|\\right|\^\s*\{?\\circ\}?|\\degree")
_SPACED = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d])(?=\.\d|\D|$)")


def plain_numbers(text: str) -> str:
    """Text with every number in one form: TeX fractions, powers of ten, odd minus signs and escapes written plainly."""
    plain = plain_characters(text).replace("\u2212", "-").replace("\u2044", "/").replace("\\%", "%").replace("\\$", "$")
    plain = _FRACTION.sub(r"\1/\2", plain)
    plain = _TEX.sub(lambda match: f" {match[1]}" if match[1] else "", plain)
    return _POWER.sub(r"e\1", plain)


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that a text consists of; None if it is anything else, or more than one number."""
    written = text.strip()
    if len(written) > MOST_CHARACTERS:
        return None
    plain = _CURRENCY.sub("", plain_numbers(written).strip().strip("\"'$`() "))
    plain = _SPACED.sub(lambda match: match[0].replace(" ", ""), plain)
    match = _WHOLE.fullmatch(plain)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    written = (match["scale"] or "").strip()
    scale = _SCALES[_scale_key(written)] if written else 1.0
    return Quantity(value, scale, match["unit"].strip().casefold().rstrip("."))


def _value(match: re.Match[str]) -> float | None:
    if match["word"]:
        value = WORD_VALUES[match["word"].casefold()]
    else:
        value = float(match["number"].replace(",", ""))
        divisor = float(match["divisor"].replace(",", "")) if match["divisor"] else 1.0
        if divisor == 0:
            return None
        value /= divisor
    return (-value if match["sign"] == "-" else value) if math.isfinite(value) else None


def _scale_key(written: str) -> str:
    key = " ".join(written.casefold().split())
    if key.startswith("percent"):
        return "percent"
    return key.removesuffix("s") if key not in _SCALES else key


def parse_list(text: str) -> tuple[float, ...] | None:
    """The numbers of a list: "[1, 2]", "1, 2 and 3", "(1; 2)"; None if anything else stands in it."""
    if len(text) > 10 * MOST_CHARACTERS:
        return None
    inner = plain_numbers(text).strip().rstrip(".").strip("[](){}$ ")
    parts = [part for part in re.split(r"\s*(?:,|;|\band\b|\n)\s*", inner) if part]
    quantities = [parse_quantity(part) for part in parts]
    if not quantities or any(quantity is None for quantity in quantities):
        return None
    return tuple(quantity.value for quantity in quantities if quantity is not None)
