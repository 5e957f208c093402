import pytest

from cambrian_eval import DataError, Question, Score
from cambrian_eval.prompt_forms import answer_line, put, score_reply
from cambrian_eval.types import Prompt

OPEN = Question("q", "What colour?", (), ("red",), (), "", "", "")
SECRET = Question("q", "What colour?", (), (), (), "", "", "")
LETTERED = Question("q", "?", ("a", "b"), ("B",), (), "", "", "")


def prompt(text, instruction, choices=(), budget=64):
    return Prompt("q", (text,), choices, budget, instruction)


def test_instruction_is_kept_taken_away_or_replaced():
    asked = prompt("What colour?\nOne word.", "One word.")
    assert put(asked, "direct") is asked
    assert (put(asked, "bare").text, put(asked, "bare").instruction) == ("What colour?", "")
    thought = put(asked, "cot")
    assert thought.text.startswith("What colour?\nThink step by step.")
    assert thought.text.endswith(thought.instruction)
    assert "the letter" in put(prompt("?\nOne.", "One.", ("a", "b")), "cot").text
    assert (thought.max_new_tokens, put(prompt("?", "", budget=2048), "cot").max_new_tokens) == (1024, 2048)


def test_prompt_without_an_instruction_stays_or_gets_one():
    asked = prompt("What colour?", "")
    assert put(asked, "bare") == asked
    assert put(asked, "cot").text.startswith("What colour?\nThink")


@pytest.mark.parametrize("content", [("What colour?",), (), ("One word.", "then more")])
def test_prompt_that_does_not_end_with_its_instruction_is_an_error(content):
    with pytest.raises(DataError, match="question q: its prompt does not end with its instruction"):
        put(Prompt("q", content, (), 64, "One word."), "bare")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("It is bright.\nAnswer: red", "red"),
        ("answer: blue\nNo.\n**Answer:** red \nDone.", "red"),
        ("I see.\n  ANSWER : red", "red"),
        ("答え\nAnswer:red", "red"),
        ("The answer: red", None),
        ("Answer:", None),
        ("Answer:\nred", None),
        ("", None),
        ("red", None),
        ("x" * 100_000 + "\nAnswer: red", "red"),
        ("answer " * 20_000, None),
        (" \t*_#>" * 20_000, None),
    ],
)
def test_answer_line_is_the_last_one_that_begins_so(reply, expected):
    assert answer_line(reply) == expected


def exact(question, reply):
    return Score(float(reply in question.answers) if question.answers else None, reply, "exact")


def test_of_reasoning_about_an_open_question_only_the_answer_line_is_read():
    assert score_reply(exact, "cot", OPEN, "blue?\nAnswer: red") == Score(1.0, "red", "answer line, exact")
    assert score_reply(exact, "cot", OPEN, "it is red") == Score(0.0, None, "abstain: no answer line")
    assert score_reply(exact, "cot", SECRET, "it is red") == Score(None, None, "abstain: no answer line")
    assert score_reply(exact, "direct", OPEN, "Answer: red").rule == "exact"
    assert score_reply(exact, "cot", LETTERED, "so\nAnswer: B").extracted == "so\nAnswer: B"


def test_an_answer_line_of_unfinished_thinking_is_none():
    assert score_reply(exact, "cot", OPEN, "<think>x\nAnswer: red").extracted is None
    assert score_reply(exact, "cot", OPEN, "<think>Answer: blue</think>\nAnswer: red").extracted == "red"
