"""The paper's averages over groups of benchmarks."""

import csv
import math
from pathlib import Path

import pytest

import cambrian_eval
from cambrian_eval import TASKS, DataError, UnknownNameError
from cambrian_eval.groups import CATEGORIES, GROUPS, WHOLE, Level, combine, groups_of, headlines

TABLE = Path(cambrian_eval.__file__).parent / "analysis" / "data" / "final_models.csv"
with TABLE.open(encoding="utf-8", newline="") as _file:
    MODELS = {row["model"]: row for row in csv.DictReader(_file) if all(row[task] for task in GROUPS[WHOLE])}

PUBLISHED = {task: float(MODELS["Cambrian-1-8B"][task]) for task in GROUPS[WHOLE]}
"""The paper's table of final models, MME as its perception score."""


def levels(half=None):
    """The published scores, with intervals of a half width of `half` percent."""
    found = {}
    for task, score in PUBLISHED.items():
        full = 2000.0 if task == "mme" else 100.0
        spread = None if half is None else half * full / 100
        ends = (None, None) if spread is None else (score - spread, score + spread)
        found[task] = Level(score, ends[0], ends[1], full)
    return found


def result(task, model="cambrian-8b", mode="normal", complete=True, **scores):
    rows = {
        name: {"accuracy": score, "low": score - 1, "high": score + 1, "full": 100} for name, score in scores.items()
    }
    document = {"task": task, "model": model, "mode": mode, "complete": complete, "n_failed": int(not complete)}
    return {**document, "scores": rows}


@pytest.mark.parametrize("model", MODELS)
def test_published_category_means_are_met_within_rounding(model):
    row = MODELS[model]
    scores = {task: Level(float(row[task]), full=2000.0 if task == "mme" else 100.0) for task in GROUPS[WHOLE]}
    for name in CATEGORIES:
        # Both the table's scores and its means are rounded to a tenth.
        assert combine(name, scores).overall.score == pytest.approx(float(row[name]), abs=0.1)


def test_published_averages_of_the_8b_model_are_met():
    found = combine(WHOLE, levels())
    means = [round(found.categories[name].score, 1) for name in ("general", "knowledge", "ocr-chart", "vision-centric")]
    assert means == pytest.approx([73.1, 61.3, 71.3, 65.0], abs=0.051)
    assert found.categories["general"] == combine("general", levels()).overall
    assert found.overall.score == pytest.approx(67.67, abs=0.005)
    assert found.tasks["mme"].score == pytest.approx(77.355)
    assert found.overall.low is None
    assert found.label == "cambrian-16"


def test_mean_of_the_categories_is_the_mean_of_the_sixteen():
    found = combine(WHOLE, levels())
    assert found.overall.score == pytest.approx(math.fsum(level.score for level in found.tasks.values()) / 16)


def test_intervals_add_as_those_of_independent_scores():
    found = combine(WHOLE, levels(half=2.0))
    general = found.categories["general"]
    assert general.high == pytest.approx(general.score + 2 / math.sqrt(4))
    assert found.overall.low == pytest.approx(found.overall.score - 2 / math.sqrt(16))
    without = {**levels(half=2.0), "gqa": Level(64.6)}
    assert combine(WHOLE, without).overall.low is None
    assert combine("knowledge", without).overall.low is not None


def test_missing_task_is_named_unless_a_partial_average_is_asked_for():
    some = {task: level for task, level in levels().items() if task not in ("gqa", "mmvp")}
    with pytest.raises(DataError, match=r"found results of 14 of 16 tasks; missing: gqa, mmvp\. .*partial average"):
        combine(WHOLE, some)
    found = combine(WHOLE, some, partial=True)
    assert found.label == "cambrian-16 (partial: 14 of 16 tasks)"
    assert found.to_dict()["missing"] == ["gqa", "mmvp"]
    assert found.categories["general"].score == pytest.approx((77.355 + 75.9 + 74.7) / 3)
    assert found.overall.score == pytest.approx(math.fsum(level.score for level in found.categories.values()) / 4)


def test_category_without_any_result_is_left_out_of_a_partial_average():
    knowledge = {task: levels()[task] for task in CATEGORIES["knowledge"]}
    found = combine(WHOLE, knowledge, partial=True)
    assert list(found.categories) == ["knowledge"]
    assert found.label == "cambrian-16 (partial: 4 of 16 tasks)"
    with pytest.raises(DataError, match="found results of 0 of 4 tasks"):
        combine("general", knowledge, partial=True)


def test_unknown_group_is_answered_with_the_closest_one():
    with pytest.raises(UnknownNameError, match='unknown group "vision"; did you mean "vision-centric"'):
        combine("vision", levels())


def test_every_member_is_a_task_and_in_one_category():
    assert set(GROUPS[WHOLE]) <= set(TASKS.names())
    assert len(set(GROUPS[WHOLE])) == 16
    assert groups_of("gqa") == ["general", WHOLE]
    assert groups_of("pope") == []


def test_headlines_are_read_from_results():
    found = headlines([result("gqa", score=60.0), result("cvbench", score=70.0, score_2d=65.0, score_3d=75.0)])
    assert found["gqa"] == Level(60.0, 59.0, 61.0)
    assert (found["cvbench-2d"].score, found["cvbench-3d"].score) == (65.0, 75.0)
    own = headlines([result("cvbench", score=70.0, score_2d=65.0, score_3d=75.0), result("cvbench-2d", score=64.0)])
    assert own["cvbench-2d"].score == 64.0


def test_another_tools_result_without_parts_has_its_headline_alone():
    assert list(headlines([result("cvbench", score=70.0)])) == ["cvbench"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([result("gqa", score=1.0), result("mme", model="other", score=1.0)], "one model and one mode"),
        ([result("gqa", score=1.0), result("mme", mode="blind", score=1.0)], "one model and one mode"),
        ([result("gqa", score=1.0), result("gqa", score=2.0)], "two results of gqa"),
        ([result("gqa", complete=False, score=1.0)], "gqa: found an unfinished result, 1 questions"),
        ([result("gqa")], "gqa: found no score 'score'"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(documents, message):
    with pytest.raises(DataError, match=message):
        headlines(documents)
