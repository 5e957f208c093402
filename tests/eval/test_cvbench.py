import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from cambrian_eval import DataError, evaluate
from cambrian_eval.models.canned import Canned
from cambrian_eval.tasks.cvbench import CVBENCH, CVBENCH_2D, CVBENCH_3D
from tests.eval.benchmark_folder import PUBLISHED, SCENES, png, row, truths, write_cvbench, write_jsonl, write_parquet


def canned(folder, right):
    """Answers right where `right(id)` says so, else with a wrong letter."""
    return Canned({name: t if right(name) else ("B" if t == "A" else "A") for name, t in truths(folder).items()})


def test_parquet_and_jsonl_hold_the_same_questions(tmp_path):
    one = CVBENCH.questions(write_cvbench(tmp_path / "jsonl"), "test")
    two = CVBENCH.questions(write_cvbench(tmp_path / "parquet", layout="parquet"), "test")
    assert [(q.id, q.text, q.choices, q.answers, q.task, q.source, q.part) for q in one] == [
        (q.id, q.text, q.choices, q.answers, q.task, q.source, q.part) for q in two
    ]
    assert [q.pictures[0].sha256 for q in one] == [q.pictures[0].sha256 for q in two]
    assert one[0].pictures[0].open().size == two[0].pictures[0].open().size == (7, 5)


def test_parts_can_be_read_alone(tmp_path):
    folder = write_cvbench(tmp_path)
    assert {q.task for q in CVBENCH_2D.questions(folder, "test")} == {"Count", "Relation"}
    assert {q.task for q in CVBENCH_3D.questions(folder, "test")} == {"Depth", "Distance"}
    assert len(CVBENCH.questions(folder, "test")) == 18


def test_prompt_of_real_items_is_the_published_one_with_the_picture_first(assets, tmp_path):
    items = [json.loads(line) for line in (assets / "bench/cvbench_items.jsonl").read_text().splitlines()]
    assert [item["task"] for item in items] == ["Count", "Relation", "Depth", "Distance"]
    for part, numbers in {"2D": (0, 1), "3D": (2, 3)}.items():
        table = []
        for number in numbers:
            item = items[number]
            asked = f"{item['question']} Select from the following choices.\n(A) other\n(B) {item['answer_text']}"
            changes = {"choices": ["other", item["answer_text"]], "prompt": asked, "question": item["question"]}
            table.append(row(number, part, item["task"], item["source"], "B") | changes)
        write_jsonl(tmp_path / f"test_{part.lower()}.jsonl", table)
    prompts = [CVBENCH.prompt(question) for question in CVBENCH.questions(tmp_path, "test")]
    assert [prompt.text for prompt in prompts] == [
        f"{item['question']} Select from the following choices.\n(A) other\n(B) {item['answer_text']}\n"
        "Answer with the option's letter from the given choices directly."
        for item in items
    ]
    for prompt in prompts:
        assert [content["type"] for content in prompt.messages()[0]["content"]] == ["image", "text"]


def test_prompt_is_the_data_s_own_and_the_instruction_can_be_told_apart(tmp_path):
    question = CVBENCH.questions(write_cvbench(tmp_path), "test")[0]
    prompt = CVBENCH.prompt(question)
    assert prompt.instruction == "Answer with the option's letter from the given choices directly."
    assert prompt.content == (question.pictures[0], f"{question.text}\n{prompt.instruction}")
    assert (prompt.choices, prompt.max_new_tokens) == (question.choices, 512)


