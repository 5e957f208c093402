"""`cambrian eval`, and the evaluation at the end of `cambrian train`."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cambrian_cli import datasets, evaluation
from cambrian_eval import Failure, Result, summary
from cambrian_eval.metrics import MetricRow, Metrics
from cambrian_eval.models.baselines import RandomChoice
from cambrian_eval.tasks.cvbench import CVBENCH
from cambrian_model.errors import RecipeError
from cambrian_model.training import load_recipe
from tests.support.recipes import SCRATCH
from tests.support.tiny_checkpoint import write_tiny_checkpoint

LEVELS = {"accuracy", "low", "high", "chance", "best_constant", "n"}
TASKS = {"Count", "Relation", "Depth", "Distance"}
FEW = ("--batch-size", 4, "--max-new-tokens", 3)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    """A benchmark of 16 questions about rendered scenes, made by the command."""
    folder = tmp_path_factory.mktemp("benchmark")
    scenes, bench = folder / "scenes", folder / "bench"
    commands = (
        ["data", "scenes", "--output", scenes, "--count", 40, "--seed", 9, "--side", 32],
        ["cvbench", "build", "--scenes", scenes, "--output", bench, "--count-per-task", 4, "--json"],
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "cambrian_cli", *map(str, command)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert json.loads(done.stdout)["tasks"] == dict.fromkeys(TASKS, 4)
    return bench


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "small")


def metrics(folder: Path) -> dict:
    return {name: (folder / name).read_bytes() for name in ("metrics.json", "samples.jsonl", "report.html")}


def test_a_baseline_is_scored_with_intervals_and_both_levels(cambrian, benchmark):
    outcome = cambrian("eval", "cvbench", "--model", "constant:B", "--data", benchmark, "--json")
    assert outcome.status == 0
    (line,) = outcome.stdout.splitlines()
    result = json.loads(line)
    assert set(result) == {"evaluation", "run_dir", "n_failed", "complete", "warnings"}
    assert (result["n_failed"], result["complete"], result["warnings"]) == (0, True, [])
    (found,) = result["evaluation"].values()
    assert set(found) == {"score", "score_2d", "score_3d", "parse_rate", "scores", "tasks"}
    assert found["parse_rate"] == 100
    assert set(found["tasks"]) == TASKS
    for row in found["tasks"].values():
        assert set(row) >= LEVELS
        assert row["n"] == 4
    assert result["run_dir"] == "runs/eval-cvbench-constant-B"
    assert Path(result["run_dir"], "report.html").is_file()
    for text in ("accuracy %", "95 % interval", "chance", "best constant", "parsed", "Distance", "report.html"):
        assert text in outcome.stderr


def test_a_plain_run_prints_one_table_and_the_report(cambrian, benchmark):
    outcome = cambrian("eval", "cvbench-3d", "--model", "random:2", "--data", benchmark)
    assert outcome.status == 0
    assert outcome.stdout.count("┏") == 1
    assert "runs/eval-cvbench-3d-random-2/report.html" in outcome.stdout


@pytest.mark.parametrize(
    ("option", "name"),
    [("--blind", "cvbench_blind"), ("--shuffle-images", "cvbench_shuffled"), ("--limit=8", "cvbench")],
)
def test_modes_have_their_own_key_and_folder(cambrian, benchmark, option, name):
    plain = json.loads(cambrian("eval", "cvbench", "--model", "random", "--data", benchmark, "--json").stdout)
    other = json.loads(cambrian("eval", "cvbench", "--model", "random", "--data", benchmark, option, "--json").stdout)
    assert list(other["evaluation"]) == [name]
    assert other["run_dir"] != plain["run_dir"]


def test_replies_written_down_before_are_scored_again(cambrian, benchmark):
    first = json.loads(cambrian("eval", "cvbench", "--model", "random:5", "--data", benchmark, "--json").stdout)
    samples = Path(first["run_dir"]) / "samples.jsonl"
    again = cambrian("eval", "cvbench", "--model", f"canned:{samples}", "--data", benchmark, "--json")
    assert json.loads(again.stdout)["evaluation"] == first["evaluation"]


def test_a_checkpoint_folder_is_a_model(cambrian, benchmark, checkpoint):
    outcome = cambrian("eval", "cvbench-2d", "--model", checkpoint, "--data", benchmark, *FEW, "--json")
    assert outcome.status == 0
    result = json.loads(outcome.stdout)
    assert result["run_dir"] == "runs/eval-cvbench-2d-cambrian-small"
    named = cambrian(
        "eval", "cvbench-2d", "--model", f"cambrian:{checkpoint}", "--data", benchmark, *FEW, "--output", "x", "--json"
    )
    assert json.loads(named.stdout)["evaluation"] == result["evaluation"]
    assert metrics(Path("x")) == metrics(Path(result["run_dir"]))


def test_a_killed_evaluation_resumes_and_ends_with_the_same_files(cambrian, benchmark, checkpoint, tmp_path):
    arguments = ["--model", checkpoint, "--data", benchmark, "--batch-size", 2, "--max-new-tokens", 12]
    command = [sys.executable, "-m", "cambrian_cli", "eval", "cvbench", *map(str, arguments), "--output", "killed"]
    samples = tmp_path / "killed" / "samples.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        while not (samples.is_file() and samples.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "metrics.json").exists()
    answered = samples.read_bytes().count(b"\n")
    assert 2 <= answered < 16
    for output in ("killed", "whole"):
        assert cambrian("eval", "cvbench", *arguments, "--output", output).status == 0
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


TRAINING = (
    "data.scenes={questions: {cvbench: {scenes: {count: 40, seed: 3, side: 32}, count_per_task: 4, reasoning: true}}}",
    "stages.align.max_steps=1",
    "stages.finetune.max_steps=1",
    "evaluation={cvbench: {scenes: {count: 40, seed: 4, side: 32}, count_per_task: 4, max_new_tokens: 3}}",
)
SETTINGS = [part for setting in TRAINING for part in ("--set", setting)]


def test_training_on_questions_ends_with_an_evaluation_on_held_out_ones(cambrian, monkeypatch):
    monkeypatch.setattr("cambrian_cli.captions.MAX_NEW_TOKENS", 3)
    outcome = cambrian("train", SCRATCH, *SETTINGS, "--output", "run", "--json")
    assert outcome.status == 0, outcome.stderr
    result = json.loads(outcome.stdout.splitlines()[-1])
    assert list(result["evaluation"]) == ["cvbench", "cvbench_blind", "cvbench_shuffled"]
    for found in result["evaluation"].values():
        assert set(found["tasks"]) == TASKS
        assert all(set(row) >= LEVELS for row in found["tasks"].values())
    assert outcome.stderr.count("┏") == 1
    assert "without pictures" in outcome.stderr
    page = Path("run/report.html").read_text()
    for name in ("cvbench", "cvbench-blind", "cvbench-shuffled"):
        assert f'href="eval/{name}/report.html"' in page
        assert Path("run/eval", name, "report.html").is_file()

    again = cambrian("eval", "cvbench", "--model", "run", "--json")  # the run's own questions, asked once
    assert json.loads(again.stdout)["evaluation"]["cvbench"] == result["evaluation"]["cvbench"]
    assert json.loads(again.stdout)["run_dir"] == "run/eval/cvbench"
    same = cambrian("eval", "cvbench", "--model", result["checkpoint"], "--blind", "--json")
    assert json.loads(same.stdout)["evaluation"]["cvbench_blind"] == result["evaluation"]["cvbench_blind"]

    recipe = load_recipe("run/recipe.yaml")
    assert recipe.evaluation is not None
    samples = datasets.build(recipe)["scenes"]
    assert isinstance(samples, list)
    trained_on = {picture for sample in samples for picture in map(content, sample["images"])}
    questions = CVBENCH.questions(datasets.cached_benchmark(recipe.evaluation.cvbench), "test")
    assert not trained_on & {picture.read() for question in questions for picture in question.pictures}
    training, held_out = (datasets.cached_scenes(40, seed, 32) / "images" for seed in (3, 4))
    assert not {content(path) for path in training.iterdir()} & {content(path) for path in held_out.iterdir()}


def content(path: str | Path) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    "source", ["scenes: {count: 9, seed: 4}", "questions: {cvbench: {scenes: {count: 9, seed: 4}}}"]
)
def test_scenes_of_training_and_evaluation_must_differ_by_seed(source):
    held_out = "evaluation={cvbench: {scenes: {count: 9, seed: 4}}}"
    with pytest.raises(RecipeError, match=r"evaluation.cvbench.scenes.seed is 4, and so is that of data.scenes"):
        load_recipe(SCRATCH, [f"data.scenes={{{source}}}", held_out])
    assert load_recipe(SCRATCH, ["data.scenes.scenes.seed=5", held_out]).evaluation is not None


def test_questions_are_made_once_and_say_how_they_are_answered():
    source = "questions: {{cvbench: {{scenes: {{count: 40, seed: 3, side: 32}}, count_per_task: 2, {rest}}}}}"

    def samples(rest):
        return datasets.build(load_recipe(SCRATCH, [f"data.scenes={{{source.format(rest=rest)}}}"]))["scenes"]

    reasoned, letters = samples("reasoning: true"), samples("format_prompt: false")
    picture = Path(reasoned[0]["images"][0])
    written = picture.stat().st_mtime_ns
    assert samples("reasoning: true") == reasoned
    assert picture.stat().st_mtime_ns == written
    assert len(reasoned) == len(letters) == 8
    question, answer = datasets.question_and_reference(reasoned[0])
    assert question.endswith("Answer with the option's letter from the given choices directly.")
    assert "The answer is (" in answer
    question, answer = datasets.question_and_reference(letters[0])
    assert not question.endswith("directly.")
    assert answer in "ABCD"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cvbnch", "--model", "random"], 'unknown task "cvbnch"; did you mean "cvbench"'),
        (["cvbench", "--model", "rnadom", "--data", "."], 'unknown model "rnadom"; did you mean "random"'),
        (["cvbench", "--model", "random:x", "--data", "."], "expected a whole number"),
        (["cambrian-61", "--model", "random"], 'unknown task "cambrian-61"; did you mean "cambrian-16"'),
        (["mmvp,gga", "--model", "random"], 'unknown task "gga"; did you mean "gqa"'),
        (["vision-centric", "--model", "no/where", "--data", "."], "mmvp: found nothing, expected a folder"),
        (["cvbench", "--model", "no/where", "--data", ".", "--split", "train"], 'found split of cvbench "train"'),
        (["cvbench", "--model", "no/where", "--data", ".", "--prompt", "loud"], 'found prompt form "loud"'),
        (["cvbench", "--model", "no/where", "--data", ".", "--revision", "v1"], "give one of them"),
        (["mmvp,gqa", "--model", "random", "--revision", "v1"], "--revision names a commit of one benchmark"),
        (["cvbench", "--model", "random", "--data", ".", "--limit", "4", "--ids", "3"], "a folder without questions"),
        (["cvbench", "--model", "no/where", "--data", "."], 'found no folder "no/where"'),
        (["cvbench", "--model", "random", "--data", "nowhere"], "nowhere: found nothing"),
        (["cvbench", "--model", "random"], "HF_HUB_OFFLINE"),
        (["cvbench", "--model", "random", "--data", ".", "--blind", "--shuffle-images"], "give one of them"),
        (["cvbench", "--model", "random", "--data", "."], "a folder without questions"),
    ],
)
def test_mistakes_are_named(refused, arguments, expected):
    assert expected in refused("eval", *arguments)


def test_a_checkpoint_of_something_else_is_refused(refused, benchmark, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert 'model_type is "llama"' in refused("eval", "cvbench", "--model", tmp_path, "--data", benchmark)
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "recipe.yaml").touch()
    unfinished = refused("eval", "cvbench", "--model", tmp_path / "recipe", "--data", benchmark)
    assert "a run without a checkpoint" in unfinished


def test_a_missing_field_and_a_wrong_split_are_named(refused, benchmark, tmp_path):
    rows = [json.loads(line) for line in (benchmark / "test_2d.jsonl").read_text().splitlines()]
    del rows[0]["choices"]
    (tmp_path / "test_2d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refused("eval", "cvbench-2d", "--model", "random", "--data", tmp_path)
    assert "test_2d.jsonl:1: missing field 'choices'" in message
    (tmp_path / "test_2d.jsonl").rename(tmp_path / "train_2d.jsonl")
    message = refused("eval", "cvbench-2d", "--model", "random", "--data", tmp_path)
    assert "found split 'train'" in message
    assert "needed split 'test'" in message


def test_a_folder_of_another_evaluation_is_refused(cambrian, refused, benchmark):
    arguments = ("eval", "cvbench", "--data", benchmark, "--output", "same", "--model")
    assert cambrian(*arguments, "random").status == 0
    assert "model: found 'random:0', now 'constant:A'" in refused(*arguments, "constant")


def test_an_output_that_cannot_be_made_is_refused(refused, benchmark, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    message = refused("eval", "cvbench", "--model", "random", "--data", benchmark, "--output", "link")
    assert "link: the folder cannot be made" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [("random", "random"), ("random:3", "random:3"), ("cambrian:x/y", "cambrian:x/y"), ("x/y", "cambrian:x/y")],
)
def test_a_path_is_short_for_a_cambrian_model(monkeypatch, name, expected):
    monkeypatch.setattr("cambrian_eval.models.load_model", lambda spec: spec)
    assert evaluation.load_model(name) == expected


@pytest.fixture
def both_parts(benchmark, tmp_path) -> Path:
    """A folder with one folder for each part of the benchmark."""
    for part in ("2d", "3d"):
        shutil.copytree(benchmark, tmp_path / "data" / f"cvbench-{part}")
    return tmp_path / "data"


def test_several_benchmarks_are_asked_one_after_another_and_put_together(cambrian, both_parts):
    command = ("eval", "cvbench-2d,cvbench-3d,cvbench-2d", "--model", "random:2", "--data", both_parts)
    outcome = cambrian(*command, "--json")
    assert outcome.status == 0
    result = json.loads(outcome.stdout)
    assert list(result["evaluation"]) == ["cvbench-2d", "cvbench-3d"]
    folder = Path(result["run_dir"])
    assert folder == Path("runs/eval-cvbench-2d+cvbench-3d+cvbench-2d-random-2")
    assert json.loads((folder / "summary.json").read_text()) == result["summary"]
    assert result["summary"]["groups"] == {}
    assert result["summary"]["tasks"]["cvbench-3d"]["score"] == result["evaluation"]["cvbench-3d"]["score"]
    assert "| cvbench-2d |" in (folder / "summary.md").read_text()
    before = metrics(folder / "cvbench-3d")
    assert cambrian(*command).status == 0
    assert metrics(folder / "cvbench-3d") == before


def test_all_data_is_found_before_the_model_is_loaded(refused, both_parts):
    message = refused("eval", "cvbench-2d,mmvp", "--model", "no/where", "--data", both_parts)
    assert "data/mmvp: found nothing" in message


def test_group_is_averaged_as_the_paper_does():
    levels = {"mmvp": 10.0, "realworldqa": 20.0, "cvbench-2d": 30.0, "cvbench-3d": 40.0}
    results = [result_of(task, level) for task, level in levels.items()]
    found = summary.summarise(results, ["vision-centric", "cambrian-16"])
    assert found.groups["vision-centric"].overall.score == 25
    assert found.incomplete == ("cambrian-16",)
    assert ("mean: vision-centric", "25.0") in [row[:2] for row in found.rows()]
    failed = summary.summarise([*results[:3], result_of("cvbench-3d", 40.0, num_failed=1)], ["vision-centric"])
    assert failed.incomplete == ("vision-centric",)


def result_of(task, level, num_failed=0):
    row = MetricRow(
        group="scores",
        name="score",
        label=task,
        accuracy=level,
        low=level - 1,
        high=level + 1,
        chance=None,
        best_constant=None,
        parse_rate=100.0,
        n=9,
        num_units=9,
    )
    return Result(task, 1, "m", "normal", Metrics({"score": level}, (row,)), 9, num_failed, Path(task))


def test_dry_run_shows_a_prompt_and_the_plan_and_loads_nothing(cambrian, benchmark):
    outcome = cambrian("eval", "cvbench", "--model", "no/where", "--data", benchmark, "--dry-run", "--blind", "--json")
    assert outcome.status == 0
    planned = json.loads(outcome.stdout)["dry_run"]["cvbench"]
    assert (planned["num_questions"], planned["num_pictures"]) == (16, 0)
    assert planned["num_requests"] <= 16
    assert planned["prompt"].endswith("Answer with the option's letter from the given choices directly.")
    assert planned["prompt"] in outcome.stderr
    assert not Path("runs").exists()


def test_named_questions_come_from_the_command_line_or_a_file(cambrian, benchmark, tmp_path):
    (tmp_path / "ids.txt").write_text("2d-1\n3\n")
    command = ("eval", "cvbench", "--model", "random", "--data", benchmark, "--json", "--ids")
    by_name, by_file = (json.loads(cambrian(*command, ids).stdout) for ids in ("2d-1,3", "ids.txt"))
    assert by_name == by_file
    lines = (Path(by_name["run_dir"]) / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["2d-1", "2d-3"]


def test_a_list_of_ids_may_be_longer_than_a_file_name(cambrian, benchmark):
    ids = ",".join(["2d-1"] * 2000)
    outcome = cambrian("eval", "cvbench", "--model", "random", "--data", benchmark, "--json", "--dry-run", "--ids", ids)
    assert json.loads(outcome.stdout)["dry_run"]["cvbench"]["num_questions"] == 1


def test_a_file_of_ids_that_is_no_text_is_refused(refused, benchmark, tmp_path):
    (tmp_path / "ids.bin").write_bytes(b"\xff\xfe")
    message = refused("eval", "cvbench", "--model", "random", "--data", benchmark, "--ids", tmp_path / "ids.bin")
    assert "ids.bin: not a text file" in message


@pytest.mark.parametrize("model", ["openai:http://127.0.0.1:9/v1?token={}#m", "constant:{}"])
def test_what_follows_a_models_kind_is_no_path_and_may_be_long(cambrian, benchmark, model):
    outcome = cambrian("eval", "cvbench", "--model", model.format("x" * 5000), "--data", benchmark, "--dry-run")
    assert outcome.status == 0


@pytest.mark.parametrize(
    "options",
    [("--permute", 4), ("--prompt", "cot"), ("--prompt", "bare"), ("--compat", "lmms-eval"), ("--verify-batching", 4)],
)
def test_every_way_to_ask_has_a_folder_of_its_own(cambrian, benchmark, options):
    plain = json.loads(cambrian("eval", "cvbench", "--model", "random", "--data", benchmark, "--json").stdout)
    outcome = cambrian("eval", "cvbench", "--model", "random", "--data", benchmark, "--json", *options)
    assert outcome.status == 0, outcome.stderr
    other = json.loads(outcome.stdout)
    assert other["run_dir"] != plain["run_dir"]
    found = other["evaluation"]["cvbench"]
    assert ("position_bias" in found) == (options[0] == "--permute")


def test_workers_write_what_one_process_writes(cambrian, benchmark):
    command = ("eval", "cvbench", "--model", "random:4", "--data", benchmark, "--output")
    assert cambrian(*command, "one").status == cambrian(*command, "two", "--workers", 2).status == 0
    assert metrics(Path("one")) == metrics(Path("two"))


class Flaky(RandomChoice):
    """An endpoint, say, that is down for one question."""

    def answer(self, prompts):
        answers = super().answer(prompts)
        return [Failure("down") if p.id == "2d-1" else a for p, a in zip(prompts, answers, strict=True)]


def test_incomplete_evaluation_is_printed_and_ends_with_status_2(cambrian, benchmark, monkeypatch):
    command = ("eval", "cvbench", "--model", "random", "--data", benchmark, "--json")
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "load_model", lambda name: Flaky())
        outcome = cambrian(*command)
    assert outcome.status == 2
    result = json.loads(outcome.stdout)
    assert (result["n_failed"], result["complete"]) == (1, False)
    assert "is incomplete: questions were not answered, 1 of cvbench" in outcome.stderr
    assert "Repeat the command" in outcome.stderr
    assert cambrian(*command).status == 0


def test_workers_and_torchrun_do_not_mix(refused, benchmark, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refused("eval", "cvbench", "--model", "random", "--data", benchmark, "--workers", 2)
    assert "torchrun has started 2 processes" in message
