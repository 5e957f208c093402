import json
import shutil

import pytest

from cambrian_eval import evaluate
from cambrian_eval.models.canned import Canned
from tests.eval.benchmark_folder import truths, write_cvbench
from tests.support.endpoint import say, serve


@pytest.fixture
def run(tmp_path):
    data = write_cvbench(tmp_path / "data")
    replies = {name: f"({letter})" for name, letter in truths(data).items()} | {"2d-0": "I think (A) or (B)"}
    evaluate("cvbench", Canned(replies), data=data, output=tmp_path / "run")
    return tmp_path / "run"


def test_nothing_is_written_where_nothing_changed(cambrian, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    outcome = cambrian("rescore", run)
    assert outcome.status == 0
    assert "nothing changed" in outcome.stdout
    assert "0 of 18 replies are read otherwise" in outcome.stdout
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_what_changed_is_listed_and_said_to_be_written(cambrian, run):
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    lines[2] |= {"value": 0.0, "extracted": None, "rule": "abstain: of old"}
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = cambrian("rescore", run)
    for text in (lines[2]["id"], "abstain: of old", "bare letter", "1 are worth more, 0 less", "rescored.jsonl"):
        assert text in outcome.stdout
    assert "--data DIR" in outcome.stdout
    assert json.loads((run / "metrics.json").read_text())["rescored"]["compat"] is None


def test_other_tools_rules_show_where_they_differ(cambrian, run):
    outcome = cambrian("rescore", run, "--compat", "lmms-eval", "--changes", "1")
    assert "1 of 1 replies that are read otherwise" in outcome.stdout
    assert "17 replies are read as before, by a rule of another name" in outcome.stdout
    assert "nothing is written" in outcome.stdout
    assert cambrian("rescore", run, "--compat", "lmms-eval", "--output", "lmms", "--data", "data").status == 0
    both = cambrian("report", run, "lmms")
    assert "rules of lmms-eval" in both.stdout


def test_a_reply_does_not_steer_the_terminal(cambrian, run):
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    lines[2] |= {"reply": "\x1b[2J\x07 B", "value": 0.5}
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = cambrian("rescore", run)
    assert "[2J B" in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_json_lists_all_changes(cambrian, run):
    found = json.loads(cambrian("rescore", run, "--compat", "vlmevalkit", "--json").stdout)
    assert found["written"] is None
    assert found["num_changes"] == len(found["changes"]) == 18
    assert found["changes"][0]["old"]["rule"] != found["changes"][0]["new"]["rule"]
    assert found["result"]["n"] == 18


def test_judge_is_shown_beside_the_rule(cambrian, run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with serve(lambda number, body: say("correct")) as server:
        outcome = cambrian("rescore", run, "--judge", f"{server.base_url}#judge")
    assert "100.0 % against the rule's 94.4 % on 18 replies; they agree on 94.4 %" in outcome.stdout
    assert json.loads((run / "metrics.json").read_text())["judge"]["score"] == 100
    assert not any(b"sesame" in path.read_bytes() for path in run.iterdir())


def test_mistakes_are_refused(refused, run):
    assert "found no run.json" in refused("rescore", "nowhere")
    assert "expected BASE_URL#MODEL" in refused("rescore", run, "--judge", "judge")
    assert "lmms-eval" in refused("rescore", run, "--compat", "lmms_eval")
    assert "own folder" in refused("rescore", run, "--output", run)
    shutil.rmtree(run / ".." / "data" / "img")
    assert "picture" in refused("rescore", run, "--data", "data")