def test_score_is_the_published_formula_and_the_micro_mean_is_labelled(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    sizes = {("Count", "ADE20K"): 4, ("Count", "COCO"): 10, ("Depth", "Omni3D"): 5}
    tables: dict[str, list[dict]] = {"2D": [], "3D": []}
    for (task, source), size in sizes.items():
        part = "2D" if task == "Count" else "3D"
        tables[part] += [row(100 * len(sizes) + len(tables[part]) + n, part, task, source) for n in range(size)]
    for part, table in tables.items():
        write_jsonl(folder / f"test_{part.lower()}.jsonl", table)
    by_id = {q.id: q for q in CVBENCH.questions(folder, "test")}
    right_sources = {"ADE20K": 3, "COCO": 5, "Omni3D": 1}
    left = dict(right_sources)

    def right(name):
        source = by_id[name].source
        left[source] -= 1
        return left[source] >= 0

    result = evaluate("cvbench", canned(folder, right), data=folder, output=tmp_path / "run").to_dict()
    assert result["score_2d"] == pytest.approx(100 * (3 / 4 + 5 / 10) / 2)
    assert result["score_3d"] == pytest.approx(100 * 1 / 5)
    assert result["score"] == pytest.approx(100 * ((3 / 4 + 5 / 10) / 2 + 1 / 5) / 2)
    assert result["formula"] == "1/2 ((ADE20K + COCO)/2 + Omni3D)"
    assert result["published"] is True
    assert result["scores"]["micro"]["accuracy"] == pytest.approx(100 * 9 / 19)
    assert result["sources"]["COCO"]["accuracy"] == pytest.approx(50)
    assert result["sources"]["COCO"]["n"] == 10


def test_other_sources_are_named_and_not_called_published(tmp_path):
    folder = write_cvbench(tmp_path / "data", sources=SCENES, per_group=6)
    result = evaluate("cvbench", canned(folder, lambda name: True), data=folder, output=tmp_path / "run").to_dict()
    assert result["formula"] == "1/2 (Scenes2D + Scenes3D)"
    assert result["published"] is False
    assert set(result["sources"]) == {"Scenes2D", "Scenes3D"}
    assert (result["score"], result["parse_rate"]) == (100, 100)


@pytest.mark.parametrize("part", ["2D", "3D"])
@pytest.mark.parametrize(("sources", "published"), [(PUBLISHED, True), (SCENES, False)])
def test_a_part_alone_is_published_if_its_sources_are(tmp_path, part, sources, published):
    folder = write_cvbench(tmp_path / "data", sources=sources, parts=(part,))
    model = canned(folder, lambda name: True)
    result = evaluate(f"cvbench-{part.lower()}", model, data=folder, output=tmp_path / "run").to_dict()
    assert result["published"] is published


def test_task_rows_have_interval_chance_and_best_constant_in_percent(tmp_path):
    table = [row(n, "2D", "Count", "COCO", answer) for n, answer in enumerate("AABC")]
    write_jsonl(tmp_path / "test_2d.jsonl", table)
    model = Canned({"2d-0": "A", "2d-1": "A", "2d-2": "A", "2d-3": "no idea"})
    result = evaluate("cvbench-2d", model, data=tmp_path, output=tmp_path / "run").to_dict()
    count = result["tasks"]["Count"]
    assert (count["accuracy"], count["chance"], count["best_constant"], count["n"]) == (50, 25, 50, 4)
    assert 0 < count["low"] < 50 < count["high"] < 100
    assert result["parse_rate"] == 75
    assert result["score"] == result["score_2d"] == 50
    assert result["score_3d"] is None


@pytest.mark.parametrize("field", ["idx", "type", "task", "question", "choices", "answer", "prompt", "source"])
@pytest.mark.parametrize("layout", ["jsonl", "parquet"])
def test_missing_field_is_named_with_what_is_there_and_what_is_needed(tmp_path, layout, field):
    table = [row(0, "2D", "Count", "COCO")]
    if layout == "jsonl":
        del table[0][field]
        (tmp_path / "test_2d.jsonl").write_text(json.dumps(table[0]) + "\n")
    else:
        write_parquet(tmp_path / "test_2d.parquet", table)
        pq.write_table(pq.read_table(tmp_path / "test_2d.parquet").drop([field]), tmp_path / "test_2d.parquet")
    with pytest.raises(DataError, match=f"missing field '{field}'; found: .*filename.*; needed: idx, type"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_wrong_split_names_the_one_found_and_the_one_needed(tmp_path):
    (tmp_path / "train_2d.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"found split 'train' \(train_2d.jsonl\); needed split 'test'"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_missing_part_is_named_and_the_part_that_is_there_is_offered(tmp_path):
    write_cvbench(tmp_path, parts=("2D",))
    with pytest.raises(DataError, match=r"needed split 'test', part 3D.*evaluate this part alone with cvbench-2d"):
        CVBENCH.questions(tmp_path, "test")


def test_row_in_the_wrong_file_is_named(tmp_path):
    write_jsonl(tmp_path / "test_2d.jsonl", [row(0, "3D", "Depth", "Omni3D")])
    with pytest.raises(DataError, match=r"test_2d.jsonl:1: found type '3D', expected '2D'"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_folder_without_questions_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"a folder without questions; found notes.txt; needed test_2d.parquet"):
        CVBENCH.questions(tmp_path, "test")


@pytest.mark.parametrize("layout", ["jsonl", "parquet"])
def test_file_without_rows_is_an_error(tmp_path, layout):
    path = tmp_path / f"test_2d.{layout}"
    if layout == "jsonl":
        path.touch()
    else:
        write_parquet(path, [row(0, "2D", "Count", "COCO")])
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match="a file without questions"):
        CVBENCH_2D.questions(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "(E)"}, r"test_2d.jsonl:1: found answer '\(E\)', expected a letter from \(A\) to \(D\)"),
        ({"answer": None}, "found answer None"),
        ({"choices": "0, 1"}, "found choices '0, 1', expected a list"),
        ({"choices": ["0"]}, "expected a list of 2 to 26"),
        ({"task": ""}, "found task '', expected a text"),
        ({"filename": "../secret.png"}, "expected bytes or a path inside the data's folder"),
        ({"filename": "/etc/secret.png"}, "expected bytes or a path inside the data's folder"),
        ({"filename": "img/absent.png"}, "picture img/absent.png is missing"),
        ({"image": {"bytes": "iVBORw0K"}}, "test_2d.jsonl:1: found image.bytes of type str, expected bytes"),
    ],
)
def test_bad_row_is_an_error_with_file_and_line(tmp_path, change, message):
    write_jsonl(tmp_path / "test_2d.jsonl", [row(0, "2D", "Count", "COCO")])
    (tmp_path / "test_2d.jsonl").write_text(json.dumps(row(0, "2D", "Count", "COCO") | change) + "\n")
    with pytest.raises(DataError, match=message):
        CVBENCH_2D.questions(tmp_path, "test")


