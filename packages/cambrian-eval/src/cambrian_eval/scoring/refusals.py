"""Replies that say that no answer can be given: "I'm sorry, I cannot see the image", "It cannot be determined"."""

from __future__ import annotations

import re

_START = 400
"""How far into a reply a refusal is looked for, in characters."""

_UNABLE = r"(?:can't|cannot|can\s+not|couldn't|could\s+not|unable|not\s+able|don't|do\s+not|didn't|am\s+not|'m\s+not)"
_KNOW = (
    r"(?:see|view|read|tell|say|determine|identify|find|provide|answer|assist|help|access|know|make\s+out|discern"
    r"|recogni[sz]e|confirm|analy[sz]e|interpret|give|have\s+(?:access|enough|the\s+ability))"
)
# Each asks for a verb of knowing beside the inability: "sorry, we don't open on Sundays" may be a sign that was read.
_OPENING = re.compile(
    rf"""
      \W*(?:i(?:'m|\s+am)\s+|we\s+are\s+)?(?:(?:very|so|really)\s+)?(?:sorry|unfortunately|apolog\w+|as\s+an?\s+ai)\b
        [^.\n]{{0,120}}\bi\s?{_UNABLE}\b
    | \W*(?:i|we)\s?(?:(?:am|'m|are|'re)\s+)?{_UNABLE}\s+(?:to\s+)?{_KNOW}\b
    | \W*(?:i\s?(?:'m|am)\s+)?(?:not\s+(?:entirely\s+|quite\s+)?(?:sure|certain)|unsure|uncertain)\b
    | \W*(?:抱歉|对不起|无法(?:确定|识别|看到|看清|回答|判断|读取|辨认)|不能确定|不确定|看不清|不知道)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_INSIDE = re.compile(
    rf"""
      \b(?:can't|cannot|can\s+not|couldn't|could\s+not)\s+be\s+
        (?:determined|identified|read|answered|discerned|ascertained|inferred|verified|seen)\b
    | \b(?:unable|impossible|not\s+possible|difficult|hard)\s+to\s+{_KNOW}\b
    | \bno\s+(?:image|picture|photo)\s+(?:was|is|has\s+been)\b
    | \b(?:not\s+enough|insufficient|no)\s+information\b
    | \b(?:does\s+not|doesn't|do\s+not|don't)\s+(?:provide|contain|show|include|specify|mention)\b
        [^.\n]{{0,60}}\b(?:information|answer|details?)\b
    | 无法(?:确定|识别|看到|看清|回答|判断|读取|辨认)|不能确定|看不清
    """,
    re.IGNORECASE | re.VERBOSE,
)

# "No, I cannot see the image" and "Yes, I can help with that! Please upload it" answer another question.
_OFF_QUESTION = re.compile(
    r"""
    [\s,.!:;-]* (?:but\s+)? (?:
        i \s* (?: can't | cannot | can\s+not | am\s+(?:unable|not\s+able)\s+to | 'm\s+(?:unable|not\s+able)\s+to
            | do\s+not | don't ) \s+ (?:actually\s+|directly\s+)?
          (?: see | view | access | open | load | process | analy[sz]e | interpret | have\s+access\s+to
            | have\s+the\s+ability\s+to\s+(?:see|view) ) \s+
          (?: (?:the|this|that|any|an|your) \s+ )? (?: (?:actual|attached|uploaded|provided) \s+ )?
          (?: images? | pictures? | photos? | visual\s+content | attachments? )
          (?: \s*(?:[.,;!]|\Z) | \s+(?:you|directly|so|but|and)\b )
      | i \s+ (?: can | would\s+be\s+(?:happy|glad)\s+to | will ) \s+
          (?: help | assist | analy[sz]e | describe | look\s+at | take\s+a\s+look )\b
      | (?: please \s+ | could\s+you \s+ (?:please\s+)? ) (?: provide | upload | share | send | attach )\b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Whether a text declines to answer in its first sentences."""
    return opens_with_refusal(text) or bool(_INSIDE.search(text[:_START]))


def opens_with_refusal(text: str) -> bool:
    """Whether a text begins by declining. For copied text, which may speak of what "cannot be determined"."""
    return bool(_OPENING.match(text[:_START]))


def is_off_question(rest: str) -> bool:
    """Whether what follows a "yes" or "no" says that it answers no question about the picture."""
    return bool(_OFF_QUESTION.match(rest))
