"""The Cambrian adapter on a real checkpoint in miniature: batches, blind prompts, fingerprints, mistakes."""

import dataclasses
import json
import shutil
import sys

import pytest
import torch

from cambrian_eval import TASKS, Answer, DataError, Failure, ModelError, RunMismatchError, evaluate, load_model
from cambrian_eval.models.cambrian import Cambrian
from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor
from tests.eval.benchmark_folder import SCENES, write_cvbench
from tests.support.tiny_checkpoint import write_tiny_checkpoint

TOKENS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(f"cambrian:{checkpoint}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), sources=SCENES, per_group=3)


@pytest.fixture(scope="module")
def prompts(folder):
    task = TASKS.get("cvbench")
    found = [task.prompt(question) for question in task.questions(folder, "test")]
    return [dataclasses.replace(prompt, max_new_tokens=TOKENS) for prompt in found]


def blind(prompt):
    return dataclasses.replace(prompt, content=(prompt.text,))


def test_one_prompt_is_answered_as_generate_answers_it(model, checkpoint, prompts):
    reference = CambrianForConditionalGeneration.from_pretrained(checkpoint, dtype="auto").eval()
    processor = CambrianProcessor.from_pretrained(checkpoint)
    inputs = processor.apply_chat_template(
        prompts[0].messages(), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=processor.stop_token_ids)
    (reply,) = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    (answer,) = model.answer(prompts[:1])
    assert answer.text == reply.strip()
    assert answer.text


def test_a_batch_is_answered_as_its_prompts_alone_in_their_order(model, prompts):
    """The random model's logits lie far apart; padding moves them by rounding only, which flips none of its choices."""
    mixed = [blind(prompt) if place % 3 == 0 else prompt for place, prompt in enumerate(prompts)]
    alone = [model.answer([prompt])[0] for prompt in mixed]
    assert model.answer(mixed) == alone
    assert len({answer.text for answer in alone}) > 3


def test_pictures_change_what_is_said_and_blind_prompts_are_answered(model, prompts):
    seen, unseen = model.answer(prompts), model.answer([blind(prompt) for prompt in prompts])
    assert [answer.text for answer in seen] != [answer.text for answer in unseen]


def test_a_reply_that_never_ends_is_called_truncated(model, prompts, monkeypatch):
    (long,) = model.answer(prompts[:1])
    assert long.truncated
    monkeypatch.setattr(model, "_stop_ids", list(range(model._model.config.get_text_config().vocab_size)))
    assert model.answer(prompts[:1]) == [Answer("", truncated=False)]


def test_prompts_of_very_different_length_are_not_padded_together(model, prompts, monkeypatch):
    shapes = []
    generate = model._model.generate

    def recorded(**batch):
        shapes.append(tuple(batch["input_ids"].shape))
        return generate(**batch)

    monkeypatch.setattr(model._model, "generate", recorded)
    short = dataclasses.replace(prompts[0], content=("Hello?",))
    model.answer([short, *prompts[:3], short])
    assert sorted(shape[0] for shape in shapes) == [2, 3]


def test_two_runs_write_the_same_bytes_and_a_cap_is_part_of_the_run(checkpoint, folder, tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        model = load_model(f"cambrian:{checkpoint}")
        result = evaluate("cvbench", model, data=folder, output=run, batch_size=5, max_new_tokens=TOKENS)
    assert result.num_answered == 12
    for name in ("run.json", "samples.jsonl", "metrics.json", "report.html"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert f"replies end after {TOKENS} tokens" in (runs[0] / "report.html").read_text()
    with pytest.raises(RunMismatchError, match="max_new_tokens: found 6, now 7"):
        evaluate("cvbench", model, data=folder, output=runs[0], max_new_tokens=7)
    with pytest.raises(ModelError, match="a cap of 0 new tokens"):
        evaluate("cvbench", model, data=folder, output=tmp_path / "none", max_new_tokens=0)


def test_the_fingerprint_tells_weights_and_processors_apart_and_nothing_else(model, checkpoint, tmp_path):
    def fingerprint(changed):
        copy = shutil.copytree(checkpoint, tmp_path / changed)
        with (copy / changed).open("ab") as file:
            file.write(b" ")
        return Cambrian(model._model, model._processor, copy).fingerprint

    assert fingerprint("README.md") == model.fingerprint
    others = [fingerprint(name) for name in ("model.safetensors", "generation_config.json", "tokenizer.json")]
    assert len({model.fingerprint, *others}) == 4


def parts(folder):
    return CambrianForConditionalGeneration.from_pretrained(folder), CambrianProcessor.from_pretrained(folder)


def test_a_run_is_answered_by_its_checkpoint(checkpoint, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "checkpoint")
    model = load_model(f"cambrian:{run}")
    assert model.name == load_model(f"cambrian:{run / 'checkpoint'}").name == "cambrian:run"
    assert model.fingerprint == load_model(f"cambrian:{checkpoint}").fingerprint


def test_a_prompt_without_room_for_a_reply_is_a_failure(tmp_path, prompts):
    model = load_model(f"cambrian:{write_tiny_checkpoint(tmp_path / 'short', context=64)}")
    short = dataclasses.replace(prompts[0], content=("Hi?",))
    full, answered = model.answer([prompts[0], short])
    assert isinstance(full, Failure)
    assert "context holds 64" in full.reason
    assert isinstance(answered, Answer)


def test_half_precision_checkpoints_see_too(checkpoint, prompts, tmp_path):
    model, processor = parts(checkpoint)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load_model(f"cambrian:{tmp_path}")
    assert loaded.fingerprint.split(":")[2:] == ["torch.bfloat16", "cpu"]
    assert loaded.answer(prompts[:2])


def test_folders_of_something_else_are_refused(checkpoint, tmp_path):
    def refused(folder):
        with pytest.raises(ModelError) as caught:
            load_model(f"cambrian:{folder}")
        return str(caught.value)

    assert 'found no folder "' in refused(tmp_path / "nowhere")
    assert "write cambrian:PATH" in refused("")
    assert "no config.json" in refused(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    assert "a run without a checkpoint" in refused(tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert 'model_type is "llama"' in refused(other)
    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be loaded" in refused(cut)
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "cannot be loaded" in refused(bare)


def test_without_cambrian_model_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cambrian_model", None)
    with pytest.raises(ModelError, match=r"pip install 'cambrian-eval\[cambrian\]'"):
        load_model(f"cambrian:{tmp_path}")


def test_a_broken_picture_is_named(model, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    picture = next(copy.rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:30])
    with pytest.raises(DataError, match=picture.name):
        evaluate("cvbench", model, data=copy, output=tmp_path / "run", max_new_tokens=2)
