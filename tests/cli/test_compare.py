"""`cambrian compare`: real runs of baselines, their difference and its reasons, and what does not compare."""

import json
from pathlib import Path

import pytest

from tests.eval.benchmark_folder import truths, write_cvbench


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    return write_cvbench(tmp_path_factory.mktemp("bench"), per_group=6)


@pytest.fixture
def evaluate(cambrian, benchmark):
    """Runs `cambrian eval cvbench` on the small benchmark."""

    def call(output: str, model: str, *options: str) -> str:
        outcome = cambrian("eval", "cvbench", "--model", model, "--data", benchmark, "--output", output, *options)
        assert outcome.status == 0, outcome.stderr
        return output

    return call


def result(outcome):
    assert outcome.status == 0, outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])["comparisons"]


def test_two_models_are_compared_on_every_question(cambrian, evaluate):
    runs = evaluate("a", "constant:A"), evaluate("b", "constant:B")
    outcome = cambrian("compare", *runs)
    assert outcome.status == 0
    assert "Second run minus first" in outcome.stdout
    assert "model: name: constant:A against constant:B" in outcome.stdout
    assert "questions that score differently" in outcome.stdout
    (found,) = result(cambrian("compare", *runs, "--json"))
    scores = [json.loads(Path(run, "metrics.json").read_text())["score"] for run in runs]
    assert found["scores"] == pytest.approx(scores)
    assert found["difference"]["mean"] == pytest.approx(scores[1] - scores[0])
    assert found["difference"]["low"] < found["difference"]["mean"] < found["difference"]["high"]
    assert found["gained"] + found["lost"] == len(found["flips"])
    assert found["p_holm"] == found["p"] == found["mcnemar"]


def test_a_shorter_budget_is_told_as_decoding(cambrian, evaluate):
    runs = evaluate("a", "random:1"), evaluate("b", "random:1", "--max-new-tokens", "4")
    (found,) = result(cambrian("compare", *runs, "--json"))
    assert found["difference"]["mean"] == 0
    assert {reason["kind"] for reason in found["reasons"]} == {"decoding"}
    assert "cap on new tokens: none against 4" in [reason["text"] for reason in found["reasons"]]


def test_blind_and_seeing_runs_are_told_apart_by_their_pictures(cambrian, evaluate):
    runs = evaluate("a", "random:1"), evaluate("b", "random:1", "--blind")
    (found,) = result(cambrian("compare", *runs, "--json"))
    assert "pictures shown: normal against blind" in [reason["text"] for reason in found["reasons"]]


def test_folders_of_runs_get_holms_correction_and_a_page(cambrian, evaluate):
    for model in "AB":
        evaluate(f"{model}/cvbench", f"constant:{model}")
        evaluate(f"{model}/blind", f"constant:{model}", "--blind")
    found = result(cambrian("compare", "A", "B", "--json", "--output", "page.md", "--flips", "0"))
    assert len(found) == 2
    assert all(each["p_holm"] == pytest.approx(min(1, 2 * each["p"])) for each in found)
    page = Path("page.md").read_text()
    assert page.startswith("# Second run minus first")
    assert page.count("\n## cvbench") == 2


def test_a_limited_run_does_not_compare_with_a_full_one_unless_told_to(cambrian, refused, evaluate):
    runs = evaluate("full", "random:1"), evaluate("limited", "random:1", "--limit", "12")
    assert "compare the shared ones with --shared" in refused("compare", *runs)
    (found,) = result(cambrian("compare", *runs, "--shared", "--json"))
    assert found["num_shared"] == 12
    assert found["num_only"][1] == 0


def test_other_benchmarks_and_other_folders_are_refused(cambrian, refused, evaluate, benchmark):
    whole = evaluate("whole", "random:1")
    outcome = cambrian("eval", "cvbench-2d", "--model", "random:1", "--data", benchmark, "--output", "part")
    assert outcome.status == 0
    assert "found cvbench and cvbench-2d, expected two runs of one benchmark" in refused("compare", whole, "part")
    assert "found no such folder" in refused("compare", whole, "missing")
    assert "found 1 runs, expected two or more" in refused("compare", whole)
    assert "no folder to put it into" in refused("compare", whole, whole, "--output", "nowhere/page.md")


def test_canned_replies_show_which_questions_flip(cambrian, evaluate, benchmark, tmp_path):
    known = truths(benchmark)
    one = next(iter(known))
    for name, wrong in (("right", ()), ("wrong", (one,))):
        lines = [{"id": id, "reply": "E" if id in wrong else truth} for id, truth in known.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = [evaluate(name, f"canned:{tmp_path / name}.jsonl") for name in ("right", "wrong")]
    (found,) = result(cambrian("compare", *runs, "--json"))
    (flip,) = found["flips"]
    assert (flip["id"], flip["replies"][1], flip["change"]) == (one, "E", -1)
    assert found["causes"] == {"other reply to the same prompt": 1}
