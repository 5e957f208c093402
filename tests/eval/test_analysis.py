"""The analysis of benchmarks against scipy, on tables with a known answer, and on the paper's own tables."""

import json
import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from cambrian_eval import DataError, EvalError, UnknownNameError
from cambrian_eval.analysis import plots, published
from cambrian_eval.analysis.clusters import agree, cluster, find_groups
from cambrian_eval.analysis.components import components
from cambrian_eval.analysis.correlation import correlate, interval, without_general
from cambrian_eval.analysis.gaps import Gap, average, gaps_of_runs, read_gaps
from cambrian_eval.analysis.scores import ScoreTable, complete, read_csv, read_runs
from cambrian_eval.groups import CATEGORIES, WHOLE
from cambrian_eval.log import SampleLog
from tests.eval.test_compare import some

PNG = b"\x89PNG\r\n\x1a\n"


def table(scores, benchmarks=None):
    rows = [tuple(None if math.isnan(score) else float(score) for score in row) for row in np.asarray(scores)]
    names = benchmarks or [f"b{place}" for place in range(len(rows[0]))]
    return ScoreTable("scores", tuple(f"m{place}" for place in range(len(rows))), tuple(names), tuple(rows))


def drawn(models=30, benchmarks=5, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(50, 10, (models, 1)) + generator.normal(0, 6, (models, benchmarks))


def two_kinds(models=40, seed=1):
    """Six benchmarks: all share how good a model is, three share a second skill, three a third."""
    generator = np.random.default_rng(seed)
    general, one, other = (generator.normal(0, 1, (models, 1)) for _ in range(3))
    noise = generator.normal(0, 0.3, (models, 6))
    return 50 + 5 * (3 * general + np.hstack([one, other, one, other, one, other]) + noise)


# Tables.


def test_a_csv_file_is_read_with_what_is_missing_and_what_is_no_score(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("model,licence,mmvp,gqa\none,MIT,41.5,60\ntwo,Apache,,61\nthree,MIT,n/a,62.5\n")
    found = read_csv(file)
    assert (found.models, found.benchmarks) == (("one", "two", "three"), ("mmvp", "gqa"))
    assert found.scores == ((41.5, 60), (None, 61), (None, 62.5))
    assert found.notes == ("columns without numbers are left out: licence",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model,mmvp\none,1\none,2\n", 'found model "one" twice'),
        ("model,mmvp,mmvp\none,1,2\n", 'found benchmark "mmvp" twice'),
        ("model,mmvp\none,1\ntwo,high\n", r"mine.csv:3: found 'high' as score on mmvp"),
        ("model,mmvp\none,1,2\n", r"mine.csv:2: found 3 cells, expected 2"),
        ("model\none\n", "found no table"),
        ("model,a\none,x\n", "found no column with a number"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused_with_the_place(tmp_path, text, told):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_csv(file)


def test_missing_scores_are_refused_until_somebody_says_what_to_do():
    scores = drawn(6, 4)
    scores[2, 1] = scores[4, 1] = scores[4, 3] = math.nan
    holes = table(scores)
    with pytest.raises(DataError, match=r"3 of 24 scores are missing.*4 of 6 models.*2 of 4 benchmarks"):
        complete(holes, None)
    assert complete(holes, "models")[0].models == ("m0", "m1", "m3", "m5")
    assert complete(holes, "models")[1] == ["models without all scores are left out: m2, m4"]
    assert complete(holes, "benchmarks")[0].benchmarks == ("b0", "b2")
    kept, notes = complete(holes, "pairwise")
    assert (kept.num_missing, len(notes)) == (3, 1)


def test_too_few_models_say_nothing_about_benchmarks():
    with pytest.raises(DataError, match="found 2 models and 3 benchmarks, expected at least 3 and 2"):
        complete(table(drawn(2, 3)), None)


def test_a_benchmark_that_is_not_there_cannot_be_left_out():
    with pytest.raises(UnknownNameError, match='did you mean "b1"'):
        table(drawn()).without(["b11"])


# Correlations, components, clusters.


@pytest.mark.parametrize(("method", "theirs"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
@pytest.mark.parametrize("holes", [False, True])
def test_correlations_are_scipys(method, theirs, holes):
    scores = drawn()
    if holes:
        scores[3:9, 0] = scores[8:12, 4] = math.nan
    found = correlate(table(scores), method)
    for first in range(5):
        for second in range(first):
            both = ~np.isnan(scores[:, first]) & ~np.isnan(scores[:, second])
            expected = theirs(scores[both, first], scores[both, second]).statistic
            assert found.matrix[first, second] == pytest.approx(expected)
            assert found.num_models[first, second] == both.sum()


def test_the_interval_of_a_correlation_is_scipys():
    scores = drawn(12, 2)
    found = stats.pearsonr(scores[:, 0], scores[:, 1])
    expected = found.confidence_interval(0.95)
    assert interval(found.statistic, 12) == pytest.approx((expected.low, expected.high))
    assert interval(0.9, 3) == (-1, 1)


def test_benchmarks_on_which_all_models_are_alike_are_named():
    scores = drawn()
    scores[:, 2] = 25
    with pytest.raises(DataError, match="30 models all score the same on b2"):
        correlate(table(scores))
    with pytest.raises(DataError, match="all models score the same on b2"):
        components(table(scores))


def test_benchmarks_that_share_no_models_are_named():
    scores = drawn(8, 2)
    scores[:4, 0] = scores[3:, 1] = math.nan
    with pytest.raises(DataError, match="found 0 models with scores on b0 and b1"):
        correlate(table(scores))


def test_components_are_those_of_the_correlation_matrix():
    scores = table(drawn())
    found, matrix = components(scores), correlate(scores).matrix
    values, vectors = np.linalg.eigh(matrix)
    assert found.explained == pytest.approx(values[::-1] / 5)
    assert np.abs(found.loadings) == pytest.approx(np.abs(vectors[:, ::-1] * np.sqrt(values[::-1])))
    assert found.loadings @ found.loadings.T == pytest.approx(matrix)
    assert found.positions.std(axis=0) == pytest.approx(np.ones(5))
    assert (found.loadings.sum(axis=0) > 0).all()


def test_components_need_a_whole_table():
    scores = drawn()
    scores[0, 0] = math.nan
    with pytest.raises(DataError, match="1 scores are missing"):
        components(table(scores))


def test_what_is_left_without_the_first_component_is_the_correlation_of_residuals():
    scores = drawn()
    standardised = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    left, singular, right = np.linalg.svd(standardised, full_matrices=False)
    residuals = standardised - singular[0] * np.outer(left[:, 0], right[0])
    found = without_general(correlate(table(scores)))
    assert found.matrix == pytest.approx(np.corrcoef(residuals.T))


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_benchmarks_of_one_kind_are_found_together_beneath_what_all_share(linkage):
    found = find_groups(table(two_kinds()), 2, method="pearson", linkage=linkage)
    assert found.groups == [["b0", "b2", "b4"], ["b1", "b3", "b5"]]


def test_clusters_are_scipys_of_standardised_scores():
    from scipy.cluster import hierarchy  # type: ignore[import-untyped]

    scores = drawn()
    standardised = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    expected = hierarchy.linkage(standardised.T / np.sqrt(len(scores)), "ward")
    assert cluster(correlate(table(scores)), 3).merges == pytest.approx(expected)


def test_more_groups_than_benchmarks_are_refused():
    with pytest.raises(DataError, match="found 7 groups to make of 5 benchmarks"):
        cluster(correlate(table(drawn())), 7)


def test_agreement_names_what_lies_elsewhere_and_how_surely():
    scores = table(two_kinds())
    found = find_groups(scores, 2, method="pearson", linkage="ward")
    named = {"one": ("b0", "b2", "b1"), "other": ("b3", "b5", "b4")}
    told = agree(scores, found, named, method="pearson", linkage="ward")
    assert told is not None
    assert told.misplaced == {"b1": "other", "b4": "one"}
    # A random regrouping into three and three has an overlap of four or more with any other: always.
    assert told.chance == 1
    assert min(told.support.values()) > 0.9
    exact = agree(scores, found, {"x": ("b0", "b2", "b4"), "y": ("b1", "b3", "b5")}, method="pearson", linkage="ward")
    # Of the 20 ways to choose three of six, two give these groups.
    assert exact is not None
    assert exact.chance == pytest.approx(0.1, abs=0.02)


def test_agreement_is_of_tables_whose_benchmarks_all_have_a_group():
    scores = table(two_kinds())
    found = find_groups(scores, 2, method="pearson", linkage="ward")
    assert agree(scores, found, {"one": ("b0",)}, method="pearson", linkage="ward") is None


def test_pairwise_tables_have_clusters_and_no_resamples():
    scores = two_kinds()
    scores[3, 2] = math.nan
    holes = table(scores)
    found = find_groups(holes, 2, method="spearman", linkage="ward")
    told = agree(holes, found, {"x": ("b0", "b2", "b4"), "y": ("b1", "b3", "b5")}, method="spearman", linkage="ward")
    assert told is not None
    assert (told.misplaced, told.support) == ({}, {})


# The paper.


def test_the_published_scores_of_backbones_make_the_averages_printed_beside_them():
    rows = published.find("backbones").rows()
    assert len(rows) == 23 + 18 + 18 + 13 + 7
    tasks = [task for tasks in CATEGORIES.values() for task in tasks]
    for row in rows:
        mean = sum(float(row[task]) / (20 if task == "mme" else 1) for task in tasks) / 16
        assert mean == pytest.approx(float(row["average"]), abs=0.011), row["backbone"]


def test_the_published_scores_make_the_categories_of_the_project_pages_plot():
    scores = {row["backbone"]: row for row in published.find("backbones").rows() if row["setting"] == "1.2M"}
    plotted = published.find("categories").rows()
    renamed = {"I-JEPA ViT-H/16@224": "I-JEPA ViT-H/14@224", "SigLIP SO400M/14@384": "SigLIP ViT-SO400M/14@384"}
    names = [renamed.get(row["backbone"], row["backbone"]).replace("SD2.1/16", "SD2.1 VAE+UNet/16") for row in plotted]
    assert set(names) - set(scores) == {"DINOv2 ViT-L/14@518"}
    for name, row in zip(names, plotted, strict=True):
        for category, tasks in CATEGORIES.items() if name in scores else ():
            mean = sum(float(scores[name][task]) / (20 if task == "mme" else 1) for task in tasks) / 4
            assert mean == pytest.approx(float(row[category]), abs=0.02), (name, category)


def test_the_published_final_models_make_their_printed_averages():
    models = published.published_models()
    assert len(models) == 15
    for model in models.values():
        for category, level in published.recomputed(model).items():
            if level is not None and category != WHOLE:
                # One is printed from unrounded scores: the general average of Cambrian-1-34B, 76.8 for 76.74.
                assert level == pytest.approx(model.averages[category], abs=0.0601), (model.name, category)
    assert models["Cambrian-1-8B"].visual_tokens == 576
    assert published.recomputed(models["Cambrian-1-8B"])[WHOLE] == pytest.approx(67.67, abs=0.005)
    assert published.recomputed(models["Gemini-1.5 Pro"])["ocr-chart"] is None


def test_the_published_correlations_are_a_correlation_matrix():
    rows = published.find("correlations").rows()
    matrix = np.array([[float(cell) for cell in list(row.values())[1:]] for row in rows])
    assert matrix == pytest.approx(matrix.T)
    assert np.diag(matrix) == pytest.approx(np.ones(15))


def test_the_backbones_fall_into_the_papers_groups_but_for_three_benchmarks():
    scores = published.backbones()
    found = find_groups(scores, 4, method="pearson", linkage="ward")
    told = agree(scores, found, CATEGORIES, method="pearson", linkage="ward")
    assert told is not None
    assert told.misplaced == {"scienceqa": "ocr-chart", "ai2d": "vision-centric", "cvbench-2d": "general"}
    assert told.chance < 0.001


def test_every_published_table_has_a_source_and_is_small():
    for each in published.PUBLISHED.values():
        assert each.source
        assert each.file.stat().st_size < 100_000
        assert each.rows()


def test_unknown_published_names_are_answered_with_the_closest():
    with pytest.raises(UnknownNameError, match='did you mean "backbones"'):
        published.find("backbone")
    with pytest.raises(UnknownNameError, match=r'did you mean "1\.2M unfrozen"'):
        published.backbones("unfrozen")


# Gaps.


def run(folder, replies, mode="normal", model="m", task="plain", chance=50.0, **asked):
    folder.mkdir(parents=True)
    identity = {"task": task, "task_version": 1, "model": model, "mode": mode, "limit": None, "seed": 0, **asked}
    SampleLog(folder, identity).finish(some(replies))
    right = 100 * replies.count("A") / len(replies)
    document = {"complete": True, "score": right, "scores": {"score": {"accuracy": right, "chance": chance}}}
    (folder / "metrics.json").write_text(json.dumps(document))
    return folder


def test_the_gap_of_two_runs_is_paired_and_beside_chance(tmp_path):
    run(tmp_path / "seeing", "AAAAAAABBB")
    run(tmp_path / "blind", "AABBABBBBA", mode="blind")
    (gap,) = gaps_of_runs([tmp_path])
    assert (gap.enabled, gap.disabled, gap.gap, gap.chance, gap.above_chance) == (70, 40, 30, 50, -10)
    changes = [100 * ((a == "A") - (b == "A")) for a, b in zip("AAAAAAABBB", "AABBABBBBA", strict=True)]
    expected = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert gap.interval == pytest.approx((expected.low, expected.high))
    assert (gap.num, gap.basis) == (10, "questions")
    assert gap.parse_rates == (100, 100)


def test_a_run_without_its_counterpart_is_named_with_the_command(tmp_path):
    seeing = run(tmp_path / "seeing", "AB")
    with pytest.raises(DataError, match=f"{seeing}: found plain by m, normal, without its counterpart.*--blind"):
        gaps_of_runs([seeing])
    run(tmp_path / "again", "AB")
    with pytest.raises(DataError, match="found two runs of plain, mode normal"):
        gaps_of_runs([tmp_path])


@pytest.mark.parametrize(
    "asked", [{"prompt": "bare"}, {"model_fingerprint": "2"}, {"compat": "lmms-eval"}, {"data_sha256": "2"}]
)
def test_a_gap_is_of_pictures_alone(tmp_path, asked):
    """A blind run of other weights, or asked in another way, is nobody's counterpart; its own makes a second gap."""
    usual = {"prompt": "direct", "model_fingerprint": "1", "compat": None, "data_sha256": "1"}
    run(tmp_path / "seeing", "AAAB", **usual)
    run(tmp_path / "blind", "ABBB", mode="blind", **{**usual, **asked})
    with pytest.raises(DataError, match="without its counterpart of the same weights, data, prompt and rules"):
        gaps_of_runs([tmp_path])
    run(tmp_path / "blind too", "ABAB", mode="blind", **usual)
    run(tmp_path / "seeing too", "AAAA", **{**usual, **asked})
    assert [gap.gap for gap in gaps_of_runs([tmp_path])] == [25, 75]


def test_gaps_of_a_table_are_averaged_over_models(tmp_path):
    file = tmp_path / "gaps.csv"
    rows = [("mmvp", 40, 18, 25, "a"), ("mmvp", 36, 20, 25, "b"), ("mmvp", 30, 17, 25, "c"), ("gqa", 60, 40, "", "a")]
    file.write_text("benchmark,enabled,disabled,chance,model\n" + "".join(f"{','.join(map(str, r))}\n" for r in rows))
    mmvp, gqa = read_gaps(file)
    expected = stats.ttest_rel([40, 36, 30], [18, 20, 17]).confidence_interval(0.95)
    assert mmvp.interval == pytest.approx((expected.low, expected.high))
    assert (mmvp.model, mmvp.gap, mmvp.chance) == ("3 models", pytest.approx(17), 25)
    assert (gqa.interval, gqa.chance, gqa.above_chance) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("benchmark,enabled\nx,1\n", "missing column disabled; found benchmark, enabled"),
        ("benchmark,enabled,disabled\nx,1,high\n", "found 'high' as disabled of x"),
        ("benchmark,enabled,disabled\n", "found no line below the header"),
        ("benchmark,enabled,disabled,chance\nx,1,0,25\nx,2,0,50\n", "found chance 25.0, 50.0 for x"),
    ],
)
def test_a_table_of_gaps_that_is_none_is_refused(tmp_path, text, told):
    file = tmp_path / "gaps.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_gaps(file)


def test_gaps_of_several_models_are_averaged_by_benchmark():
    gaps = [
        Gap("mme", name, seeing, 900.0, None, 1000.0, 10, "questions", 2000.0)
        for name, seeing in (("a", 1500), ("b", 1300))
    ]
    (found,) = average(gaps)
    assert (found.enabled, found.gap, found.full, found.basis) == (1400, 500, 2000, "models")


def test_runs_make_a_table_of_scores(tmp_path):
    run(tmp_path / "a" / "x", "AB", model="a", task="x")
    run(tmp_path / "a" / "y", "AA", model="a", task="y")
    run(tmp_path / "b" / "x", "BB", model="b", task="x")
    run(tmp_path / "b" / "blind", "AB", model="b", task="x", mode="blind")
    found = read_runs([tmp_path / "a", tmp_path / "b"])
    rows = dict(zip(found.models, found.scores, strict=True))
    assert found.benchmarks == ("x", "y")
    assert rows == {"a": (50, 100), "b": (0, None), "b, without pictures": (50, None)}
    run(tmp_path / "b" / "again", "AB", model="b", task="x")
    with pytest.raises(DataError, match="found a second run of x by b"):
        read_runs([tmp_path / "b"])


# Plots.


def test_benchmarks_are_drawn(tmp_path):
    scores = published.backbones("1.2M")
    found = find_groups(scores, 4, method="pearson", linkage="ward")
    file = tmp_path / "benchmarks.png"
    plots.plot_benchmarks(file, "Title", correlate(scores), found, components(scores), CATEGORIES)
    assert file.read_bytes().startswith(PNG)


def test_benchmarks_without_components_and_groups_are_drawn(tmp_path):
    scores = table(two_kinds())
    found = find_groups(scores, 2, method="pearson", linkage="ward")
    file = tmp_path / "benchmarks.png"
    plots.plot_benchmarks(file, "Title", correlate(scores), found, None, CATEGORIES)
    assert file.read_bytes().startswith(PNG)


def test_gaps_are_drawn_in_percent_of_a_perfect_score(tmp_path):
    gaps = [Gap("mme", "m", 1500.0, 900.0, (500.0, 700.0), 1000.0, 10, "questions", 2000.0)]
    plots.plot_gaps(tmp_path / "gaps.png", "Title", gaps)
    assert (tmp_path / "gaps.png").read_bytes().startswith(PNG)


def test_a_plot_needs_a_name_and_a_place(tmp_path):
    gaps = [Gap("x", "m", 60.0, 50.0, None, None, 10, "questions")]
    with pytest.raises(EvalError, match="Plots are PNG files"):
        plots.plot_gaps(tmp_path / "gaps.pdf", "Title", gaps)
    with pytest.raises(EvalError, match="found no folder to put it into"):
        plots.plot_gaps(tmp_path / "missing" / "gaps.png", "Title", gaps)
