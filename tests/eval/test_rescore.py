"""Scoring logged replies again: what changes, what is written where, and what is refused."""

import json
import shutil

import pytest

from cambrian_eval import TASKS, EvalError, Failure, UnknownNameError, evaluate
from cambrian_eval.compat import PROFILES
from cambrian_eval.endpoint.address import Address
from cambrian_eval.endpoint.client import ChatClient, Patience
from cambrian_eval.examples import write_example
from cambrian_eval.judge import VERDICTS
from cambrian_eval.log import hold, read_answers
from cambrian_eval.models.canned import Canned
from cambrian_eval.report import side_by_side
from cambrian_eval.report.html import run_page
from cambrian_eval.report.recorded import read_recorded
from cambrian_eval.rescore import CHANGES, rescore
from cambrian_eval.tasks.cvbench import CVBENCH
from tests.eval.benchmark_folder import png, truths, write_cvbench
from tests.support.endpoint import fail, say, serve

FILES = ("run.json", "samples.jsonl", "metrics.json", "report.html", "metrics.md", "metrics.csv", "failures.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A finished run, some of whose replies other tools read otherwise."""
    replies = {name: f"({letter})" for name, letter in truths(folder).items()}
    names = list(replies)
    replies[names[0]] = "It could be (A) or (B)."
    replies[names[1]] = "I do not know"
    run = tmp_path_factory.mktemp("runs") / "run"
    evaluate("cvbench", Canned(replies), data=folder, output=run)
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def files(run):
    return {name: (run / name).read_bytes() for name in FILES}


def spoil(run, number=3, **fields):
    """A line of the log as other rules would have left it, and metrics that go with it."""
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    lines[number] |= fields
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines[number]["id"]


def test_a_run_whose_rules_have_not_changed_is_left_as_it_is(run):
    before = files(run)
    found = rescore(run)
    assert (found.written, found.changes) == (None, ())
    assert "nothing changed" in found.why
    assert files(run) == before


def test_changed_rules_give_the_files_that_an_evaluation_would_have_given(run, folder):
    before = files(run)
    id = spoil(run, value=0.0, extracted=None, rule="abstain: of old")
    found = rescore(run, data=folder)
    (change,) = found.changes
    assert (change.id, change.old.value, change.new.value) == (id, 0.0, 1.0)
    assert (change.old.rule, change.new.rule) == ("abstain: of old", "bare letter")
    assert (found.num_read_otherwise, found.num_gained, found.num_lost) == (1, 1, 0)
    assert found.written == run
    after = files(run)
    for name in ("run.json", "samples.jsonl", "metrics.md", "metrics.csv", "failures.json"):
        assert after[name] == before[name]
    document = json.loads(after["metrics.json"])
    rules = document.pop("rescored")
    assert document == json.loads(before["metrics.json"])
    assert rules == {"task_version": CVBENCH.version, "cambrian-eval": rules["cambrian-eval"], "compat": None}
    assert b"data:image/jpeg" in after["report.html"]


def test_what_is_replaced_is_kept(run):
    id = spoil(run, value=0.0, extracted=None, rule="abstain: of old")
    rescore(run)
    spoil(run, number=4, value=0.0, extracted=None, rule="abstain: of old")
    rescore(run)
    kept = [json.loads(line) for line in (run / CHANGES).read_text().splitlines()]
    assert len(kept) == 2
    assert kept[0]["id"] == id
    assert kept[0]["old"] == {"value": 0.0, "extracted": None, "rule": "abstain: of old"}


def test_rescored_run_can_be_resumed_by_an_evaluation(run, folder):
    spoil(run, value=0.0, extracted=None, rule="abstain: of old")
    before = rescore(run).result.metrics
    replies = {answer.question.id: answer.answer.text for answer in read_answers(run)}
    assert evaluate("cvbench", Canned(replies), data=folder, output=run).metrics == before


def test_version_of_the_rules_is_written(run):
    identity = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**identity, "task_version": 0}))
    document = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**document, "task_version": 0}))
    found = rescore(run)
    assert found.why == f"every reply is read as before, by version {CVBENCH.version}"
    assert json.loads((run / "run.json").read_text())["task_version"] == CVBENCH.version
    assert json.loads((run / "metrics.json").read_text())["rescored"]["task_version"] == CVBENCH.version


