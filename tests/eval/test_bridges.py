import csv
import importlib
import importlib.metadata
import io
import json

import pytest
from PIL import Image

from cambrian_eval import Answer, EvalError, Failure, ModelError, Prompt, evaluate
from cambrian_eval.bridges.exports import export_predictions, row_numbers
from cambrian_eval.bridges.lmms_eval_request import DecodedPicture, cut, read_request
from cambrian_eval.log import read_answers
from cambrian_eval.models.canned import Canned
from tests.eval.benchmark_folder import truths, write_cvbench

NASTY = 'It\'s "B",\tI think.\nNext line; 三, \\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=2)
    replies = truths(folder)
    replies |= {"2d-1": NASTY, "3d-1438": ""}
    output = tmp_path_factory.mktemp("run") / "run"
    evaluate("cvbench", Canned(replies, "canned:it"), data=folder, output=output)
    return output


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_lmms_eval_lines_hold_the_reply_the_score_and_the_row(run, tmp_path):
    samples, results = export_predictions(run, "lmms-eval", tmp_path)
    assert samples.name.endswith("_samples_cvbench.jsonl")
    assert results.name == samples.name.partition("_samples_")[0] + "_results.json"
    assert samples.parent == results.parent == tmp_path / "canned-it"
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    answers = read_answers(run)
    assert [line["doc_id"] for line in lines] == [*range(8), *range(1438, 1442)]
    assert [line["filtered_resps"] for line in lines] == [answer.answer.text for answer in answers]
    assert [line["score"] for line in lines] == [answer.score.value for answer in answers]
    assert lines[1]["filtered_resps"] == NASTY
    assert lines[0]["target"] == answers[0].question.answers[0]
    assert lines[0]["input"] == answers[0].prompt.text
    metrics = json.loads((run / "metrics.json").read_text())
    assert json.loads(results.read_text())["results"]["cvbench"]["score,none"] == metrics["score"] / 100


def test_vlmevalkit_tables_hold_one_part_each_and_predictions_go_with_their_questions(run, tmp_path):
    files = export_predictions(run, "vlmevalkit", tmp_path)
    assert [path.name for path in files] == [
        "cambrian-cvbench-2D.tsv",
        "canned-it_cambrian-cvbench-2D.tsv",
        "cambrian-cvbench-3D.tsv",
        "canned-it_cambrian-cvbench-3D.tsv",
    ]
    questions, predictions = read_table(files[0]), read_table(files[1])
    assert [
        {**row, "prediction": p["prediction"]} for row, p in zip(questions, predictions, strict=True)
    ] == predictions
    assert list(predictions[0]) == [
        *("index", "question", "A", "B", "C", "D", "answer", "category", "source", "split", "prediction")
    ]
    assert predictions[1]["prediction"] == NASTY
    assert [row["index"] for row in predictions] == [str(n) for n in range(8)]
    relation = next(row for row in predictions if row["category"] == "Relation")
    assert (relation["A"], relation["B"], relation["C"]) == ("left", "right", "")
    assert read_table(files[3])[0]["prediction"] == ""


def test_exports_are_the_same_bytes_each_time(run, tmp_path):
    for form in ("lmms-eval", "vlmevalkit"):
        one, two = (export_predictions(run, form, tmp_path / name / form) for name in ("one", "two"))
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
        assert [path.name for path in one] == [path.name for path in two]


def test_ids_without_distinct_numbers_are_numbered_in_the_order_of_the_data(run):
    answers = read_answers(run)
    assert row_numbers([answers[0], answers[1], answers[0]]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("missing", "message"), [("metrics.json", "found no metrics.json"), ("run.json", "found no run.json")]
)
def test_folder_without_a_finished_evaluation_is_an_error(run, tmp_path, missing, message):
    for path in run.iterdir():
        if path.is_file() and path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(EvalError, match=message):
        export_predictions(tmp_path, "lmms-eval", tmp_path / "out")


