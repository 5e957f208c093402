import dataclasses
import errno
import fcntl
import json
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cambrian_eval import Answer, DataError, EvalError, Failure, ModelError, RunMismatchError, evaluate, load_model
from cambrian_eval.errors import OutOfMemoryError
from cambrian_eval.log import hold
from cambrian_eval.models.baselines import ConstantReply, RandomChoice
from cambrian_eval.models.canned import Canned
from cambrian_eval.task import Submission
from cambrian_eval.tasks.cvbench import CVBENCH
from cambrian_eval.types import Score
from tests.eval.benchmark_folder import row, truths, write_cvbench, write_jsonl

FILES = ("run.json", "samples.jsonl", "metrics.json", "failures.json", "report.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=6)


class Recorder:
    """Answers A and remembers what it was asked; subclasses misbehave."""

    name = "recorder"
    fingerprint = "recorder:1"

    def __init__(self):
        self.batches = []

    def answer(self, prompts):
        self.batches.append([prompt.id for prompt in prompts])
        return ["A" for _ in prompts]


def files(run: Path):
    return {name: (run / name).read_bytes() for name in FILES}


def lines(run: Path):
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def test_two_runs_write_the_same_bytes(folder, tmp_path):
    for run in ("one", "two"):
        evaluate("cvbench", RandomChoice(3), data=folder, output=tmp_path / run, batch_size=5)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_batch_size_does_not_change_the_files(folder, tmp_path):
    evaluate("cvbench", RandomChoice(3), data=folder, output=tmp_path / "one", batch_size=1)
    evaluate("cvbench", RandomChoice(3), data=folder, output=tmp_path / "two", batch_size=100)
    assert files(tmp_path / "one") == files(tmp_path / "two")


CHILD = """
import sys, time
from pathlib import Path
from cambrian_eval import evaluate
from cambrian_eval.models.baselines import RandomChoice

class Slow(RandomChoice):
    def answer(self, prompts):
        print("asked", flush=True)
        time.sleep(0.05)
        return super().answer(prompts)

evaluate("cvbench", Slow(3), data=Path(sys.argv[1]), output=Path(sys.argv[2]), batch_size=4)
"""


def test_killed_run_resumes_and_ends_with_the_bytes_of_an_uninterrupted_one(folder, tmp_path):
    run = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", CHILD, folder, run], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(4):
            assert child.stdout.readline() == "asked\n"
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert not (run / "metrics.json").exists()
    assert 0 < len(lines(run)) < 36
    evaluate("cvbench", RandomChoice(3), data=folder, output=run, batch_size=4)
    evaluate("cvbench", RandomChoice(3), data=folder, output=tmp_path / "whole", batch_size=4)
    assert files(run) == files(tmp_path / "whole")


def test_folder_that_another_evaluation_writes_to_is_refused(folder, tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", CHILD, folder, run], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"
        model = Recorder()
        with pytest.raises(EvalError, match=r"run: another evaluation is writing here. Wait until it has ended, or"):
            evaluate("cvbench", model, data=folder, output=run)
        assert model.batches == []
        child.kill()


def test_folder_is_free_again_after_an_evaluation_or_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    with hold(tmp_path), pytest.raises(EvalError, match="another evaluation"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_disk_without_locks_is_an_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(EvalError, match=r"cannot be locked \(No locks available\)"), hold(tmp_path):
        pass


@pytest.mark.parametrize("kept", [1, 40, 2000, 4001, 9000])
def test_log_torn_at_any_byte_is_resumed_asking_at_most_one_batch_again(folder, tmp_path, kept):
    whole = tmp_path / "whole"
    evaluate("cvbench", Recorder(), data=folder, output=whole, batch_size=4)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "run.json").write_bytes((whole / "run.json").read_bytes())
    (torn / "samples.jsonl").write_bytes((whole / "samples.jsonl").read_bytes()[:kept])
    answered = (torn / "samples.jsonl").read_bytes().count(b"\n")
    model = Recorder()
    evaluate("cvbench", model, data=folder, output=torn, batch_size=4)
    assert sum(map(len, model.batches)) == 36 - answered // 4 * 4
    assert files(torn) == files(whole)


def test_finished_run_asks_nothing_again(folder, tmp_path):
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path)
    before = files(tmp_path)
    again = Recorder()
    evaluate("cvbench", again, data=folder, output=tmp_path)
    assert again.batches == []
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task": "cvbench-2d"}, "task: found 'cvbench', now 'cvbench-2d'"),
        ({"model": ConstantReply("B")}, "model: found 'constant:A', now 'constant:B'"),
        ({"mode": "blind"}, "mode: found 'normal', now 'blind'"),
        ({"limit": 12}, "limit: found None, now 12"),
    ],
)
def test_folder_of_another_run_is_refused_and_the_difference_shown(folder, tmp_path, change, named):
    call = {"task": "cvbench", "model": ConstantReply("A"), "data": folder, "output": tmp_path}
    evaluate(**call)
    before = files(tmp_path)
    with pytest.raises(RunMismatchError, match=named):
        evaluate(**(call | change))
    assert files(tmp_path) == before


