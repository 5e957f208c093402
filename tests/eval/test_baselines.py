"""The models that do not look: what they say to which kind of question, and what they refuse."""

import json
from collections import Counter

import pytest

from cambrian_eval import ModelError, load_model
from cambrian_eval.models.base import AnswersById
from cambrian_eval.types import Prompt


def ask(name, text="What?", choices=()):
    return Prompt(name, (text,), choices, 8)


def replies(model, prompts):
    return texts(load_model(model).answer(prompts))


def texts(answers):
    return [answer.text for answer in answers]


def test_random_draws_each_offered_letter_equally_and_nothing_else():
    drawn = Counter(replies("random", [ask(f"q{i}", choices=("x", "y", "z")) for i in range(3000)]))
    assert set(drawn) == {"A", "B", "C"}
    assert all(900 < count < 1100 for count in drawn.values())  # 3.9 standard deviations


def test_random_is_a_function_of_seed_and_question_alone():
    prompts = [ask(f"q{i}", choices=("x", "y", "z")) for i in range(40)]
    together = replies("random:5", prompts)
    assert [replies("random:5", [prompt])[0] for prompt in prompts] == together
    assert replies("random:6", prompts) != together


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (ask("q", "Is it red? Please answer yes or no."), {"Yes", "No"}),
        (ask("q", "Is there a cat in the image?\nAnswer with a single word or phrase."), {"Yes", "No"}),
        (ask("q", "Is it red?", ("yes", "no")), {"yes", "no"}),
        (ask("q", "Is it red?\n(A) yes\n(B) no", ("yes", "no")), {"A", "B"}),
        (ask("q", "Is it red?\nA. Yes\nB. No", ("Yes", "No")), {"A", "B"}),
        (ask("q", "Is it red?", ("yes", "no", "maybe")), {"A", "B", "C"}),
    ],
)
def test_random_answers_yes_or_no_where_that_is_asked(prompt, expected):
    drawn = {replies(f"random:{seed}", [prompt])[0] for seed in range(60)}
    assert drawn == expected


def test_random_has_nothing_to_say_to_open_questions():
    for text in ("What colour is the cat?", "Is the cat red or green?", "Name it."):
        assert replies("random", [ask("q7", text)]) == [""]


@pytest.mark.parametrize(("spec", "reply"), [("constant", "A"), ("constant:B", "B"), ("constant:two cats", "two cats")])
def test_constant_says_a_letter_or_any_text_to_every_question(spec, reply):
    assert replies(spec, [ask("a"), ask("b", choices=("x", "y"))]) == [reply, reply]


def test_a_seed_that_is_no_number_is_refused():
    with pytest.raises(ModelError, match='found seed "x", expected a whole number'):
        load_model("random:x")


def test_canned_replies_come_by_id_and_a_missing_one_names_the_nearest(write_jsonl):
    lines = [{"id": f"mmvp-{i}", "reply": f"reply {i}"} for i in range(5)]
    model = load_model(f"canned:{write_jsonl(*lines)}")
    assert texts(model.answer([ask("mmvp-3"), ask("mmvp-0")])) == ["reply 3", "reply 0"]
    with pytest.raises(ModelError, match=r'none of them for question mmvp-7; .*Did you mean "mmvp-\d"'):
        model.answer([ask("mmvp-7")])
    with pytest.raises(ModelError, match=r"every question needs one\.$"):
        model.answer([ask("zzz")])


def test_models_that_answer_by_id_say_so(write_jsonl):
    canned = load_model(f"canned:{write_jsonl(json.dumps({'id': 'a', 'reply': 'A'}))}")
    assert isinstance(canned, AnswersById)
    assert isinstance(load_model("random"), AnswersById)
    assert not isinstance(load_model("constant"), AnswersById)
