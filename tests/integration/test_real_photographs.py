"""The main job on real input: real photographs and captions, a real MobileNetV2, a real small language model.

This runs the command of docs/train-on-your-data.md as a user would.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor


def cambrian(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cambrian_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=570, check=False)


@pytest.fixture(scope="module")
def run_dir(request, tmp_path_factory) -> Path:
    assets = request.getfixturevalue("assets")
    folder = tmp_path_factory.mktemp("photographs") / "run"
    encoder = assets / "vision" / "mobilenetv2_100.coral_int8_in1k"
    values = {
        "data.train.records": assets / "instruct" / "llava_format.jsonl",
        "data.train.images": assets,
        "model.language_model.path": assets / "lm" / "stories260k",
        "model.vision_encoders.0.path": encoder,
        "model.vision_encoders.1.path": encoder,
    }
    overrides = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    done = cambrian("train", "photographs", "--output", str(folder), *overrides, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run_dir"] == str(folder)
    return folder


def losses(run_dir: Path, stage: str) -> list[float]:
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [step["loss"] for step in steps if step["stage"] == stage]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("stage", ["align", "finetune"])
def test_the_loss_of_both_stages_falls_by_a_fifth(run_dir, stage):
    values = losses(run_dir, stage)
    assert len(values) == 60
    assert mean(values[-5:]) < 0.8 * mean(values[:5])


def test_the_checkpoint_answers_about_a_photograph(run_dir, assets):
    done = cambrian("ask", str(run_dir), "--image", str(assets / "photos" / "parrot.jpg"), "What is shown?", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["answer"]


def test_the_checkpoint_reloads_with_identical_logits(run_dir, assets, tmp_path):
    checkpoint = run_dir / "checkpoint"
    model = CambrianForConditionalGeneration.from_pretrained(checkpoint)
    processor = CambrianProcessor.from_pretrained(checkpoint)
    content = [{"type": "image", "path": str(assets / "photos" / "owl.jpg")}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(messages, **options)
    model.save_pretrained(tmp_path, max_shard_size="2MB")
    again = CambrianForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    assert len(model.config.encoders) == 2
    assert len({encoder.grid_side for encoder in model.config.encoders}) == 2
