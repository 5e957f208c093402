"""`cambrian analysis`: the paper's tables, tables of one's own, runs with and without pictures, and what is refused."""

import csv
import json
from pathlib import Path

import pytest

from tests.eval.benchmark_folder import write_cvbench


def result(outcome):
    assert outcome.status == 0, outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])


def test_the_papers_tables_are_listed_with_their_sources(cambrian):
    outcome = cambrian("analysis", "table")
    assert outcome.status == 0
    assert "blind-gaps" in outcome.stdout
    assert "read from the plot by eye" in outcome.stdout
    assert len(result(cambrian("analysis", "table", "--json"))["tables"]) == 5


def test_final_models_are_printed_with_averages_made_of_their_scores(cambrian):
    found = result(cambrian("analysis", "table", "final-models", "--csv", "final.csv", "--json"))
    (row,) = [row for row in found["rows"] if row["model"] == "Cambrian-1-8B"]
    assert (row["mme"], row["general"], row["general, recomputed"]) == ("1547.1", "73.1", "73.14")
    with Path("final.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == found["rows"]
    printed = cambrian("analysis", "table", "final-models").stdout
    assert "final models on 16 benchmarks, with the averages as printed: vision-centric" in printed


def test_backbones_are_set_beside_the_papers_groups(cambrian):
    outcome = cambrian("analysis", "benchmarks", "--plot", "plot.png", "--csv", "correlations.csv")
    assert outcome.status == 0, outcome.stderr
    assert "13 of 16 benchmarks lie where the paper puts them" in outcome.stdout
    assert "scienceqa: knowledge in the paper, here with ocr-chart" in outcome.stdout
    assert "mmmu: the paper places it by the content of its questions" in outcome.stdout
    assert Path("plot.png").stat().st_size > 10_000
    assert len(Path("correlations.csv").read_text().splitlines()) == 17


def test_a_setting_and_other_ways_to_cluster_are_machine_readable(cambrian):
    options = ("--setting", "1.2M", "--method", "spearman", "--keep-general", "--linkage", "average", "--groups", "3")
    found = result(cambrian("analysis", "benchmarks", "backbones", *options, "--without", "mmmu", "--json"))
    assert (len(found["models"]), len(found["benchmarks"]), len(found["clusters"])) == (18, 15, 3)
    assert found["correlations"][0][0] == 1
    assert sum(found["explained"]) == pytest.approx(1)
    assert set(found["agreement"]["expected"]) == set(found["benchmarks"])


def test_a_table_of_ones_own_with_holes_needs_a_word_on_them(cambrian, refused):
    lines = ["model,x,y,z", "a,1,2,9", "b,2,4,7", "c,3,5,", "d,4,9,3", "e,5,9,1"]
    Path("mine.csv").write_text("\n".join(lines) + "\n")
    assert "1 of 15 scores are missing" in refused("analysis", "benchmarks", "mine.csv")
    found = result(cambrian("analysis", "benchmarks", "mine.csv", "--missing", "models", "--groups", "2", "--json"))
    assert found["notes"] == ["models without all scores are left out: c"]
    assert found["agreement"] is None
    pairwise = result(
        cambrian("analysis", "benchmarks", "mine.csv", "--missing", "pairwise", "--groups", "2", "--json")
    )
    assert pairwise["num_models"] == [[5, 5, 4], [5, 5, 4], [4, 4, 4]]
    assert pairwise["loadings"] is None


def test_unknown_names_are_answered_with_the_closest(refused):
    assert 'did you mean "backbones"' in refused("analysis", "benchmarks", "backbonse")
    assert 'did you mean "blind-gaps"' in refused("analysis", "table", "blindgaps")
    assert 'did you mean "0.5M"' in refused("analysis", "benchmarks", "--setting", "0.5")
    assert 'did you mean "mmvp"' in refused("analysis", "benchmarks", "--without", "mvp")
    assert "--setting is of the published backbones" in refused(
        "analysis", "benchmarks", "final-models", "--setting", "0M"
    )
    assert "one published table at a time" in refused("analysis", "table", "backbones", "final-models")
    assert "give either runs or --table FILE" in refused("analysis", "gaps")
    assert "Plots are PNG files" in refused("analysis", "benchmarks", "--plot", "plot.svg")
    assert "no folder to put it into" in refused("analysis", "table", "backbones", "--csv", "nowhere/b.csv")


def test_runs_with_and_without_pictures_make_gaps_and_a_table(cambrian, refused, tmp_path_factory):
    benchmark = write_cvbench(tmp_path_factory.mktemp("bench"), per_group=4)
    for model in ("random:1", "constant:A"):
        for options in ((), ("--blind",)):
            output = Path("runs") / f"{model.replace(':', '-')}{''.join(options)}"
            outcome = cambrian("eval", "cvbench", "--model", model, "--data", benchmark, "--output", output, *options)
            assert outcome.status == 0, outcome.stderr
    found = result(cambrian("analysis", "gaps", "runs", "--plot", "gaps.png", "--json"))
    assert {gap["model"] for gap in found["gaps"]} == {"random:1", "constant:A"}
    assert all(gap["gap"] == 0 and gap["chance"] > 0 for gap in found["gaps"])  # neither model looks at pictures
    assert [gap["model"] for gap in found["averaged"]] == ["2 models"]
    assert Path("gaps.png").stat().st_size > 5_000
    rows = result(cambrian("analysis", "table", "runs", "--json"))["rows"]
    assert {row["model"] for row in rows} >= {"random:1", "random:1, without pictures"}
    assert "without its counterpart" in refused("analysis", "gaps", "runs/random-1")


def test_gaps_of_a_table_are_printed_smallest_first(cambrian):
    Path("gaps.csv").write_text("benchmark,enabled,disabled,chance\nmmvp,40,15,25\nscienceqa,70,68,40\n")
    outcome = cambrian("analysis", "gaps", "--table", "gaps.csv")
    assert outcome.status == 0
    assert outcome.stdout.index("scienceqa") < outcome.stdout.index("mmvp")
    assert "-10.0" in outcome.stdout  # MMVP without pictures is below chance


def test_a_name_in_a_table_is_no_formula_to_a_spreadsheet_and_a_number_below_zero_is_a_number(cambrian):
    Path("mine.csv").write_text("model,=a,b\n=x,1,5\ny,2,3\nz,3,4\n")
    assert cambrian("analysis", "benchmarks", "mine.csv", "--groups", "2", "--csv", "found.csv").status == 0
    assert Path("found.csv").read_text() == "benchmark,'=a,b\n'=a,1.0,-0.5\nb,-0.5,1.0\n"
