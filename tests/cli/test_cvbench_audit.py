"""`cambrian cvbench audit`: models of the command line without pictures, files, decisions, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from cambrian_data.cvbench import audit as library
from cambrian_data.cvbench import write_scene_benchmark
from cambrian_data.scenes import write_scenes
from tests.support.tiny_checkpoint import write_tiny_checkpoint

TASKS = ("Count", "Depth", "Distance", "Relation")
NUM_ASKED = 4 * 4 + 3 * 4 * 2  # four questions of each task, in as many orders as they have choices


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    """16 questions about rendered scenes."""
    folder = tmp_path_factory.mktemp("audit")
    write_scenes(folder / "scenes", count=40, seed=9, side=32)
    write_scene_benchmark(folder / "scenes", folder / "bench", count_per_task=4)
    return folder / "bench"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "small")


def samples(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    found = ("audit.json", "audit.csv", "audit.md", "models/cambrian-small/samples.jsonl")
    return {name: (folder / name).read_bytes() for name in found}


@pytest.fixture
def told(cambrian, benchmark, tmp_path) -> Path:
    """Replies of somebody who knows every answer, written down."""
    assert cambrian("cvbench", "audit", benchmark, "--model", "random", "--output", "asked").status == 0
    lines = [{"id": sample["id"], "reply": sample["truth"]} for sample in samples(Path("asked/models/random-0"))]
    file = tmp_path / "told.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_models_are_audited_and_everything_is_written(cambrian, benchmark):
    models = ("--model", "random:2", "--model", "constant:B")
    outcome = cambrian("cvbench", "audit", benchmark, *models, "--output", "out", "--json")
    assert outcome.status == 0, outcome.stderr
    (line,) = outcome.stdout.splitlines()
    result = json.loads(line)
    assert result["output"] == "out"
    assert result["findings"] == []
    assert [model["name"] for model in result["models"]] == ["random:2", "constant:B"]
    assert [level["task"] for level in result["tasks"]] == list(TASKS)
    assert result == json.loads(Path("out/audit.json").read_text()) | {"output": "out", "exported": None}
    assert len(Path("out/audit.csv").read_text().splitlines()) == 17
    for name in ("random-2", "constant-B"):
        asked = samples(Path("out/models") / name)
        assert len(asked) == NUM_ASKED
        assert all(sample["pictures"] == [] for sample in asked)
        assert all(sample["prompt"].endswith("from the given choices directly.") for sample in asked)
    for text in ("best letter", "right in every order", "nothing that luck does not explain", "audit: out"):
        assert text in outcome.stderr


def test_without_a_model_priors_alone_are_looked_at(cambrian, benchmark):
    outcome = cambrian("cvbench", "audit", benchmark, "--output", "out")
    assert outcome.status == 0
    assert "no model was asked" in outcome.stdout
    assert not Path("out/models").exists()


def test_choices_go_round_and_replies_are_read_as_in_an_evaluation(cambrian, benchmark):
    arguments = ("cvbench", "audit", benchmark, "--model", "random:2", "--permutations", 2, "--output", "out")
    assert cambrian(*arguments).status == 0
    asked = {sample["id"]: sample for sample in samples(Path("out/models/random-2-orders2"))}
    assert len(asked) == 32
    rows = [json.loads(line) for part in "23" for line in (benchmark / f"test_{part}d.jsonl").read_text().splitlines()]
    for row in rows:
        first, second = (asked[f"{row['type'].lower()}-{row['idx']}@{shift}"] for shift in (0, 1))
        assert first["prompt"].startswith(row["prompt"] + "\n")
        assert first["choices"] == row["choices"]
        assert second["choices"] == [*row["choices"][1:], row["choices"][0]]
        right = [sample["choices"]["ABCD".index(sample["truth"])] for sample in (first, second)]
        assert right[0] == right[1] == row["choices"]["ABCD".index(row["answer"][1])]
    metrics = json.loads(Path("out/models/random-2-orders2/metrics.json").read_text())
    assert metrics["tasks"]["Count"]["n"] == 4  # the published order alone
    assert metrics["mode"] == "blind"


def test_a_checkpoint_is_audited_and_an_interrupted_audit_goes_on(cambrian, benchmark, checkpoint, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    (half / "test_2d.jsonl").write_bytes((benchmark / "test_2d.jsonl").read_bytes())
    arguments = ("cvbench", "audit", half, "--model", checkpoint, "--batch-size", 8, "--max-new-tokens", 3)
    for output in ("whole", "broken"):
        outcome = cambrian(*arguments, "--output", output)
        assert outcome.status == 0, outcome.stderr
        assert "cambrian:small, without pictures" in outcome.stdout
    log = Path("broken/models/cambrian-small/samples.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4 * 4 + 4 * 2
    log.write_bytes(b"".join(lines[:9]) + lines[9][:20])  # as a killed process leaves it
    models = Path("broken/models").rename("models")
    shutil.rmtree("broken")
    library.claim(half, library.read_items(half), Path("broken"))
    models.rename("broken/models")
    assert cambrian(*arguments, "--output", "broken").status == 0
    assert files(Path("broken")) == files(Path("whole"))


def test_knowledge_is_found_and_exported_as_decisions_of_a_reviewer(cambrian, refused, benchmark, told):
    arguments = ("cvbench", "audit", benchmark, "--model", f"canned:{told}", "--output", "out")
    outcome = cambrian(*arguments, "--export-filtered", "review/blind.jsonl", "--json")
    assert outcome.status == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert any(
        finding.startswith("canned:told.jsonl, all: right in every order in 16") for finding in result["findings"]
    )
    decisions = [json.loads(line) for line in Path("review/blind.jsonl").read_text().splitlines()]
    assert 0 < len(decisions) == result["drops"] == 16
    assert {decision["decision"] for decision in decisions} == {"reject"}
    before = Path("review/blind.jsonl").read_bytes()
    assert "decisions are never overwritten" in refused(*arguments, "--export-filtered", "review/blind.jsonl")
    assert Path("review/blind.jsonl").read_bytes() == before


def test_nothing_to_drop_writes_no_decisions(cambrian, benchmark):
    arguments = ("cvbench", "audit", benchmark, "--model", "random", "--output", "out")
    outcome = cambrian(*arguments, "--export-filtered", "blind.jsonl", "--json")
    assert json.loads(outcome.stdout)["exported"] is None
    assert "no question to drop: blind.jsonl is not written" in outcome.stderr
    assert not Path("blind.jsonl").exists()


def test_the_audit_lies_in_the_benchmark_unless_said_otherwise(cambrian, benchmark, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for table in benchmark.glob("test_*.jsonl"):
        (copy / table.name).write_bytes(table.read_bytes())
    assert cambrian("cvbench", "audit", copy, "--model", "random").status == 0  # pictures are not needed
    assert (copy / "audit" / "audit.json").is_file()
    assert cambrian("cvbench", "audit", copy, "--model", "random").status == 0


def test_replies_to_other_questions_are_not_taken_for_these(cambrian, refused, benchmark, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for table in benchmark.glob("test_*.jsonl"):
        (copy / table.name).write_bytes(table.read_bytes())
    assert cambrian("cvbench", "audit", copy, "--model", "random").status == 0
    table = copy / "test_3d.jsonl"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    held = {path: path.read_bytes() for path in (copy / "audit").rglob("*") if path.is_file()}
    for models in (["--model", "random"], ["--model", "random:1"], []):
        message = refused("cvbench", "audit", copy, *models)
        assert "holds an audit of other questions, those of copy" in message
        assert "Choose another output" in message
    assert {path: path.read_bytes() for path in (copy / "audit").rglob("*") if path.is_file()} == held


def test_a_folder_of_something_else_is_refused_before_a_model_is_asked(refused, benchmark):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    for models in (["--model", "random"], []):
        assert "out is not empty and holds no audit" in refused(
            "cvbench", "audit", benchmark, *models, "--output", "out"
        )
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "rnadom"], 'unknown model "rnadom"; did you mean "random"'),
        (["--model", "no/where"], 'found no folder "no/where"'),
        (["--model", "random", "--model", "random"], "--model random is given twice"),
        (["--model", "random", "--model", "random:0"], "two models are called random:0"),
        (["--export-filtered", "x.jsonl"], "--export-filtered needs a --model"),
    ],
)
def test_mistakes_are_named(refused, benchmark, arguments, expected):
    assert expected in refused("cvbench", "audit", benchmark, "--output", "out", *arguments)


def test_a_folder_without_questions_is_named(refused, tmp_path):
    assert "expected test_2d and test_3d" in refused("cvbench", "audit", tmp_path / "nowhere", "--model", "random")


def test_one_order_is_refused(cambrian, benchmark):
    outcome = cambrian("cvbench", "audit", benchmark, "--model", "random", "--permutations", 1)
    assert outcome.status == 2
    assert "--permutations" in outcome.stderr