def test_changed_data_are_another_run(folder, tmp_path):
    evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path / "run")
    other = write_cvbench(tmp_path / "other", per_group=5)
    with pytest.raises(RunMismatchError, match="data_sha256: found"):
        evaluate("cvbench", ConstantReply(), data=other, output=tmp_path / "run")


def test_log_without_its_identity_is_refused(folder, tmp_path):
    (tmp_path / "samples.jsonl").write_text("{}\n")
    with pytest.raises(RunMismatchError, match=r"samples.jsonl without run.json"):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path)


@pytest.mark.parametrize(
    "line", ["{broken", "[]", '{"id": "2d-0"}', '{"id": "2d-0", "reply": null, "truncated": false}']
)
def test_damaged_line_inside_the_log_is_an_error_with_its_number(folder, tmp_path, line):
    evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path)
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(EvalError, match=r"samples.jsonl:1: found a line that is not an answer"):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path)


def test_output_that_is_a_file_is_an_error(folder, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(EvalError, match="found a file, expected a folder"):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path / "run")


@pytest.mark.parametrize("name", ["link", "link/run"])
def test_output_that_cannot_be_made_is_an_error(folder, tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "to" / "be" / "found")
    with pytest.raises(EvalError, match="the folder cannot be made"):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path / name)


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_number_of_answers_is_an_error_with_both_numbers(folder, tmp_path, change):
    class Miscounting(Recorder):
        def answer(self, prompts):
            return ["A"] * (len(prompts) + change)

    with pytest.raises(ModelError, match=f"found {8 + change} answers to 8 prompts"):
        evaluate("cvbench", Miscounting(), data=folder, output=tmp_path, batch_size=8)
    assert not (tmp_path / "metrics.json").exists()


def test_answer_of_a_strange_type_is_an_error(folder, tmp_path):
    class Strange(Recorder):
        def answer(self, prompts):
            return [None for _ in prompts]

    with pytest.raises(ModelError, match="answer of type NoneType, expected a text"):
        evaluate("cvbench", Strange(), data=folder, output=tmp_path)


@pytest.mark.parametrize(
    ("given", "kind"), [({"2d-0": "A"}, "dict"), ("A" * 36, "str"), ({"A", "B"}, "set"), (None, "NoneType"), (7, "int")]
)
def test_answers_without_an_order_are_an_error(folder, tmp_path, given, kind):
    class Unordered(Recorder):
        def answer(self, prompts):
            return given

    with pytest.raises(ModelError, match=f"recorder: found a {kind}, expected a sequence of answers, in order"):
        evaluate("cvbench", Unordered(), data=folder, output=tmp_path, batch_size=36)


