"""The train commands on a small recipe, cut down to two steps of each stage."""

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from cambrian_cli import captions, datasets
from cambrian_cli.commands.train import DEFAULT_RECIPE
from cambrian_cli.output import report
from cambrian_data.grounding.texts import DESCRIBE
from cambrian_model.training import load_recipe
from tests.support.recipes import SCRATCH

SHORT = (
    "data.scenes.scenes.count=12",
    "stages.align.max_steps=2",
    "stages.finetune.max_steps=2",
    "checkpoint.every=1",
)
SETTINGS = [part for setting in SHORT for part in ("--set", setting)]


def start(*arguments: str | Path, cache: Path, **options: object) -> subprocess.Popen[str]:
    """Starts `cambrian ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "cambrian_cli", *map(str, arguments)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, **options)  # type: ignore[call-overload]


def test_the_recipe_is_tiny_where_none_is_named(refused):
    assert DEFAULT_RECIPE == "tiny"
    assert "tiny.yaml: seed is 'x'" in refused("train", "--set", "seed=x")


@pytest.fixture(scope="module")
def trained(common: Path, cache: Path) -> tuple[Path, str, str]:
    """The folder of one run of `cambrian train --json`, and what it printed on stdout and stderr; made once for all."""
    folder = common / "trained"
    printed = folder / "stdout.txt", folder / "stderr.txt"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed[0].exists():
            process = start("train", SCRATCH, *SETTINGS, "--json", cache=cache, cwd=folder)
            stdout, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr
            printed[1].write_text(stderr)
            printed[0].write_text(stdout)
    (run,) = (folder / "runs").iterdir()
    return run, printed[0].read_text(), printed[1].read_text()


def test_json_is_one_line_on_stdout_and_all_else_goes_to_stderr(trained):
    run, stdout, stderr = trained
    (line,) = stdout.splitlines()
    result = json.loads(line)
    assert (run.parents[1] / result["run_dir"]).samefile(run)
    assert (run.parents[1] / result["checkpoint"] / "config.json").is_file()
    assert result["seconds"] > 0
    assert {name: stage["steps"] for name, stage in result["stages"].items()} == {"align": 2, "finetune": 2}
    assert [set(caption) for caption in result["captions"]] == [{"image", "question", "answer", "reference"}] * 3
    for caption in result["captions"]:
        assert all(f": {text}" in stderr.replace("     ", " ") for text in (caption["question"], caption["reference"]))


def test_the_run_holds_what_is_needed_to_understand_and_repeat_it(trained):
    run, _, _ = trained
    names = {path.name for path in run.iterdir()}
    assert {"recipe.yaml", "run.json", "metrics.jsonl", "curve.png", "captions.png", "captions.json"} <= names
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(step["stage"], step["step"]) for step in steps] == [(s, n) for s in ("align", "finetune") for n in (1, 2)]
    assert all({"loss", "lr", "tokens"} <= set(step) for step in steps)
    assert load_recipe(run / "recipe.yaml").stages["align"].max_steps == 2


def test_captioned_scenes_are_held_out(trained):
    run, stdout, _ = trained
    result = json.loads(stdout)
    assert result["captions_held_out"]
    recipe = load_recipe(run / "recipe.yaml")
    samples = datasets.build(recipe)["scenes"]
    assert isinstance(samples, list)
    training = {Path(image).read_bytes() for sample in samples for image in sample["images"]}
    shown = {Path(caption["image"]).read_bytes() for caption in result["captions"]}
    assert len(shown) == 3
    assert not shown & training
    assert datasets.held_out_seed(recipe) not in {
        source.scenes.seed for source in recipe.data.values() if source.scenes
    }


def test_resuming_a_finished_run_changes_no_weight_and_succeeds(cambrian, trained):
    run, stdout, _ = trained
    weights = (run / "checkpoint" / "model.safetensors").read_bytes()
    outcome = cambrian("train", SCRATCH, *SETTINGS, "--output", run, "--resume", "--json")
    assert outcome.status == 0
    assert (run / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert json.loads(outcome.stdout)["stages"] == json.loads(stdout)["stages"]


def test_a_finished_run_needs_no_data(cambrian, trained, tmp_path, monkeypatch):
    run, stdout, _ = trained
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "run.json").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    outcome = cambrian("train", SCRATCH, *SETTINGS, "--output", "copy", "--resume", "--json")
    assert outcome.status == 0
    found, before = json.loads(outcome.stdout)["captions"], json.loads(stdout)["captions"]
    assert [caption["answer"] for caption in found] == [caption["answer"] for caption in before]
    assert [Path(caption["image"]) for caption in found] == [tmp_path / "copy" / f"captions/{i}.png" for i in range(3)]
    assert all(Path(caption["image"]).is_file() for caption in found)
    assert not (tmp_path / "empty").exists()


def test_a_mistake_leaves_no_folder_in_the_way_of_the_corrected_command(cambrian, refused):
    short = [*SETTINGS, "--set", "stages.finetune.max_steps=1", "--output", "run"]
    assert "row" in refused("pretrain", SCRATCH, *short, "--set", "stages.align.batch.row_tokens=8")
    assert not Path("run").exists()
    assert cambrian("pretrain", SCRATCH, *short).status == 0


def test_records_and_pictures_that_cannot_be_read_are_left_out_if_the_user_says_so(cambrian, refused, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."}]
    names = ["damaged.png", "a.png", "gone.png", "b.png"]
    lines = [json.dumps({"id": name, "image": name, "conversations": turns}) for name in names]
    (tmp_path / "mine.jsonl").write_text("\n".join([*lines, '{"id": "half', lines[1]]) + "\n", encoding="utf-8")
    for name in ("a.png", "b.png", "damaged.png"):
        Image.effect_noise((48, 32), 60).save(tmp_path / name)
    whole = (tmp_path / "damaged.png").read_bytes()
    (tmp_path / "damaged.png").write_bytes(whole[:60] + bytes(len(whole) - 80) + whole[-20:])  # only pixels are damaged

    own = ("data.scenes.scenes=null", f"data.scenes.records={tmp_path / 'mine.jsonl'}", *SHORT[1:])
    command = ["pretrain", SCRATCH, "--output", "run", *(part for setting in own for part in ("--set", setting))]
    assert "mine.jsonl:3: " in refused(*command)
    outcome = cambrian(*command, "--on-bad-sample", "skip", "--json")

    assert outcome.status == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["bad_samples"] == 3
    listed = [json.loads(line) for line in Path("run/bad_samples.jsonl").read_text().splitlines()]
    assert [(Path(line["name"]).name, line["when"]) for line in listed] == [
        *(("mine.jsonl:3", "index"), ("mine.jsonl:5", "index"), ("mine.jsonl:1", "train"))
    ]
    assert [caption["question"] for caption in result["captions"]] == ["What is it?"] * 2  # of a.png and b.png


def test_finetuning_refuses_a_checkpoint_of_another_model(refused, trained):
    run, _, _ = trained
    message = refused(
        "finetune", SCRATCH, "--from", run, *SETTINGS, "--set", "model.connector.depth=2", "--output", "b"
    )
    assert "model.connector.depth is 2 in the recipe, but 1 in the checkpoint" in message
    assert not Path("b").exists()


def test_a_folder_that_holds_another_run_is_refused(refused, trained):
    run, _, _ = trained
    assert "--resume" in refused("train", SCRATCH, *SETTINGS, "--output", run)


def test_a_run_is_not_resumed_with_another_recipe(refused, trained):
    run, _, _ = trained
    assert "seed was 0, now 1" in refused("train", SCRATCH, *SETTINGS, "--set", "seed=1", "--output", run, "--resume")


def test_a_folder_of_something_else_is_not_resumed(refused, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    assert "a.txt" in refused("train", SCRATCH, *SETTINGS, "--output", tmp_path / "letters", "--resume")


def test_ask_answers_about_a_picture(cambrian, trained):
    run, stdout, _ = trained
    picture = json.loads(stdout)["captions"][0]["image"]
    outcome = cambrian("ask", run, "What is it?", "--image", picture, "--max-new-tokens", 3, "--json")
    assert outcome.status == 0
    answer = json.loads(outcome.stdout)
    assert answer["question"] == "What is it?"
    assert answer["images"] == [picture]
    plain = cambrian("ask", run / "checkpoint", "What is it?", "--image", picture, "--max-new-tokens", 3)
    assert plain.stdout.strip() == answer["answer"]


def test_ask_takes_several_pictures_or_none(cambrian, trained):
    run, stdout, _ = trained
    pictures = [part for caption in json.loads(stdout)["captions"] for part in ("--image", caption["image"])]
    assert cambrian("ask", run, "Which?", *pictures, "--max-new-tokens", 2).status == 0
    assert cambrian("ask", run, "Hello?", "--max-new-tokens", 2).status == 0


def test_pretrain_and_finetune_are_the_stages_of_train(cambrian, trained):
    run, _, _ = trained
    assert cambrian("pretrain", SCRATCH, *SETTINGS, "--output", "a").status == 0
    outcome = cambrian("finetune", SCRATCH, "--from", "a", *SETTINGS, "--output", "b", "--json")
    assert set(json.loads(outcome.stdout)["stages"]) == {"finetune"}
    weights = "checkpoint/model.safetensors"
    assert Path("b", weights).read_bytes() == (run / weights).read_bytes()


def test_a_full_disk_is_named_and_leaves_no_checkpoint(tmp_path, cache):
    limit = 200_000  # bytes that one file may have: too few for the weights; the kernel refuses as on a full disk

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start("train", SCRATCH, *SETTINGS, "--output", "run", cache=cache, cwd=tmp_path, preexec_fn=limited)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    (message,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "could not write" in message
    assert "--resume" in message
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_continues(tmp_path, cache):
    more = [*SETTINGS, "--set", "stages.align.max_steps=40", "--output", "run"]
    process = start("train", SCRATCH, *more, cache=cache, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in stderr
    process = start("train", SCRATCH, *more, "--resume", cache=cache, cwd=tmp_path)
    assert process.communicate(timeout=300)
    assert process.returncode == 0


@pytest.mark.slow
def test_torchrun_starts_the_same_command(tmp_path, cache):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m"]
    done = subprocess.run(
        [*command, "cambrian_cli", "train", str(SCRATCH), *SETTINGS, "--json"],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])["stages"]) == {"align", "finetune"}


def test_pictures_of_records_are_called_training_pictures(write_jsonl, tmp_path):
    recipe = load_recipe(SCRATCH, ["data.scenes.scenes=null", f"data.scenes.records={write_jsonl({})}"])
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    pictures = [str(tmp_path / f"{name}.png") for name in "aabcd"]
    samples = [{"messages": [message], "images": [picture]} for picture in pictures]
    chosen, held_out = captions.choose(recipe, {"scenes": samples})
    assert [sample["images"] for sample in chosen] == [[picture] for picture in pictures[1:4]]
    assert not held_out
    assert "training pictures" in captions.Captions([], held_out).title


MADE = {
    "scenes": "scenes: {count: 9, seed: 5, side: 32}",
    "places": "grounding: {scenes: {count: 9, seed: 6, side: 32}, grid_side: 4}",
    "asked": "questions: {cvbench: {scenes: {count: 40, seed: 7, side: 32}}}",
}


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("places",), "description"),
        (("places", "asked"), "question"),
        (("asked", "places"), "question"),
        (("places", "asked", "scenes"), "caption"),
    ],
)
def test_what_is_made_of_scenes_is_shown_for_held_out_scenes(names, shown):
    """Captions before questions, questions before descriptions, in whatever order the recipe names them."""
    sources = ", ".join(f"{name}: {{{source}}}" for name, source in MADE.items())
    recipe = load_recipe(SCRATCH, [f"data={{{sources}}}"])
    chosen, held_out = captions.choose(recipe, {name: [] for name in names})
    asked = [datasets.question_and_reference(sample)[0] for sample in chosen]
    assert held_out
    assert len({sample["images"][0] for sample in chosen}) == 3
    assert all(f"-seed8-side32{os.sep}" in sample["images"][0] for sample in chosen)
    assert all(Path(sample["images"][0]).is_file() for sample in chosen)
    assert all(("Select from the following choices." in text) == (shown == "question") for text in asked)
    assert (asked == [DESCRIBE] * 3) == (shown == "description")


def test_without_a_picture_to_caption_the_output_says_why(capsys):
    with report() as out:
        captions.show(out, captions.Captions([], False))
    assert "no record of this recipe's data has exactly one picture" in capsys.readouterr().out
