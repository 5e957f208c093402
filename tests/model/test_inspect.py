"""What a folder or file is, told from its headers: every kind that we know, and what damage may have befallen it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

from cambrian_model.checkpoints.convert import convert
from cambrian_model.checkpoints.inspect import Inspection, Part, inspect
from cambrian_model.checkpoints.plan import Options
from cambrian_model.errors import CheckpointError
from tests.support.released_checkpoint import (
    WIDTHS,
    change_config,
    read_state,
    write_native,
    write_released,
    write_state,
)
from tests.support.tiny_model import tiny_model

PRECOMPUTED = Options(precomputed_encoders=WIDTHS)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return write_released(tmp_path_factory.mktemp("template") / "released")


@pytest.fixture
def released(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "released"))


def by_name(found: Inspection) -> dict[str, Part]:
    return {part.name: part for part in found.parts}


def count(found: Inspection) -> tuple[int, int]:
    return sum(part.tensors for part in found.parts), sum(part.num_bytes for part in found.parts)


def test_a_released_checkpoint_with_its_parts(released):
    found = inspect(released)
    assert (found.kind, found.facts["model_type"]) == ("released checkpoint", "cambrian_llama")
    parts = by_name(found)
    assert list(parts) == ["vision_encoders.0", "vision_encoders.1", "connector", "in_llm", "language_model"]
    assert parts["vision_encoders.1"] == Part("vision_encoders.1", "tower-b, width 40, grid 8 x 8", training="frozen")
    state = read_state(released)
    assert count(found) == (len(state), sum(x.nbytes for x in state.values()))
    inside = [x for name, x in state.items() if "vision_sampler_layers" in name]
    assert (parts["in_llm"].tensors, parts["in_llm"].parameters) == (len(inside), sum(x.numel() for x in inside))
    assert parts["in_llm"].detail == "after decoder layers 0, 2"
    assert parts["language_model"].detail == "llama, width 48, 3 layers"


def test_what_the_original_trained_is_told_by_its_flags(released):
    trained = {part.name: part.training for part in inspect(released).parts}
    assert trained["connector"] == trained["language_model"] == "trained"
    change_config(released, tune_mm_mlp_adapter=True, unfreeze_mm_vision_tower=True)
    trained = {part.name: part.training for part in inspect(released).parts}
    assert trained["vision_encoders.0"] == "trained"
    assert trained["language_model"] == "frozen"


def test_types_are_listed_where_they_are_mixed(released):
    state = read_state(released)
    state["lm_head.weight"] = state["lm_head.weight"].half()
    write_state(released, state, 3)
    parts = by_name(inspect(released))
    assert parts["language_model"].dtypes == ["F16", "F32"]
    assert parts["connector"].dtypes == ["F32"]


def test_a_checkpoint_of_ours_keeps_what_the_original_said_of_training(released, tmp_path):
    change_config(released, tune_mm_mlp_adapter=True)
    convert(released, tmp_path / "ours", PRECOMPUTED)
    found = inspect(tmp_path / "ours")
    assert (found.kind, found.facts["processor"]) == ("native checkpoint", True)
    parts = by_name(found)
    assert parts["vision_encoders.0"].detail == "precomputed:tower-a, width 24, grid 4 x 4"
    assert (parts["connector"].training, parts["language_model"].training) == ("trained", "frozen")


def test_a_checkpoint_of_ours_with_encoders(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "ours")
    found = inspect(tmp_path / "ours")
    parts = by_name(found)
    assert parts["vision_encoders.0"].tensors == len(model.vision_encoders[0].state_dict())
    assert parts["vision_encoders.0"].training is None
    assert count(found)[0] == len(model.state_dict())


def test_a_stage_1_projector_and_the_connector_that_is_made_of_it(released, tmp_path):
    folder = tmp_path / "projector"
    folder.mkdir()
    state = {n: x for n, x in read_state(released).items() if "vision_" in n or "mm_projector" in n or "newline" in n}
    torch.save(state, folder / "mm_projector.bin")
    for path in (folder, folder / "mm_projector.bin"):
        found = inspect(path)
        assert found.kind == "stage-1 projector"
        assert count(found)[0] == len(state)
    shutil.copy(released / "config.json", folder)
    assert inspect(folder).facts == {"model_type": "cambrian_llama"}
    convert(folder, tmp_path / "connector")
    found = inspect(tmp_path / "connector")
    assert found.kind == "connector"
    assert count(found)[0] == len(state)


def test_parts_that_a_recipe_may_name(tmp_path):
    config = LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "language")
    assert inspect(tmp_path / "language").kind == "language model"
    vision = SiglipVisionConfig(hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    SiglipVisionModel(vision).save_pretrained(tmp_path / "vision")
    assert inspect(tmp_path / "vision").kind == "transformers model"
    (tmp_path / "timm").mkdir()
    state = timm.create_model("test_vit").state_dict()
    save_file(state, tmp_path / "timm" / "model.safetensors")
    (tmp_path / "timm" / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    found = inspect(tmp_path / "timm")
    assert (found.kind, found.facts) == ("timm encoder", {"architecture": "test_vit"})
    assert [part.tensors for part in found.parts] == [len(state)]


def test_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    save_file({"a.lora_A.weight": torch.zeros(8, 3)}, tmp_path / "adapter_model.safetensors")
    found = inspect(tmp_path)
    assert (found.kind, found.facts) == ("adapter of a model (peft)", {"peft_type": "LORA", "r": 8})
    assert (found.parts[0].parameters, found.parts[0].training) == (24, "trained")


def test_single_files(tmp_path):
    state = {
        "connector.newline": torch.zeros(3, dtype=torch.bfloat16),
        "language_model.layers.0.sva.x": torch.zeros(2, 5),
    }
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = inspect(tmp_path / "x.safetensors")
    assert (found.kind, found.facts) == ("safetensors file", {"format": "pt"})
    assert {part.name: (part.parameters, part.dtypes) for part in found.parts} == {
        "connector": (3, ["BF16"]),
        "in_llm": (10, ["F32"]),
    }
    torch.save({"layer.weight": torch.zeros(2, 7)}, tmp_path / "x.bin")
    found = inspect(tmp_path / "x.bin")
    assert (found.kind, found.parts[0].parameters) == ("file of torch.save, tensors alone", 14)


def test_training_folders(tmp_path):
    """As `cambrian_model.training` writes them: run.json says what each stage trained."""
    run = tmp_path / "run"
    tiny_model().save_pretrained(run / "stages" / "align")
    trained = {"connector": {"lr": 0.001}, "in_llm": {"lr": 0.001}, "language_model": {"lr": None}}
    facts = {
        "recipe": "tiny",
        "seed": 3,
        "stages": ["align"],
        "parts": {"align": {**trained, "vision_encoders": {"lr": None}}},
    }
    (run / "run.json").write_text(json.dumps(facts))
    (run / "recipe.yaml").write_text("name: tiny\n")
    found = inspect(run)
    assert (found.kind, found.facts["finished"], found.facts["stages"]) == ("training run", False, ["align"])
    training = {part.name: part.training for part in found.parts}
    assert (training["connector"], training["vision_encoders.1"], training["language_model"]) == (
        "trained",
        "frozen",
        "frozen",
    )
    assert {part.name: part.training for part in inspect(run / "stages" / "align").parts} == training
    place = run / "checkpoints" / "align-000002"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"stage": "align", "step": 2}))
    save_file({"connector.newline": torch.zeros(4)}, place / "model.safetensors")
    save_file({"exp_avg/connector.newline": torch.zeros(4)}, place / "optimizer.safetensors")
    found = inspect(place)
    assert found.facts == {"stage": "align", "step": 2}
    assert [(part.name, part.training) for part in found.parts] == [("connector", "trained"), ("optimizer", None)]


def test_an_unfinished_conversion(released, tmp_path):
    class Stopped(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done == total:
            raise Stopped

    write_state(released, read_state(released), 3)
    with pytest.raises(Stopped):
        convert(released, tmp_path / "ours", PRECOMPUTED, stop)
    found = inspect(tmp_path / ".unfinished-ours")
    assert "repeat its command" in found.kind
    assert found.facts["finished files"][0] == "model-00001-of-00003.safetensors"


def test_only_headers_are_read(tmp_path):
    """A file of 30 GB whose bytes were never written takes no longer than any other."""
    folder = write_native(tmp_path / "ours")
    header = {"x": {"dtype": "F32", "shape": [7_500_000_000], "data_offsets": [0, 30_000_000_000]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file = tmp_path / "large.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 30_000_000_000)  # a hole: it takes no room on the disk
    assert inspect(file).parts[0].num_bytes == 30_000_000_000
    assert inspect(folder).kind == "native checkpoint"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes without a safetensors header"),
        (b"\x80\x04abcdefgh", "this is a pickle; expected safetensors"),
        (b"PK\x03\x04abcdefgh", "this is a file of torch.save"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "truncated: 24 bytes by its header, but 10 are there"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", "cannot be read as safetensors"),
    ],
)
def test_files_that_are_no_safetensors(content, message, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        inspect(tmp_path / "x.safetensors")
    assert message in str(caught.value)


def test_a_key_that_stands_twice_in_a_header_is_refused(tmp_path):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(CheckpointError, match='the key "a" stands in it twice'):
        inspect(tmp_path / "x.safetensors")


def test_missing_shards_are_named(released):
    write_state(released, read_state(released), 3)
    (released / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 are missing: model-00002-of-00003\.safetensors"):
        inspect(released)


def test_folders_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="holds nothing; expected a checkpoint"):
        inspect(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        inspect(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "strange"}')
    with pytest.raises(CheckpointError, match='model_type is "strange", which nothing here knows'):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as a configuration"):
        inspect(tmp_path)