def test_other_tools_rules_do_not_replace_the_runs_own(run):
    before = files(run)
    found = rescore(run, compat="lmms-eval")
    assert found.written is None
    assert "give an output" in found.why
    assert found.num_read_otherwise == 2  # lmms-eval takes the I of both for a letter
    assert found.changes[0].is_read_otherwise
    assert not found.changes[-1].is_read_otherwise
    assert files(run) == before


def test_other_tools_rules_go_to_an_output_that_names_them(run, tmp_path):
    before = files(run)
    found = rescore(run, compat="lmms-eval", output=tmp_path / "lmms")
    assert found.written == tmp_path / "lmms"
    assert files(run) == before
    identity = json.loads((tmp_path / "lmms" / "run.json").read_text())
    assert identity["rescored"]["compat"] == "lmms-eval"
    assert identity["compat"] is None  # the prompt is still the task's own
    assert "rules of lmms-eval" in (tmp_path / "lmms" / "metrics.md").read_text()
    assert read_recorded(tmp_path / "lmms").result.metrics.summary["score"] == found.result.metrics.summary["score"]
    assert rescore(tmp_path / "lmms").written is None  # by the same rules again


def test_unknown_tool_and_replies_it_cannot_read_are_refused(run):
    with pytest.raises(UnknownNameError, match="lmms-eval"):
        rescore(run, compat="lmms-evil")
    identity = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**identity, "scoring": "logits"}))
    with pytest.raises(EvalError, match="reads neither thoughts nor likelihoods"):
        rescore(run, compat="lmms-eval")


def test_interrupted_run_is_scored_and_said_to_be_incomplete(run):
    for name in ("metrics.json", "failures.json", "report.html"):
        (run / name).unlink()
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"id": "torn')
    found = rescore(run)
    assert found.why == "the run had no metrics yet"
    document = json.loads((run / "metrics.json").read_text())
    assert document["complete"] is False
    assert "interrupted" in document["warnings"][0]
    assert rescore(run).written is None


def test_failed_questions_stay_failed(folder, tmp_path):
    class Patchy(Canned):
        def answer(self, prompts):
            return [Failure("down") if prompt.id == "2d-0" else "A" for prompt in prompts]

    evaluate("cvbench", Patchy({}), data=folder, output=tmp_path / "run")
    found = rescore(tmp_path / "run", output=tmp_path / "new")
    assert (found.result.num_answered, found.result.num_failed) == (17, 1)
    assert json.loads((tmp_path / "new" / "failures.json").read_text()) == {"2d-0": "down"}


def test_permuted_and_open_replies_are_scored_again_alike(folder, tmp_path):
    run = tmp_path / "run"
    evaluate("cvbench", Canned(dict.fromkeys(truths(folder), "(A)")), data=folder, output=run)
    evaluate("cvbench", _Always(), data=folder, output=tmp_path / "permuted", permute=4)
    evaluate("cvbench", _Always(), data=folder, output=tmp_path / "thought", prompt="cot")
    for name in ("run", "permuted", "thought"):
        assert rescore(tmp_path / name).written is None


@pytest.mark.parametrize("task", TASKS.names())
def test_every_benchmark_is_scored_again_from_its_log_alone(task, tmp_path):
    write_example(TASKS.get(task), tmp_path / "data", png(1))
    evaluate(task, _Always(), data=tmp_path / "data", output=tmp_path / "run")
    found = rescore(tmp_path / "run")
    assert found.changes == ()
    assert found.written is None
    held = read_recorded(tmp_path / "run", tmp_path / "data")
    page = (tmp_path / "run" / "report.html").read_text()
    assert run_page(held.result, held.answers) == page
    assert "None" not in page.partition('<section id="checks">')[0]
    assert len(side_by_side.arrange([held], "all").columns) == 16


