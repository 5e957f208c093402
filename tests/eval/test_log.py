import json

import pytest

from cambrian_eval import EvalError, Question, RunMismatchError, Score
from cambrian_eval.log import SampleLog, read_answers
from cambrian_eval.picture import Picture
from cambrian_eval.types import Answer, Prompt, ScoredAnswer

PICTURE = Picture.from_bytes("one.png", b"one")


def scored(name="q0", reply="B", **answer):
    question = Question(name, "What?", ("a", "b"), ("B",), (PICTURE,), "dev", "Count", "COCO", "pair 1", {"unit": "%"})
    prompt = Prompt(name, (PICTURE, "What?\nSay it."), ("a", "b"), 16, "Say it.")
    return ScoredAnswer(question, prompt, Answer(reply, **answer), Score(1.0, "B", "letter alone"))


def open_one(value):
    """An answer to an open question with several accepted answers, or with none that is known."""
    question = Question("q9", "Why?", (), ("x", "y") if value is not None else (), (), "", "", "")
    return ScoredAnswer(question, Prompt("q9", ("Why?",), (), 64), Answer("x"), Score(value, "x", "exact"))


def test_answers_are_read_back_as_they_were_but_for_the_bytes_of_pictures(tmp_path):
    log = SampleLog(tmp_path, {"run": 1})
    written = [scored(image_tokens=5, reply_tokens=1, option_scores=(-1.0, -0.5)), open_one(1.0)]
    log.append(written, {})
    first, second = read_answers(tmp_path)
    assert first.question.pictures == first.prompt.pictures == (Picture(PICTURE.sha256[:12], PICTURE.sha256),)
    assert (first.answer, first.score, second) == (written[0].answer, written[0].score, written[1])
    assert (first.prompt.text, first.prompt.instruction, first.prompt.max_new_tokens) == (
        "What?\nSay it.",
        "Say it.",
        16,
    )
    for field in ("id", "text", "choices", "answers", "part", "task", "source", "group", "details"):
        assert getattr(first.question, field) == getattr(written[0].question, field)


def test_answers_without_a_known_truth_are_read_back(tmp_path):
    SampleLog(tmp_path, {}).append([open_one(None)], {})
    assert read_answers(tmp_path) == [open_one(None)]


def test_log_knows_how_often_batches_were_halved(tmp_path):
    SampleLog(tmp_path, {}).append([scored("q0"), scored("q1")], {"q0": 3})
    again = SampleLog(tmp_path, {})
    assert again.num_halved == {"q0": 3, "q1": 0}
    again.finish([scored("q1"), scored("q0")])
    assert SampleLog(tmp_path, {}).num_halved == {"q0": 3, "q1": 0}


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_torn_line_is_dropped_before_anything_is_added(tmp_path, kept):
    SampleLog(tmp_path, {}).append([scored("q0")], {})
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(whole + whole[:kept])
    log = SampleLog(tmp_path, {})
    log.append([scored("q1")], {})
    assert [answer.question.id for answer in read_answers(tmp_path)] == ["q0", "q1"]


def test_first_answer_to_a_question_counts(tmp_path):
    SampleLog(tmp_path, {}).append([scored(reply="first")], {})
    SampleLog(tmp_path, {}, part=1).append([scored(reply="second")], {})
    assert SampleLog(tmp_path, {}).answers["q0"].text == "first"


def test_parts_are_read_by_all_and_end_as_one_file(tmp_path):
    parts = [SampleLog(tmp_path, {}, part=number) for number in range(2)]
    for number, part in enumerate(parts):
        part.append([scored(f"q{number}")], {f"q{number}": number})
    assert set(parts[0].answers) == {"q0"}
    parts[0].read()
    assert set(parts[0].answers) == {"q0", "q1"}
    parts[0].finish([scored("q0"), scored("q1")])
    assert sorted(path.name for path in tmp_path.glob("samples*")) == ["samples.jsonl"]
    assert [json.loads(line)["halved"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()] == [0, 1]


def test_folder_without_a_log_or_of_another_run_is_an_error(tmp_path):
    with pytest.raises(EvalError, match=r"found no samples.jsonl, expected the folder of an evaluation"):
        read_answers(tmp_path)
    SampleLog(tmp_path, {"prompt": "direct"})
    with pytest.raises(RunMismatchError, match="prompt: found 'direct', now 'cot'"):
        SampleLog(tmp_path, {"prompt": "cot"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("option_scores", None),
        ("option_scores", ["x"]),
        ("halved", "a"),
        ("truncated", None),
        ("details", []),
        ("id", 7),
        ("value", "1"),
        ("reply_tokens", "2"),
    ],
)
def test_line_with_a_value_of_another_kind_is_named(tmp_path, key, value):
    SampleLog(tmp_path, {}).append([scored()], {})
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}) + "\n")
    with pytest.raises(EvalError, match=rf"samples.jsonl:1: found a line that is not an answer of this log .*{key}"):
        SampleLog(tmp_path, {})


def test_identity_that_is_no_object_is_an_error(tmp_path):
    (tmp_path / "run.json").write_text("[]\n")
    with pytest.raises(RunMismatchError, match=r"run.json: found a list, expected an object"):
        SampleLog(tmp_path, {})


def test_line_that_lacks_a_key_is_named(tmp_path):
    SampleLog(tmp_path, {}).append([scored()], {})
    path = tmp_path / "samples.jsonl"
    entry = json.loads(path.read_text())
    del entry["rule"]
    path.write_text(json.dumps(entry) + "\n")
    with pytest.raises(EvalError, match=r"samples.jsonl:1: found a line that is not an answer of this log .*'rule'"):
        read_answers(tmp_path)