def test_answer_without_a_text_is_an_error(folder, tmp_path):
    class Textless(Recorder):
        def answer(self, prompts):
            return [Answer(None) for _ in prompts]  # type: ignore[arg-type]

    with pytest.raises(ModelError, match="recorder: found an Answer with text None of type NoneType, expected a str"):
        evaluate("cvbench", Textless(), data=folder, output=tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"truncated": None}, "truncated None of type NoneType, expected a bool"),
        ({"reply_tokens": np.int64(3)}, r"reply_tokens .*3.* of type int64, expected None or an int from 0 on"),
        ({"image_tokens": -1}, "image_tokens -1 of type int, expected None or an int from 0 on"),
        ({"option_scores": (np.float32(-1.0),)}, "option_scores .* expected a tuple of finite floats"),
        ({"option_scores": (-0.5, math.nan)}, "option_scores .*nan.*, expected a tuple of finite floats"),
    ],
)
def test_answer_that_could_not_be_logged_is_an_error_and_nothing_is_logged(folder, tmp_path, fields, fault):
    class Odd(Recorder):
        def answer(self, prompts):
            return [Answer("A", **fields) for _ in prompts]

    with pytest.raises(ModelError, match=f"recorder: found an Answer with {fault}"):
        evaluate("cvbench", Odd(), data=folder, output=tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()


def test_empty_replies_are_counted_as_unparsed(folder, tmp_path):
    model = Canned(dict.fromkeys(truths(folder), ""))
    result = evaluate("cvbench", model, data=folder, output=tmp_path).to_dict()
    assert (result["score"], result["parse_rate"], result["n"], result["n_failed"]) == (0, 0, 36, 0)
    assert {line["rule"] for line in lines(tmp_path)} == {"abstain: empty reply"}


class Flaky(Recorder):
    """Fails on every third prompt until it is healed."""

    healed = False

    def answer(self, prompts):
        super().answer(prompts)
        return [
            Failure("endpoint down") if not self.healed and int(p.id.split("-")[1]) % 3 == 0 else Answer("A")
            for p in prompts
        ]


def test_failures_are_not_answers_and_are_asked_again(folder, tmp_path):
    model = Flaky()
    first = evaluate("cvbench", model, data=folder, output=tmp_path / "run", batch_size=4).to_dict()
    failed = json.loads((tmp_path / "run" / "failures.json").read_text())
    assert first["n_failed"] == len(failed) == 12
    assert first["complete"] is False
    assert set(failed.values()) == {"endpoint down"}
    assert not set(failed) & {line["id"] for line in lines(tmp_path / "run")}
    model.healed = True
    second = evaluate("cvbench", model, data=folder, output=tmp_path / "run", batch_size=4)
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "whole", batch_size=4)
    assert second.to_dict()["complete"] is True
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_model_that_fails_on_a_whole_group_gets_no_score(folder, tmp_path):
    class Down(Recorder):
        def answer(self, prompts):
            return [Failure("endpoint down") if p.id.startswith("3d") else "A" for p in prompts]

    with pytest.raises(ModelError, match=r"failed on 12 of 36 questions, on all of 3D Depth Omni3D.*endpoint down"):
        evaluate("cvbench", Down(), data=folder, output=tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    reasons = json.loads((tmp_path / "failures.json").read_text())
    assert len(reasons) == 12
    assert set(reasons.values()) == {"endpoint down"}


def test_blind_models_see_the_text_and_no_picture(folder, tmp_path):
    seen: list[tuple] = []

    class Looking(Recorder):
        def answer(self, prompts):
            seen.extend((p.text, p.pictures, [part["type"] for part in p.messages()[0]["content"]]) for p in prompts)
            return super().answer(prompts)

    evaluate("cvbench", Looking(), data=folder, output=tmp_path, mode="blind")
    assert len(seen) == 4  # without pictures the questions of a kind are the same request
    assert len(lines(tmp_path)) == 36
    assert all(text.endswith("directly.") and not shown and kinds == ["text"] for text, shown, kinds in seen)


def test_shuffled_models_see_another_questions_picture(folder, tmp_path):
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "own")
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "other", mode="shuffled")
    own, other = ({line["id"]: line["pictures"] for line in lines(tmp_path / run)} for run in ("own", "other"))
    assert all(own[name] != other[name] for name in own)


def test_unknown_mode_is_an_error(folder, tmp_path):
    with pytest.raises(DataError, match='found mode "upside-down", expected normal, blind or shuffled'):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path, mode="upside-down")  # type: ignore[arg-type]


