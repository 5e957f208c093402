from pathlib import Path

import pytest

from cambrian_eval.scoring.anls import score_anls
from cambrian_eval.scoring.containment import score_contains
from cambrian_eval.scoring.edit_distance import score_edit_distance
from cambrian_eval.scoring.exact import score_exact
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.scoring.number import score_number
from cambrian_eval.scoring.relaxed import score_relaxed
from cambrian_eval.scoring.unwrapping import plain_characters
from cambrian_eval.scoring.vqa import score_vqa
from cambrian_eval.scoring.yes_no import score_yes_no
from cambrian_eval.types import Question
from tests.eval.battery import BATTERY
from tests.eval.battery_guard import hang_guard

RULES = {
    "anls": score_anls,
    "containment": score_contains,
    "edit_distance": score_edit_distance,
    "exact": score_exact,
    "letters": score_letter,
    "number": score_number,
    "relaxed": score_relaxed,
    "vqa": score_vqa,
    "yes_no": score_yes_no,
}
OPEN_RULES = sorted(set(RULES) - {"letters", "yes_no"})


def score(row):
    return RULES[row.rule](row.question, row.reply)


@pytest.mark.parametrize("row", BATTERY, ids=[f"{row.rule}-{ascii(row.reply)[:60]}" for row in BATTERY])
def test_a_reply_is_read_as_a_careful_reader_would(row):
    found = score(row)
    assert found.extracted == row.extracted
    assert found.value == (None if row.value is None else pytest.approx(row.value))


def test_battery_is_large_and_every_rule_and_family_is_in_it():
    assert len({(row.rule, row.question.text, row.reply) for row in BATTERY}) >= 500
    assert {row.rule for row in BATTERY} == set(RULES)
    for rule in RULES:
        assert {"terse", "markdown", "thinking", "refusing"} <= {row.family for row in BATTERY if row.rule == rule} | (
            {"markdown"} if rule == "edit_distance" else set()
        )
    families = {"terse", "verbose", "markdown", "thinking", "chinese", "refusing", "looping", "cut"}
    assert {row.family for row in BATTERY} == families


def test_the_replies_that_are_abstained_on_are_exactly_those_listed():
    listed = {(row.rule, row.question.text, row.reply) for row in BATTERY if row.extracted is None}
    abstained = {(row.rule, row.question.text, row.reply) for row in BATTERY if score(row).rule.startswith("abstain: ")}
    assert abstained == listed
    assert len(listed) >= 150


def test_an_open_rule_never_returns_text_that_the_reply_does_not_hold():
    for row in BATTERY:
        found = score(row)
        if row.rule in OPEN_RULES and found.extracted is not None:
            assert squeezed(found.extracted) in squeezed(row.reply), row


def squeezed(text):
    """Without what wrappers leave in between: spaces, emphasis and TeX."""
    plain = plain_characters(text)
    for mark in ("\\text", "\\", "*", "`", "{", "}"):
        plain = plain.replace(mark, "")
    return "".join(plain.split())


def test_every_score_names_its_rule_and_an_abstention_scores_nothing():
    for row in BATTERY:
        found = score(row)
        assert found.rule
        assert (found.extracted is None) == found.rule.startswith("abstain: ")
        if found.extracted is None:
            assert found.value in (0.0, None)


def test_every_reason_to_abstain_occurs():
    reasons = {found.rule for found in map(score, BATTERY) if found.extracted is None}
    assert reasons == {
        "abstain: answer denied",
        "abstain: both yes and no",
        "abstain: cut off",
        "abstain: empty reply",
        "abstain: letter and text disagree",
        "abstain: letter not offered",
        "abstain: neither yes nor no",
        "abstain: no answer found",
        "abstain: no list of numbers",
        "abstain: no number",
        "abstain: no short answer",
        "abstain: no single number",
        "abstain: nothing declared",
        "abstain: one letter over and over",
        "abstain: one phrase over and over",
        "abstain: refusal",
        "abstain: text of two options",
        "abstain: two answers",
        "abstain: two letters",
        "abstain: unfinished reasoning",
    }


def test_every_reason_and_every_rule_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "evaluation" / "scoring.md").read_text(encoding="utf-8")
    reasons = {found.rule.removeprefix("abstain: ") for found in map(score, BATTERY) if found.extracted is None}
    assert not {reason for reason in reasons if f"`{reason}`" not in " ".join(page.split())}
    assert all(f".{function.__name__}`" in page for function in RULES.values())


UNITS = ["The answer is 12. ", "<answer>", "\\boxed{", "**", "1,", "= 1 ", "yes ", "no, wait, ", "St. ", " ", " \n"]


@pytest.mark.parametrize("opening", ["", "The answer is "])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rule", sorted(set(RULES) - {"letters"}))
def test_a_reply_of_100_kilobytes_is_read(rule, unit, opening):
    question = Question("q", "Is there a dog in the image?", (), ("12",), (), "", "", "")
    reply = f"{opening}{unit * (100_000 // len(unit))}x"
    with hang_guard():
        found = RULES[rule](question, reply)
    assert found.rule