@pytest.mark.parametrize("compat", PROFILES)
def test_other_tools_rules_read_every_reply_of_a_task_they_know(compat, folder, run, tmp_path):
    evaluate("cvbench", _Always(), data=folder, output=tmp_path / "asked", compat=compat)
    assert rescore(tmp_path / "asked").written is None
    again = rescore(run, compat=compat, output=tmp_path / "read")
    assert again.written is not None
    assert rescore(tmp_path / "read", compat=compat).why == "nothing changed: the run is left as it is"


class _Always:
    name = "always"
    fingerprint = "always:1"

    def answer(self, prompts):
        return ["I think.\nAnswer: A" for _ in prompts]


@pytest.mark.parametrize("kind", ["file", "full"])
def test_output_in_use_is_refused(run, tmp_path, kind):
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("x")
    else:
        output.mkdir()
        (output / "mine").write_text("x")
    with pytest.raises(EvalError, match="expected a new or empty folder"):
        rescore(run, output=output)
    with pytest.raises(EvalError, match="the run's own folder"):
        rescore(run, output=run)


def test_run_that_is_being_written_is_not_touched(run):
    with hold(run), pytest.raises(EvalError, match="another evaluation is writing"):
        rescore(run)


def test_logs_of_several_processes_are_refused(run):
    (run / "samples.1.jsonl").write_text("")
    with pytest.raises(EvalError, match="logs of several processes"):
        rescore(run)


def test_folder_without_a_run_is_refused_and_not_made(tmp_path):
    with pytest.raises(EvalError, match=r"found no run\.json"):
        rescore(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("version", [0, TASKS.get("gqa").version])
def test_log_without_what_the_rules_need_is_refused(tmp_path, version):
    write_example(TASKS.get("gqa"), tmp_path / "data", png(1))
    evaluate("gqa", _Always(), data=tmp_path / "data", output=tmp_path / "run")
    spoil(tmp_path / "run", number=0, details={})
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({**document, "task_version": version}))
    with pytest.raises(EvalError, match=r"no detail 'semantic' in the log.*Evaluate it again"):
        rescore(tmp_path / "run")


def test_task_that_is_not_listed_is_refused(run):
    identity = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**identity, "task": "my-own"}))
    with pytest.raises(EvalError, match="its rules are not known here"):
        rescore(run)


# A judge.


def client_of(server):
    patience = Patience(attempts=1, timeout=5, first_wait=0.01, outage=60)
    return ChatClient(Address.parse(f"{server.base_url}#judge"), patience=patience)


def test_judge_is_reported_beside_the_rule(run):
    with serve(lambda number, body: say("correct")) as server:
        found = rescore(run, client=client_of(server))
    assert found.written == run
    assert found.changes == ()
    document = json.loads((run / "metrics.json").read_text())
    assert document["score"] == found.old_score  # the rule's, as before
    assert document["judge"]["score"] == 100
    assert document["judge"]["agreement"]["n"] == 18
    assert len(document["judge"]["agreement"]["judge_only"]) == 2
    assert "Rule and judge" in (run / "report.html").read_text()


def test_judge_is_not_asked_again_and_stays_in_later_results(run, tmp_path):
    with serve(lambda number, body: say("correct")) as server:
        rescore(run, client=client_of(server))
        num_asked = len(server.seen)
        rescore(run, client=client_of(server), output=tmp_path / "again")
        assert len(server.seen) == num_asked
    found = rescore(run, output=tmp_path / "later")
    assert found.result.checks["judge"]["score"] == 100
    assert (tmp_path / "later" / VERDICTS).is_file()


def test_judge_that_fails_is_a_warning_and_no_verdict(run):
    with serve(lambda number, body: fail(400) if number == 0 else say("correct")) as server:
        found = rescore(run, client=client_of(server))
    judged = found.result.checks["judge"]
    assert (judged["n"], judged["n_failed"], judged["score"]) == (17, 1, None)
    assert "did not answer on 1 of 18" in found.result.checks["warnings"][-1]