def test_limited_run_asks_so_many_and_says_so(folder, tmp_path):
    result = evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path, limit=12)
    assert result.num_answered == 12
    assert {row.name for row in result.metrics.rows if row.group == "tasks"} == {
        "Count",
        "Relation",
        "Depth",
        "Distance",
    }
    assert "limited to 12 questions" in (tmp_path / "report.html").read_text()


def test_progress_counts_from_what_is_done_to_all(folder, tmp_path):
    calls = []
    evaluate(
        "cvbench", ConstantReply(), data=folder, output=tmp_path, batch_size=16, progress=lambda *c: calls.append(c)
    )
    assert calls == [(0, 36), (16, 36), (32, 36), (36, 36)]
    calls.clear()
    evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path, progress=lambda *c: calls.append(c))
    assert calls == [(36, 36)]


def test_samples_of_a_run_can_be_replayed(folder, tmp_path):
    first = evaluate("cvbench", RandomChoice(1), data=folder, output=tmp_path / "one").to_dict()
    replay = load_model(f"canned:{tmp_path / 'one' / 'samples.jsonl'}")
    second = evaluate("cvbench", replay, data=folder, output=tmp_path / "two").to_dict()
    assert {**first, "model": ""} == {**second, "model": ""}


def test_canned_model_without_a_reply_names_the_question(folder, tmp_path):
    with pytest.raises(ModelError, match="0 replies are written down, none of them for question 3d-"):
        evaluate("cvbench", Canned({}), data=folder, output=tmp_path)


def test_canned_reply_that_is_no_text_is_an_error(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"id": "2d-0", "reply": ""}\n{"id": "2d-1", "reply": null}\n')
    with pytest.raises(DataError, match=r"replies.jsonl:2: found reply None, expected a text"):
        load_model(f"canned:{path}")


def test_canned_id_that_is_repeated_is_an_error_with_both_lines(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(f'{{"id": "{name}", "reply": "A"}}\n' for name in ("2d-0", "2d-1", "2d-0")))
    with pytest.raises(DataError, match=r"replies.jsonl:3: found id 2d-0 again, it is also that of replies.jsonl:1"):
        load_model(f"canned:{path}")


def test_best_constant_is_what_the_best_constant_model_scores(folder, tmp_path):
    results = [
        evaluate("cvbench", ConstantReply(letter), data=folder, output=tmp_path / letter).to_dict() for letter in "ABCD"
    ]
    for name in ("Count", "Relation", "Depth", "Distance"):
        best = max(result["tasks"][name]["accuracy"] for result in results)
        assert results[0]["tasks"][name]["best_constant"] == pytest.approx(best)
    assert results[0]["scores"]["score"]["best_constant"] == pytest.approx(max(r["score"] for r in results))


def test_random_model_stays_near_chance_and_answers_what_is_offered(tmp_path):
    folder = write_cvbench(tmp_path / "data", per_group=60)
    result = evaluate("cvbench", load_model("random:1"), data=folder, output=tmp_path / "run").to_dict()
    assert result["parse_rate"] == 100
    for level in result["tasks"].values():
        deviation = 100 * math.sqrt(level["chance"] / 100 * (1 - level["chance"] / 100) / level["n"])
        # Four standard deviations: a right implementation fails once in 16,000 choices of the seed.
        assert abs(level["accuracy"] - level["chance"]) < 4 * deviation


def test_metrics_file_holds_hashes_and_versions_and_no_paths(folder, tmp_path):
    evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    provenance = json.loads(text)["provenance"]
    assert {"task", "task_version", "data_sha256", "prompts_sha256", "model_fingerprint"} <= set(provenance["run"])
    assert {"cambrian-eval", "scipy", "python"} <= set(provenance["versions"])
    assert str(tmp_path) not in text
    assert str(folder) not in text


def test_longest_prompts_are_asked_first_and_the_log_is_in_the_order_of_the_data(folder, tmp_path):
    model = Recorder()
    evaluate("cvbench", model, data=folder, output=tmp_path, batch_size=6)
    asked = [name for batch in model.batches for name in batch]
    assert asked[0].startswith("3d")
    texts = {line["id"]: line["prompt"] for line in lines(tmp_path)}
    assert len(texts[asked[0]]) > len(texts[asked[-1]])
    assert list(texts) == sorted(texts, key=lambda name: int(name.split("-")[1]))
    assert sorted(asked) == sorted(texts)


