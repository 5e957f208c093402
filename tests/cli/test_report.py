import csv
import json
from pathlib import Path

import pytest

from cambrian_eval import evaluate, load_model
from tests.eval.benchmark_folder import write_cvbench


@pytest.fixture
def runs(tmp_path):
    """Two runs of one benchmark and their data."""
    data = write_cvbench(tmp_path / "data")
    model, folder = load_model("random:1"), tmp_path / "runs"
    evaluate("cvbench", model, data=data, output=folder / "plain")
    evaluate("cvbench", model, data=data, output=folder / "blind", mode="blind")
    return tmp_path / "runs"


def test_one_run_is_shown_with_the_place_of_its_page(cambrian, runs):
    outcome = cambrian("report", runs / "plain")
    assert outcome.status == 0
    for text in ("CV-Bench 2D", "95 % interval", "chance", "best constant", "parsed", "plain/report.html"):
        assert text in outcome.stdout
    assert sorted(path.name for path in Path().iterdir()) == ["data", "runs"]


def test_one_run_is_written_as_it_was_with_its_data_at_hand(cambrian, runs):
    assert cambrian("report", runs / "plain", "--data", "data", "--output", "out").status == 0
    assert Path("out/report.html").read_bytes() == (runs / "plain" / "report.html").read_bytes()
    assert Path("out/report.md").read_bytes() == (runs / "plain" / "metrics.md").read_bytes()
    assert Path("out/report.csv").read_bytes() == (runs / "plain" / "metrics.csv").read_bytes()


def test_folder_of_runs_stands_side_by_side_with_what_is_published(cambrian, runs):
    outcome = cambrian("report", runs, "--published", "cambrian-1-8b", "--output", "out")
    for text in ("random:1, without pictures", "Cambrian-1-8B", "(published)", "no intervals are published"):
        assert text in outcome.stdout
    assert "| cvbench |" in Path("out/report.md").read_text()
    assert "Runs side by side" in Path("out/report.html").read_text()
    lines = list(csv.DictReader(Path("out/report.csv").read_text().splitlines()))
    assert {line["column"] for line in lines} >= {"random:1", "Cambrian-1-8B (published)"}


def test_ending_of_the_output_chooses_one_file(cambrian, runs):
    for name in ("table.md", "table.csv", "page.html"):
        assert cambrian("report", runs, "--output", f"one/{name}").status == 0
    assert sorted(path.name for path in Path("one").iterdir()) == ["page.html", "table.csv", "table.md"]


def test_json_has_every_cell(cambrian, runs):
    outcome = cambrian("report", runs / "plain", runs / "blind", "--json", "--output", "x.md")
    found = json.loads(outcome.stdout)
    assert found["columns"] == ["random:1", "random:1, without pictures"]
    assert found["files"] == ["x.md"]
    first = found["scores"][0]["cells"][0]
    assert first["complete"] is True
    assert first["parse_rate"] == 100
    assert first["low"] < first["score"] < first["high"]
    one = json.loads(cambrian("report", runs / "plain", "--json").stdout)
    assert one["result"]["score"] == first["score"]


def test_runs_own_files_are_not_replaced(refused, runs):
    for output in (runs / "plain", runs / "plain" / "report.html"):
        assert "Choose another output" in refused("report", runs / "plain", "--output", output)


def test_mistakes_are_refused(refused, runs, tmp_path):
    assert "found no such folder" in refused("report", "nowhere")
    assert "did you mean" in refused("report", runs, "--published", "cambrian-1-8")
    assert "pictures in the page of one run" in refused("report", runs, "--data", "data")
    (tmp_path / "note.txt").write_text("x")
    assert "expected a folder" in refused("report", runs, "--output", "note.txt")
    (tmp_path / "runs" / "plain" / "samples.jsonl").write_text("[]\n")
    assert "samples.jsonl:1" in refused("report", runs / "plain")
