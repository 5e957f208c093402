"""What was not asked, counted by the rule that forbade it.

A count has the key "thing: min_area": what was refused, and the rule. Things, pairs, triples and categories are refused
by the makers, candidates by the choice among them. What fails several rules is counted under the first of them, in the
order of their documentation, and a thing that is refused makes no pairs to be refused again.
"""

from __future__ import annotations

from collections import Counter

Rejections = Counter[str]

FIXED = {
    "crowd": "it stands for many things that were not told apart",
    "complete": "the picture is not fully annotated for it",
    "countable": "its name does not stand for single things",
    "background": "it is a surface or lies behind everything, and so has no place of its own",
    "nameless": "what stands where its name should be names no kind of thing (misc)",
    "kin": "it may be taken for something of another name that is in the picture",
    "other_categories": "too few other categories are to be seen",
    "fact": "what it asks is asked already, put in another way",
    "enough": "as many were chosen as were wanted",
    "balance": "it could not be balanced over the answers",
}
"""Rules that are not options, and what they say of the thing, pair or candidate that they refuse."""


def in_order(rejections: Rejections) -> dict[str, int]:
    """The counts, in alphabetical order of their keys, without zeros."""
    return {key: number for key, number in sorted(rejections.items()) if number}