def test_equal_requests_are_asked_once_and_each_question_is_answered(tmp_path):
    table = [row(n, "2D", "Relation", "COCO") | {"filename": "one.png", "answer": "(A)"} for n in range(6)]
    write_jsonl(tmp_path / "test_2d.jsonl", table)
    model = Recorder()
    result = evaluate("cvbench-2d", model, data=tmp_path, output=tmp_path / "run", batch_size=4)
    assert [len(batch) for batch in model.batches] == [1]
    assert result.num_answered == len(lines(tmp_path / "run")) == 6
    by_id = RandomChoice(1)  # may answer equal requests differently, and so is asked all of them
    evaluate("cvbench-2d", by_id, data=tmp_path, output=tmp_path / "other")
    assert {line["reply"] for line in lines(tmp_path / "other")} == {"A", "B"}


def test_failure_of_a_request_is_that_of_all_its_questions(tmp_path):
    table = [row(n, "2D", "Relation", "COCO") | {"filename": f"{n % 2}.png"} for n in range(6)]
    write_jsonl(tmp_path / "test_2d.jsonl", table)

    class Half(Recorder):
        def answer(self, prompts):
            return [Failure("down") if prompt.id == "2d-0" else "A" for prompt in prompts]

    assert evaluate("cvbench-2d", Half(), data=tmp_path, output=tmp_path / "run").num_failed == 3
    assert set(json.loads((tmp_path / "run" / "failures.json").read_text())) == {"2d-0", "2d-2", "2d-4"}


class Small(Recorder):
    """Its device holds so many prompts."""

    room = 3

    def answer(self, prompts):
        if len(prompts) > self.room:
            raise OutOfMemoryError(f"{len(prompts)} prompts do not fit")
        return super().answer(prompts)


def test_batch_that_does_not_fit_is_halved_and_counted_and_the_next_is_tried_whole(folder, tmp_path):
    model = Small()
    result = evaluate("cvbench", model, data=folder, output=tmp_path / "run", batch_size=8)
    assert [len(batch) for batch in model.batches] == [2] * 16 + [2, 2]
    assert result.checks["num_halved"] == 4 * 3 + 1  # four of 8, in four parts each, and one of 4
    assert "13 times" in result.checks["warnings"][0]
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "whole", batch_size=8)
    replies = [[line["reply"] for line in lines(tmp_path / run)] for run in ("run", "whole")]
    assert replies[0] == replies[1]


@pytest.mark.parametrize("kept", [0, 3, 9, 17])
def test_halvings_are_counted_once_however_often_the_run_is_killed(folder, tmp_path, kept):
    evaluate("cvbench", Small(), data=folder, output=tmp_path / "whole", batch_size=8)

    class Killed(Small):
        def answer(self, prompts):
            if len(self.batches) == kept:
                raise KeyboardInterrupt
            return super().answer(prompts)

    with pytest.raises(KeyboardInterrupt):
        evaluate("cvbench", Killed(), data=folder, output=tmp_path / "killed", batch_size=8)
    evaluate("cvbench", Small(), data=folder, output=tmp_path / "killed", batch_size=8)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_prompt_that_does_not_fit_alone_is_an_error_that_names_it(folder, tmp_path):
    model = Small()
    model.room = 0
    with pytest.raises(OutOfMemoryError, match=r"question 3d-\d+ does not fit into memory even alone \(1 prompts"):
        evaluate("cvbench", model, data=folder, output=tmp_path)


class Ahead(Recorder):
    """Prepares batches in another thread, and can be told to fail there."""

    broken = ""

    def __init__(self):
        super().__init__()
        self.threads = set()

    def prepare(self, prompts):
        self.threads.add(threading.current_thread().name)
        if self.broken in [prompt.id for prompt in prompts]:
            raise DataError(f"{self.broken}: cannot be decoded")
        return list(prompts)

    def answer_prepared(self, prepared):
        self.threads.add(threading.current_thread().name)
        return super().answer(prepared)


