"""Rows from scored answers: means, units, sums of rows, and the levels they have to beat."""

import math

import pytest

from cambrian_eval import DataError
from cambrian_eval.metrics import mean_row, measure, parse_rate, plain_row, unit_row, weighted_row
from cambrian_eval.statistics import clustered_mean, wilson
from cambrian_eval.types import Answer, Prompt, Question, Score, ScoredAnswer


def scored(id, value, *, truth="A", choices=("x", "y"), group="", task="", source="", extracted="A"):
    question = Question(id, "?", choices, (truth,), (), "part", task, source, group)
    prompt = Prompt(id, ("?",), choices, 16)
    return ScoredAnswer(question, prompt, Answer("reply"), Score(value, extracted, "rule"))


def numbered(values, **fields):
    return [scored(str(place), value, **fields) for place, value in enumerate(values)]


def pairs(values, truths="ABABABAB"):
    return [
        scored(str(place), value, truth=truths[place], group=f"pair {place // 2}") for place, value in enumerate(values)
    ]


def test_a_mean_of_right_and_wrong_answers_is_the_plain_row():
    answers = numbered([1, 0, 1, 1, 0])
    assert mean_row("scores", "score", "accuracy", answers) == plain_row("scores", "score", "accuracy", answers)


def test_graded_answers_have_a_mean_without_levels_for_guessing():
    row = mean_row("scores", "score", "ANLS", numbered([0.25, 1.0, 0.6], choices=()))
    assert row.accuracy == pytest.approx(100 * (0.25 + 1 + 0.6) / 3)
    assert (row.chance, row.best_constant) == (None, None)
    assert 0 <= row.low < row.accuracy < row.high <= 100


def test_open_questions_among_others_are_not_guessed():
    answers = [scored("0", 1, choices=("x", "y", "z", "w")), scored("1", 0, truth="12", choices=())]
    row = mean_row("scores", "score", "accuracy", answers)
    assert row.chance == pytest.approx(12.5)
    assert row.best_constant == pytest.approx(50)


def test_pictures_with_several_questions_count_once():
    """Four questions on each of five pictures, all right or all wrong: as good as five questions."""
    answers = [scored(f"{p}-{q}", float(p < 3), group=f"picture {p}") for p in range(5) for q in range(4)]
    row = mean_row("scores", "score", "accuracy", answers)
    assert (row.n, row.num_units) == (20, 5)
    assert row.design_effect == pytest.approx((20 - 1) / (5 - 1))
    assert row.low < 100 * wilson(3, 5).low < row.accuracy


def test_a_pair_is_right_only_as_a_whole():
    row = unit_row("scores", "pairs", "pairs", pairs([1, 1, 1, 0, 0, 0, 1, 1]))
    assert row.accuracy == 50
    assert (row.low, row.high) == tuple(100 * end for end in wilson(2, 4))
    assert (row.n, row.num_units, row.chance) == (8, 4, 25.0)


def test_one_letter_for_all_is_right_on_pairs_with_one_truth():
    assert unit_row("scores", "pairs", "pairs", pairs([1] * 4, "ABAB")).best_constant == 0
    assert unit_row("scores", "pairs", "pairs", pairs([1] * 4, "AABA")).best_constant == 50


def test_questions_without_a_group_are_units_of_their_own():
    assert unit_row("scores", "score", "units", numbered([1, 0, 1])).num_units == 3


def test_a_sum_of_accuracy_and_pair_accuracy_knows_that_both_are_of_the_same_answers():
    answers = pairs([1, 1, 1, 0, 0, 0, 1, 1])
    values = [2, 2, 1, 0, 0, 0, 2, 2]
    row = mean_row("scores", "perception", "accuracy + accuracy+", answers, values=values, full=200, chance=75.0)
    questions, units = mean_row("a", "b", "c", answers), unit_row("a", "b", "c", answers)
    assert row.accuracy == pytest.approx(questions.accuracy + units.accuracy)
    assert (row.full, row.chance, row.best_constant) == (200, 75, None)
    expected = clustered_mean([value / 2 for value in values], [place // 2 for place in range(8)])
    assert (row.low, row.high) == pytest.approx((200 * expected.low, 200 * expected.high))


def test_a_weighted_row_adds_scores_and_variances():
    rows = [
        mean_row("tasks", name, name, numbered(values))
        for name, values in (("a", [1, 0, 1, 1] * 300), ("b", [1, 0] * 400))
    ]
    row = weighted_row("scores", "score", "mean of tasks", [(0.5, rows[0]), (0.5, rows[1])])
    variance = 0.25 * (0.75 * 0.25 / 1200 + 0.25 / 800)
    assert row.accuracy == pytest.approx(62.5)
    # Wilson's ends and the normal ones differ by terms of order 1/n, in percent below 0.1.
    assert row.high - row.accuracy == pytest.approx(196 * math.sqrt(variance), abs=0.1)
    assert (row.full, row.n, row.chance) == (100, 2000, 50)


def test_weights_beyond_one_make_another_unit():
    rows = [mean_row("tasks", name, name, numbered([1, 0, 1])) for name in "abc"]
    row = weighted_row("scores", "score", "sum", [(1.0, each) for each in rows])
    assert (row.accuracy, row.full) == (pytest.approx(200), 300)


def test_a_level_that_one_part_lacks_is_no_level_of_the_sum():
    rows = [mean_row("t", "a", "a", numbered([1, 0])), mean_row("t", "b", "b", numbered([1, 0], choices=()))]
    assert weighted_row("scores", "score", "mean", [(0.5, row) for row in rows]).chance is None


def test_measure_gives_a_row_for_every_task_where_there_are_several():
    answers = [scored(str(place), float(place % 3 == 0), task="ab"[place % 2], source="one") for place in range(6)]
    metrics = measure(answers)
    assert metrics.summary == {"score": pytest.approx(100 / 3), "parse_rate": 100.0, "n_unscored": 0}
    assert [(row.group, row.name) for row in metrics.rows] == [("scores", "score"), ("tasks", "a"), ("tasks", "b")]


def test_answers_without_a_known_truth_are_counted_and_in_no_score():
    metrics = measure([*numbered([1, 0]), scored("9", None)])
    assert (metrics.summary["score"], metrics.summary["n_unscored"], metrics.rows[0].n) == (50, 1, 2)


def test_a_split_with_secret_answers_has_no_score():
    metrics = measure(numbered([None, None]))
    assert metrics.summary == {"score": None, "parse_rate": 100.0, "n_unscored": 2}
    assert metrics.rows == ()
    with pytest.raises(DataError, match="pairs: found no answer to a question whose truth is known"):
        unit_row("scores", "score", "pairs", numbered([None]))


def test_of_no_replies_none_was_read():
    assert parse_rate([]) == 0


def test_a_single_question_has_a_row():
    row = measure(numbered([1])).rows[0]
    assert (row.accuracy, row.low, row.high) == (100, 100 * wilson(1, 1).low, 100)
