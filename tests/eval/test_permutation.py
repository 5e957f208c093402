import json
from collections import Counter

import pytest

from cambrian_eval import DataError, Question, evaluate
from cambrian_eval.models.baselines import ConstantReply
from cambrian_eval.models.canned import Canned
from cambrian_eval.permutation import check_shown, permute
from cambrian_eval.types import Prompt
from tests.eval.benchmark_folder import truths, write_cvbench


def question(text, choices=("cat", 'dog\'s "bone"', "牛"), answer="B", **others):
    return Question("q", text, choices, (answer,), (), "", "", "", **others)


def shown(copies):
    return [copy.text.rpartition("\n\n")[2] for copy in copies]


@pytest.mark.parametrize("label", ["({}) ", "{}. ", "{}) ", "{}: "])
def test_options_move_inside_the_text_and_the_truth_with_them(label):
    options = ("cat", 'dog\'s "bone"', "牛")
    lines = [
        [label.format(letter) + text for letter, text in zip("ABC", order, strict=True)]
        for order in (options, options[1:] + options[:1], options[2:] + options[:2])
    ]
    asked = question("A. cat?\n\n" + "\n".join(lines[0]), options)
    copies = permute([asked], 3, 0)
    assert sorted(shown(copies)) == sorted("\n".join(order) for order in lines)
    assert shown(copies)[0] == "\n".join(lines[0])
    for copy in copies:
        assert copy.choices["ABC".index(copy.answers[0])] == options[1]
        assert copy.text.startswith("A. cat?\n\n")
    assert [copy.id for copy in copies] == ["q", "q@1", "q@2"]
    assert {copy.group for copy in copies} == {"q"}


def test_as_many_orders_as_options_put_every_option_at_every_place():
    asked = [question("", ("a", "b", "c", "d"), answer) for answer in "ABCD"]
    for one in asked:
        copies = permute([one], 4, 7)
        assert Counter(copy.answers[0] for copy in copies) == Counter("ABCD")


def test_questions_have_no_more_orders_than_options_and_open_ones_stay():
    closed, open_one = question("", ("yes", "no"), "A"), question("", (), "nobody knows")
    assert [copy.id for copy in permute([closed, open_one], 4, 0)] == ["q", "q@1", "q"]
    with pytest.raises(DataError, match="none of the questions has options"):
        permute([open_one], 2, 0)


def test_orders_depend_on_the_seed_and_on_nothing_else():
    asked = question("", tuple("abcdefgh"), "C")
    orders = [[copy.choices for copy in permute([asked], 3, seed)] for seed in range(6)]
    assert orders == [[copy.choices for copy in permute([asked], 3, seed)] for seed in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    assert all(order[0] == asked.choices for order in orders)


def test_prompt_that_does_not_show_the_options_as_lines_is_an_error():
    copies = permute([question('Is it a cat, a dog\'s "bone" or 牛?')], 2, 0)
    rendered = Prompt("q", ('?\nA. cat\nB. dog\'s "bone"\nC. 牛',), copies[0].choices, 16)
    check_shown(copies[0], rendered)
    with pytest.raises(DataError, match=r"question q@1: its options are not in its prompt as lines"):
        check_shown(copies[1], rendered)


def test_truth_that_is_no_letter_is_an_error():
    with pytest.raises(DataError, match="found answer 'cat', expected the letter"):
        permute([question("", answer="cat")], 2, 0)


def test_bias_for_a_place_is_measured_beside_the_tasks_own_score(tmp_path):
    folder = write_cvbench(tmp_path / "data", per_group=6)
    plain = evaluate("cvbench", ConstantReply("A"), data=folder, output=tmp_path / "plain").to_dict()
    result = evaluate("cvbench", ConstantReply("A"), data=folder, output=tmp_path / "run", permute=4).to_dict()
    assert result["score"] == plain["score"]
    assert result["tasks"] == plain["tasks"]
    assert result["n"] == 12 * 4 + 24 * 2
    bias = result["position_bias"]
    assert bias["given"] == {"A": 96, "B": 0, "C": 0, "D": 0}
    assert bias["true"] == {"A": 36, "B": 36, "C": 12, "D": 12}  # circular: every option at every place
    assert {letter: row["accuracy"] for letter, row in result["positions"].items()} == {
        "A": 100,
        "B": 0,
        "C": 0,
        "D": 0,
    }
    assert result["permuted"]["all_orders"]["accuracy"] == 0
    assert result["permuted"]["mean"]["accuracy"] == pytest.approx(100 * 36 / 96)
    assert result["permuted"]["mean"]["num_units"] == 36
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines[:3]] == ["2d-0", "2d-0@1", "2d-0@2"]
    assert {line["prompt"] for line in lines[:4]} == {line["prompt"] for line in lines[:4] if line["group"] == "2d-0"}
    assert len({line["prompt"] for line in lines[:4]}) == 4


def test_model_that_reads_the_options_is_right_in_all_orders(tmp_path):
    folder = write_cvbench(tmp_path / "data", per_group=6)
    evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path / "first", permute=2)
    lines = [json.loads(line) for line in (tmp_path / "first" / "samples.jsonl").read_text().splitlines()]
    model = Canned({line["id"]: line["truth"] for line in lines})
    result = evaluate("cvbench", model, data=folder, output=tmp_path / "second", permute=2).to_dict()
    assert result["score"] == result["permuted"]["all_orders"]["accuracy"] == 100
    by_place = Canned({line["id"]: truths(folder)[line["id"].split("@")[0]] for line in lines})
    other = evaluate("cvbench", by_place, data=folder, output=tmp_path / "third", permute=2).to_dict()
    assert (other["score"], other["permuted"]["all_orders"]["accuracy"]) == (100, 0)