@pytest.mark.parametrize("form", ["lmms-eval", "vlmevalkit"])
def test_run_with_unanswered_questions_is_not_exported(tmp_path, form):
    class Flaky(Canned):
        def answer(self, prompts):
            return [Failure("down") if prompt.id == "2d-1" else Answer("A") for prompt in prompts]

    folder = write_cvbench(tmp_path / "data", per_group=2)
    evaluate("cvbench", Flaky({}), data=folder, output=tmp_path / "run")
    with pytest.raises(EvalError, match="with 1 questions not answered, expected a finished one"):
        export_predictions(tmp_path / "run", form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file_is_an_error(run, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(EvalError, match="out: found a file, expected a folder to write into"):
        export_predictions(run, "lmms-eval", tmp_path / "out")


def test_unknown_format_is_an_error(run, tmp_path):
    with pytest.raises(EvalError, match='found format "helm", expected lmms-eval or vlmevalkit'):
        export_predictions(run, "helm", tmp_path)


# lmms-eval.


def request(*content, roles=("user",), **settings):
    return read_request("t/test/3", [{"role": role, "content": list(content)} for role in roles], settings)


def test_request_becomes_a_prompt_with_its_pictures_in_place():
    image = Image.new("L", (5, 3), 40)
    prompt, until = request(
        {"type": "image", "url": image},
        {"type": "text", "text": "Which?"},
        max_new_tokens=7,
        until=["\n\n"],
        temperature=0.0,
        do_sample=False,
    )
    picture, text = prompt.content
    assert isinstance(picture, DecodedPicture)
    assert (text, prompt.max_new_tokens, tuple(until)) == ("Which?", 7, ("\n\n",))
    assert picture.open().mode == "RGB"
    assert picture.open().getpixel((2, 1)) == (40, 40, 40)
    with Image.open(io.BytesIO(picture.read())) as reread:
        assert reread.tobytes() == picture.open().tobytes()
    assert picture.sha256 == DecodedPicture.from_image("other", image.copy()).sha256
    assert picture.sha256 != DecodedPicture.from_image("other", Image.new("L", (3, 5), 40)).sha256


def test_request_without_a_budget_gets_one():
    assert request({"type": "text", "text": "x"}) == (Prompt("t/test/3", ("x",), (), 1024), ())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"temperature": 0.7}, "temperature 0.7"),
        ({"do_sample": True}, "do_sample True"),
        ({"num_beams": 4}, "num_beams 4"),
    ],
)
def test_request_for_sampling_is_refused(settings, found):
    with pytest.raises(ModelError, match=f"t/test/3: found {found}, expected .*: replies are greedy"):
        request({"type": "text", "text": "x"}, **settings)


def test_request_of_several_turns_or_a_film_is_refused():
    with pytest.raises(ModelError, match="found turns of system, user, expected one turn of the user"):
        request({"type": "text", "text": "x"}, roles=("system", "user"))
    with pytest.raises(ModelError, match="found video, expected texts and pictures only"):
        request({"type": "video", "url": "a.mp4"})


def test_reply_ends_before_the_first_stop():
    assert cut("B. because\n\nQ: next", ("\n\n", "Q:")) == "B. because"
    assert cut("B Q: x\n\n", ("\n\n", "Q:")) == "B "
    assert cut("B", ("", "x")) == "B"


def test_entry_point_leads_to_the_manifest():
    [entry] = [e for e in importlib.metadata.entry_points(group="lmms_eval.models") if e.name == "cambrian_toolkit"]
    assert entry.value == "cambrian_eval.bridges.lmms_eval:manifest"
    assert callable(entry.load())


def test_lmms_eval_finds_the_adapter_and_gets_answers_from_it():
    registry = pytest.importorskip("lmms_eval.models").MODEL_REGISTRY_V2
    instance = importlib.import_module("lmms_eval.api.instance").Instance
    model = registry.get_model_class("cambrian_toolkit").create_from_arg_string(
        "pretrained=constant:B", {"batch_size": 3, "max_batch_size": None, "device": "cpu"}
    )
    model.task_dict["t"] = {"test": {n: f"doc {n}" for n in range(5)}}
    requests = [
        instance(
            "generate_until",
            ("", lambda doc: [{"role": "user", "content": [{"type": "text", "text": doc}]}], {}, n, "t", "test"),
            n,
            {"task": "t", "doc_id": n, "repeats": 1},
        )
        for n in range(5)
    ]
    assert [reply.text for reply in model.generate_until(requests)] == ["B"] * 5