def test_batches_are_prepared_in_a_thread_that_ends_with_the_run(folder, tmp_path):
    model = Ahead()
    evaluate("cvbench", model, data=folder, output=tmp_path / "ahead", batch_size=5)
    assert len(model.threads) == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "plain", batch_size=5)
    assert files(tmp_path / "ahead") == files(tmp_path / "plain")


def test_error_of_the_preparing_thread_is_the_runs_and_what_was_answered_is_kept(folder, tmp_path):
    model = Ahead()
    model.broken = "2d-12"
    with pytest.raises(DataError, match="2d-12: cannot be decoded"):
        evaluate("cvbench", model, data=folder, output=tmp_path, batch_size=5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]
    assert len(lines(tmp_path)) == 5 * len(model.batches) > 0


class Moody(Recorder):
    """Says something else when it is asked several questions at once."""

    def answer(self, prompts):
        super().answer(prompts)
        return ["B" if len(prompts) > 1 and prompt.id == "2d-3" else "A" for prompt in prompts]


def test_verified_batches_that_agree_go_on_and_say_so(folder, tmp_path):
    model = Recorder()
    result = evaluate("cvbench", model, data=folder, output=tmp_path, batch_size=6, verify_batching=12)
    assert result.checks["verify_batching"]["agreement"] == 100
    assert result.checks["warnings"] == []
    assert [len(batch) for batch in model.batches] == [6, 6, *[1] * 12, *[6] * 6]


def test_verified_batches_that_differ_are_given_up_for_single_questions(folder, tmp_path):
    model = Moody()
    result = evaluate("cvbench", model, data=folder, output=tmp_path, batch_size=6, verify_batching=36)
    found = result.checks["verify_batching"]
    assert (found["n"], found["n_equal"], found["different"]) == (36, 35, ["2d-3"])
    assert (
        "36 prompts were asked alone and in batches of 6: 35 replies (97.2 %) were equal"
        in result.checks["warnings"][0]
    )
    assert [len(batch) for batch in model.batches] == [6] * 6 + [1] * 36 + [1] * 36
    assert {line["reply"] for line in lines(tmp_path)} == {"A"}
    again = Moody()
    assert evaluate("cvbench", again, data=folder, output=tmp_path, batch_size=6, verify_batching=36) == result
    assert again.batches == []
    with pytest.raises(RunMismatchError, match="batches of 6 were verified here, now they have 9"):
        evaluate("cvbench", again, data=folder, output=tmp_path, batch_size=9, verify_batching=36)


@pytest.mark.parametrize("written", ["{broken", "[]", '{"batch_size": 6}'])
def test_damaged_comparison_of_batches_is_an_error(folder, tmp_path, written):
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path, batch_size=6, verify_batching=6)
    (tmp_path / "verification.json").write_text(written)
    with pytest.raises(EvalError, match=r"verification.json: found no comparison of batches"):
        evaluate("cvbench", Recorder(), data=folder, output=tmp_path, batch_size=6, verify_batching=6)


class Chooser(Recorder):
    """Finds the second option likeliest."""

    def choose(self, prompts):
        return [Answer("B", option_scores=(-1.5, -0.25)) for _ in prompts]


