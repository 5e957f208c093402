import pytest

from cambrian_eval.scoring.letters import extract_letter, score_letter
from cambrian_eval.types import Question
from tests.eval.battery_guard import hang_guard
from tests.eval.letter_replies import LEFT_RIGHT, REPLIES


@pytest.mark.parametrize(("reply", "choices", "expected"), REPLIES, ids=[ascii(reply)[:60] for reply, _, _ in REPLIES])
def test_reads_the_letter_a_careful_reader_would_or_abstains(reply, choices, expected):
    assert extract_letter(reply, choices).letter == expected


def test_battery_is_large_and_holds_many_replies_without_an_answer():
    assert len(set(REPLIES)) >= 300
    assert sum(expected is None for _, _, expected in REPLIES) >= 100


def test_every_reading_names_its_rule():
    rules = {extract_letter(reply, choices).rule for reply, choices, expected in REPLIES if expected}
    assert rules == {
        "bare letter",
        "option text",
        "declared letter",
        "declared text",
        "leading letter",
        "closing letter",
        "bracketed letter",
        "yes or no",
        "option mentioned",
    }


def test_every_abstention_says_why():
    reasons = {extract_letter(reply, choices).rule for reply, choices, expected in REPLIES if expected is None}
    assert reasons == {
        "abstain: empty reply",
        "abstain: letter and text disagree",
        "abstain: letter not offered",
        "abstain: letter taken back",
        "abstain: no answer found",
        "abstain: two letters",
        "abstain: one letter over and over",
        "abstain: text of two options",
        "abstain: unfinished reasoning",
    }


@pytest.mark.parametrize(
    "unit",
    [
        "A",
        "(",
        "answer is A ",
        "<answer>",
        "\\boxed{",
        "A, ",
        "it is ",
        "\n",
        "\u7b54\u6848",
        "no, wait, ",
        ". no",
        "fig. ",
        "- A\n",
        "1.1",
        "}\n",
    ],
)
@pytest.mark.parametrize("opening", ["", "A", "answer: (A) "])
def test_a_reply_of_100_kilobytes_is_read(opening, unit):
    reply = f"{opening}{unit * (100_000 // len(unit))}x"
    with hang_guard():
        found = extract_letter(reply, LEFT_RIGHT)
    assert found.rule


@pytest.mark.parametrize(
    ("choices", "reply", "letter"),
    [
        (("it's", 'a "quoted" one'), "It's", "A"),
        (("it's", 'a "quoted" one'), 'a "quoted" one', "B"),
        (("\u5de6", "\u53f3"), "\u53f3", "B"),
        (("same", "same"), "same", None),
        (("same", "same"), "B", "B"),
        (("-3", "3"), "-3", "A"),
    ],
)
def test_choices_of_any_text_are_handled(choices, reply, letter):
    assert extract_letter(reply, choices).letter == letter


def test_scores_one_for_the_right_letter_and_nothing_for_an_abstention():
    question = Question("q", "Where?", LEFT_RIGHT, ("B",), (), "2D", "Relation", "COCO")
    right, wrong, unread = (score_letter(question, reply) for reply in ("(B)", "A", "A or B"))
    assert (right.value, right.extracted, right.rule) == (1.0, "B", "bare letter")
    assert (wrong.value, wrong.extracted) == (0.0, "A")
    assert (unread.value, unread.extracted, unread.rule) == (0.0, None, "abstain: two letters")