def test_repeated_idx_is_an_error(tmp_path):
    write_jsonl(tmp_path / "test_2d.jsonl", [row(3, "2D", "Count", "COCO"), row(3, "2D", "Relation", "COCO")])
    with pytest.raises(DataError, match="2d-3 occurs twice"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_files_that_are_not_tables_are_errors(tmp_path):
    (tmp_path / "test_2d.jsonl").write_text("{not json\n")
    with pytest.raises(DataError, match=r"test_2d.jsonl:1: not JSON"):
        CVBENCH_2D.questions(tmp_path, "test")
    (tmp_path / "test_2d.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"test_2d.parquet: cannot be read as Parquet"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_json_nested_too_deeply_is_an_error_with_its_line(tmp_path):
    (tmp_path / "test_2d.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"test_2d.jsonl:1: not JSON"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_parquet_with_a_damaged_page_is_an_error(tmp_path):
    path = tmp_path / "test_2d.parquet"
    write_parquet(path, [row(0, "2D", "Count", "COCO")])
    page = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    written = bytearray(path.read_bytes())
    written[page : page + 20] = b"\xff" * 20
    path.write_bytes(written)
    with pytest.raises(DataError, match=r"test_2d.parquet: cannot be read as Parquet \(Couldn't deserialize"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_parquet_with_a_damaged_text_is_an_error(tmp_path):
    path = tmp_path / "test_2d.parquet"
    write_parquet(path, [row(0, "2D", "Count", "COCO")])
    pq.write_table(pq.read_table(path), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"How many", b"\xff" * 8))
    with pytest.raises(DataError, match=r"test_2d.parquet: cannot be read as Parquet \('utf-8' codec can't decode"):
        CVBENCH_2D.questions(tmp_path, "test")


def test_broken_picture_is_named_when_a_model_looks(tmp_path):
    table = [row(0, "2D", "Count", "COCO")]
    write_jsonl(tmp_path / "test_2d.jsonl", table)
    (tmp_path / table[0]["filename"]).write_bytes(png(0)[:40])
    picture = CVBENCH_2D.questions(tmp_path, "test")[0].pictures[0]
    with pytest.raises(DataError, match=r"coco_0.png: cannot be decoded"):
        picture.open()


def test_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"found nothing, expected a folder with test_2d.parquet"):
        evaluate("cvbench", Canned({}), data=tmp_path / "absent", output=tmp_path / "run")


def run_offline(code, hub_home):
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub_home)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


HUB = """
from pathlib import Path
from cambrian_eval import DataError, TASKS
from cambrian_eval.hub import locate
try:
    print(locate(TASKS.get("cvbench").hub, None, {revision!r}))
except DataError as error:
    print("DataError", error)
"""


def test_offline_without_a_snapshot_says_what_to_do(tmp_path):
    said = run_offline(HUB.format(revision=None), tmp_path)
    found = f"nyu-visionx/CV-Bench at revision {CVBENCH.hub.revision} is not in the local cache"
    assert said.startswith(f"DataError {found}, and HF_HUB_OFFLINE")
    assert "Give a local folder" in said


def cache_snapshot(commit, hub_home):
    """The hub's cache after a download of `main`, which stood for that commit."""
    repo = hub_home / "hub" / "datasets--nyu-visionx--CV-Bench"
    write_cvbench(repo / "snapshots" / commit, layout="parquet")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


def test_cached_snapshot_is_found_offline_at_the_commit_that_the_task_names(tmp_path):
    commit = CVBENCH.hub.revision
    cache_snapshot(commit, tmp_path)
    for revision in (None, "main", commit):
        said = run_offline(HUB.format(revision=revision), tmp_path)
        assert commit in said
        assert "DataError" not in said


def test_another_revision_is_read_only_where_it_is_asked_for(tmp_path):
    other = "0123456789abcdef0123456789abcdef01234567"
    cache_snapshot(other, tmp_path)
    for revision in ("main", other):
        said = run_offline(HUB.format(revision=revision), tmp_path)
        assert other in said
        assert "DataError" not in said
    assert f"at revision {CVBENCH.hub.revision} is not in" in run_offline(HUB.format(revision=None), tmp_path)


def test_folder_and_revision_together_are_refused(tmp_path):
    with pytest.raises(DataError, match="both a folder"):
        evaluate("cvbench", Canned({}), data=tmp_path, revision="main", output=tmp_path / "run")