def test_letters_are_chosen_by_their_likelihood_in_a_run_of_its_own(folder, tmp_path):
    result = evaluate("cvbench", Chooser(), data=folder, output=tmp_path, scoring="logits")
    assert {(line["reply"], *line["option_scores"]) for line in lines(tmp_path)} == {("B", -1.5, -0.25)}
    assert result.provenance["run"]["scoring"] == "logits"
    with pytest.raises(RunMismatchError, match="scoring: found 'logits', now 'generate'"):
        evaluate("cvbench", Chooser(), data=folder, output=tmp_path)
    with pytest.raises(ModelError, match="constant:A: this model cannot say how likely an option is"):
        evaluate("cvbench", ConstantReply(), data=folder, output=tmp_path / "other", scoring="logits")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("form", "end"), [("direct", "directly."), ("bare", "(B) right"), ("cot", "the letter of the right option.")]
)
def test_prompt_forms_change_what_stands_after_the_question(folder, tmp_path, form, end):
    result = evaluate("cvbench", Recorder(), data=folder, output=tmp_path, prompt=form)
    shown = [line for line in lines(tmp_path) if line["task"] == "Relation"]
    assert all(line["prompt"].endswith(end) for line in shown)
    assert all(line["prompt"].startswith(line["question"]) for line in shown)
    assert {line["max_new_tokens"] for line in shown} == {1024 if form == "cot" else 512}
    assert result.provenance["run"]["prompt"] == form


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "loud"}, 'found prompt form "loud", expected direct, cot or bare'),
        ({"scoring": "vibes"}, 'found scoring "vibes", expected generate or logits'),
        ({"split": "train"}, 'found split of cvbench "train", expected test'),
        ({"permute": 1}, "found permute 1, expected 0"),
        ({"limit": 4, "ids": ["2d-0"]}, "both a limit"),
        ({"prompt": "cot", "compat": "reference"}, "leave prompt and scoring as they are"),
        ({"prompt": "cot", "scoring": "logits"}, "before any thought"),
        ({"workers": 0}, "found 0 workers"),
        ({"workers": 2}, "recorder: a model in memory cannot be shared by 2 workers"),
        ({"batch_size": 0}, "found batch size 0"),
    ],
)
def test_conditions_that_do_not_work_out_are_errors(folder, tmp_path, change, message):
    with pytest.raises(EvalError, match=message):
        evaluate("cvbench", Recorder(), data=folder, output=tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_only_named_questions_are_asked(folder, tmp_path):
    result = evaluate("cvbench", Recorder(), data=folder, output=tmp_path, ids=["3d-1440", "2d-3", "0-1"])
    assert [line["id"] for line in lines(tmp_path)] == ["2d-0", "2d-1", "2d-3", "3d-1440"]
    assert result.provenance["run"]["ids"] == "3d-1440,2d-3,0-1"


def test_metrics_hold_what_was_run_with_which_versions_on_what(folder, tmp_path):
    evaluate("cvbench", Recorder(), data=folder, output=tmp_path, limit=20, seed=4)
    document = json.loads((tmp_path / "metrics.json").read_text())
    run, provenance = document["provenance"]["run"], document["provenance"]
    assert (run["limit"], run["seed"], run["split"], run["prompt"], run["permute"]) == (20, 4, "test", "direct", 0)
    assert provenance["data"] == {"from": "folder"}
    assert {"platform", "cpu", "model"} == set(provenance["hardware"])
    assert (document["n"], document["n_failed"], document["complete"], document["truncation_rate"]) == (20, 0, True, 0)
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["questions"] == 20
    assert timing["seconds"] > 0


def secret_task(task):
    def without_answers(folder, split):
        return [dataclasses.replace(question, answers=()) for question in CVBENCH.questions(folder, "test")]

    return dataclasses.replace(
        task,
        questions=without_answers,
        score=lambda question, reply: Score(None, reply, "as it is"),
        submission=Submission(
            "answers.txt", lambda answers: "".join(f"{a.question.id} {a.answer.text}\n" for a in answers)
        ),
    )


def test_secret_answers_give_no_score_and_the_servers_file(folder, tmp_path):
    result = evaluate(secret_task(CVBENCH), Recorder(), data=folder, output=tmp_path / "secret")
    assert result.metrics.summary == {"score": None, "parse_rate": 100, "n_unscored": 36}
    assert (tmp_path / "secret" / "answers.txt").read_text().splitlines()[0] == "2d-0 A"
    task = dataclasses.replace(secret_task(CVBENCH), questions=CVBENCH.questions, score=CVBENCH.score)
    evaluate(task, Recorder(), data=folder, output=tmp_path / "known")
    assert not (tmp_path / "known" / "answers.txt").exists()


def test_ids_that_occur_twice_are_an_error(folder, tmp_path):
    def doubled(folder, split):
        return 2 * list(CVBENCH.questions(folder, split))

    with pytest.raises(DataError, match="question id 2d-0 occurs 2 times"):
        evaluate(dataclasses.replace(CVBENCH, questions=doubled), Recorder(), data=folder, output=tmp_path)
