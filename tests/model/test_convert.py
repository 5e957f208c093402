"""Released checkpoints become ours and back: the same bytes, the same logits, and damage is named before it spreads."""

import fcntl
import importlib.util
import json
import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor
from cambrian_model.assemble import assemble
from cambrian_model.checkpoints import released, transfer
from cambrian_model.checkpoints.convert import convert
from cambrian_model.checkpoints.plan import Options
from cambrian_model.checkpoints.to_released import _image_position
from cambrian_model.errors import CambrianModelError, CheckpointError, PromptError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.training.recipe import load_recipe
from tests.support.reference import load_fixture
from tests.support.released_checkpoint import (
    CONNECTOR,
    WIDTHS,
    change_config,
    precomputed_config,
    read_config,
    read_state,
    write_config,
    write_index,
    write_native,
    write_recorded,
    write_released,
    write_state,
)
from tests.support.tokenizers import load_tokenizer, tiny_bytes

RECORDED = [
    "inf_connector_only",
    "inf_in_llm",
    "inf_in_llm_dense",
    "inf_mlp2x_one_tower",
    "inf_mlp2x_two_towers",
    "inf_phi3_in_llm",
    "inf_two_query_groups",
    "inf_two_query_groups_down",
]
PRECOMPUTED = Options(precomputed_encoders=WIDTHS)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return write_released(tmp_path_factory.mktemp("template") / "released")


@pytest.fixture
def source(template, tmp_path):
    """A released checkpoint of its own for every test, with a tokenizer."""
    return Path(shutil.copytree(template, tmp_path / "source"))


def refusal(source: Path, destination: Path, options: Options = PRECOMPUTED) -> str:
    """The error of a conversion that must fail, and must leave nothing behind."""
    with pytest.raises(CambrianModelError) as caught:
        convert(source, destination, options)
    assert not destination.exists()
    assert not list(destination.parent.glob(".unfinished-*"))
    return str(caught.value)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same content."""
    names = [sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()) for root in (one, other)]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])


# --- there and back


@pytest.mark.parametrize("name", RECORDED)
@torch.no_grad()
def test_a_recorded_checkpoint_of_the_original_gives_its_logits_and_goes_back_to_the_letter(name, tmp_path):
    fixture = load_fixture(f"full_model/{name}")
    source = write_recorded(tmp_path / "source", fixture)
    widths = tuple(fixture.meta["tower_hidden_sizes"])
    made = convert(source, tmp_path / "ours", Options(precomputed_encoders=widths))
    assert made.num_tensors == len(fixture.params)
    model = CambrianForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    sizes = fixture.inputs["image_sizes"].flip(-1)  # recorded as (width, height)
    for row, tokens in enumerate(fixture.meta["samples_without_padding"]):
        ids = [
            token
            for old in tokens
            for token in [old] * (num_image_tokens(sizes[row].tolist(), model.config.grid_side) if old == -200 else 1)
        ]
        features = [fixture.inputs[f"tower_features.{i}"][row : row + 1] for i in range(len(widths))]
        logits = model(torch.tensor([ids]), image_sizes=sizes[row : row + 1], vision_features=features).logits[0]
        expected = fixture.outputs["logits"][row][fixture.outputs["inter.new_attention_mask"][row].bool()]
        torch.testing.assert_close(logits, expected, atol=5e-5, rtol=0)  # the tolerance recorded with the numbers
    convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert same_bytes(tmp_path / "back", source)


@pytest.mark.parametrize("language", ["llama", "phi3"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_released_checkpoint_with_its_tokenizer_goes_back_to_the_letter(language, num_shards, tmp_path):
    source = write_released(tmp_path / "source", language)
    write_state(source, read_state(source), num_shards)
    (source / "README.md").write_text("by somebody")
    change_config(source, mm_projector_lr=1e-4, something_of_the_future={"deep": [1, 2]})
    ours = tmp_path / "ours"
    convert(source, ours, PRECOMPUTED)
    convert(ours, tmp_path / "back", Options(to="released"))
    assert same_bytes(tmp_path / "back", source)
    assert len(list(ours.glob("model*.safetensors"))) == num_shards


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_a_checkpoint_of_ours_survives_the_way_to_the_released_form_and_back(tied, tmp_path):
    ours = write_native(tmp_path / "ours")
    if tied:
        config = precomputed_config()
        config.get_text_config().tie_word_embeddings = config.tie_word_embeddings = True
        shutil.rmtree(ours)
        write_native(ours, tie_word_embeddings=True, text_config=config.get_text_config())
    convert(ours, tmp_path / "released", Options(to="released"))
    convert(tmp_path / "released", tmp_path / "again", PRECOMPUTED)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
    models = [CambrianForConditionalGeneration.from_pretrained(tmp_path / name).eval() for name in ("ours", "again")]
    processors = [CambrianProcessor.from_pretrained(tmp_path / name) for name in ("ours", "again")]
    assert models[0].config.image_token_id == models[1].config.image_token_id == processors[1].image_token_id
    assert models[1].generation_config.eos_token_id == processors[0].stop_token_ids
    generator = torch.Generator().manual_seed(1)
    features = [
        torch.randn(1, side * side, width, generator=generator) for side, width in zip((4, 8), WIDTHS, strict=True)
    ]
    question = [{"type": "image", "image": Image.new("RGB", (30, 20))}, {"type": "text", "text": "What is it?"}]
    inputs = [
        processor.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=True, return_dict=True, return_tensors="pt"
        )
        for processor in processors
    ]
    assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
    logits = [model(**x, vision_features=features).logits for model, x in zip(models, inputs, strict=True)]
    assert torch.equal(*logits)
    assert logits[0].std() > 0.05


def test_every_tensor_keeps_its_own_type(source, tmp_path):
    types = [torch.float32, torch.float16, torch.bfloat16]
    state = {name: x.to(types[i % 3]) for i, (name, x) in enumerate(sorted(read_state(source).items()))}
    write_state(source, state, 2)
    convert(source, tmp_path / "ours", PRECOMPUTED)
    found = read_state(tmp_path / "ours")
    assert {x.dtype for x in found.values()} == set(types)
    names = released.KeyNames.of(precomputed_config())
    assert all(
        torch.equal(found[names.to_ours(name)], x) and found[names.to_ours(name)].dtype == x.dtype
        for name, x in state.items()
    )


def test_an_early_model_type_is_known(source, tmp_path):
    change_config(source, model_type="llava_llama")
    convert(source, tmp_path / "ours", PRECOMPUTED)
    assert read_config(tmp_path / "ours")["text_config"]["model_type"] == "llama"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_foreign_bin_files_are_read_as_tensors_alone(zipped, sharded, source, tmp_path):
    state = read_state(source)
    expected = {name: x.clone() for name, x in state.items()}
    state["model.norm.weight"] = torch.cat([state["model.norm.weight"]] * 2)[:48]  # a part of a larger storage
    names = sorted(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    if not sharded:
        parts = {"pytorch_model.bin": names}
    (source / "model.safetensors").unlink()
    for file, part in parts.items():
        torch.save({name: state[name] for name in part}, source / file, _use_new_zipfile_serialization=zipped)
    if sharded:
        places = {name: file for file, part in parts.items() for name in part}
        write_index(source, places)
        (source / "model.safetensors.index.json").rename(source / "pytorch_model.bin.index.json")
    convert(source, tmp_path / "ours", PRECOMPUTED)
    convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    found = read_state(tmp_path / "back")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_a_tied_head_that_shares_its_memory_in_a_bin_file_is_written_out(tmp_path):
    config = precomputed_config()
    config.get_text_config().tie_word_embeddings = config.tie_word_embeddings = True
    source = write_released(tmp_path / "source", tie_word_embeddings=True, text_config=config.get_text_config())
    state = read_state(source)
    assert "lm_head.weight" not in state
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    convert(source, tmp_path / "ours", PRECOMPUTED)
    found = read_state(tmp_path / "ours")
    assert torch.equal(found["language_model.lm_head.weight"], found["language_model.model.embed_tokens.weight"])
    CambrianForConditionalGeneration.from_pretrained(tmp_path / "ours")


def test_a_changed_model_is_not_written_with_the_configuration_it_once_had(source, tmp_path):
    convert(source, tmp_path / "ours", PRECOMPUTED)
    change_config(tmp_path / "ours", connector={**CONNECTOR, "in_llm": {"start": 0, "stride": 1, "count": 2}})
    state = {n.replace("layers.2.sva", "layers.1.sva"): x for n, x in read_state(tmp_path / "ours").items()}
    write_state(tmp_path / "ours", state)
    message = refusal(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert "says connector" in message
    assert "delete that folder, and a released configuration is written anew" in message
    shutil.rmtree(tmp_path / "ours" / "released")
    convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert read_config(tmp_path / "back")["stride_of_vision_sampler_layers"] == 1


# --- tokenizer and processor


def test_a_source_without_a_tokenizer_converts_the_model_alone_and_says_so(tmp_path):
    source = write_released(tmp_path / "source", with_processor=False)
    made = convert(source, tmp_path / "ours", PRECOMPUTED)
    assert any("holds no tokenizer: the model was converted alone" in note for note in made.notes)
    assert not list((tmp_path / "ours").glob("*token*"))
    model = CambrianForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert model.config.image_token_id == -200


def test_the_embeddings_keep_their_size(source, tmp_path):
    convert(source, tmp_path / "ours", PRECOMPUTED)
    assert read_state(tmp_path / "ours")["language_model.model.embed_tokens.weight"].shape == (330, 48)
    assert "<image>" in CambrianProcessor.from_pretrained(tmp_path / "ours").tokenizer.get_vocab()


def test_the_original_s_tokenizer_gets_no_image_token_of_ours(source):
    for file in source.glob("token*.json"):
        assert "<image>" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "tokens", "template"),
    [
        ({"model_type": "cambrian_phi3"}, [], "phi3"),
        ({"model_type": "cambrian_llama", "image_position": 91}, [], "llama_3"),
        ({"model_type": "cambrian_llama", "image_position": 87}, [], "chatml_direct"),
        ({"model_type": "cambrian_llama", "image_position": 35}, [], "vicuna_v1"),
        ({"model_type": "llava_llama"}, ["<|start_header_id|>"], "llama_3"),
        ({"model_type": "cambrian_llama"}, ["<|im_start|>"], "chatml_direct"),
    ],
)
def test_the_template_is_told_by_the_family(config, tokens, template):
    assert released.chat_template(config, tokens) == template


def test_another_template_may_be_chosen(source, tmp_path):
    made = convert(source, tmp_path / "ours", Options(precomputed_encoders=WIDTHS, chat_template="plain"))
    assert "chat template: plain" in made.notes[0]
    with pytest.raises(PromptError, match='did you mean "phi3"'):
        convert(source, tmp_path / "other", Options(precomputed_encoders=WIDTHS, chat_template="phi"))


@pytest.mark.parametrize(
    ("name", "template", "position"),
    [("llama2_vicuna", "vicuna_v1", 35), pytest.param("llama3", "llama_3", 91, marks=pytest.mark.slow)],
)
def test_the_place_of_the_picture_is_that_of_the_published_models(name, template, position):
    processor = CambrianProcessor.from_config(precomputed_config(), load_tokenizer(name), template)
    assert _image_position(processor) == position


@pytest.mark.parametrize("folder", ["sp_chatml_nobos_legacy_true", "sp_v1_legacy_false", "bpe_llama3_no_auto_bos"])
def test_a_tokenizer_spells_text_as_it_did_in_the_source(folder, shared, tmp_path):
    source = write_released(tmp_path / "source", with_processor=False)
    state = read_state(source)
    tokenizer = shared / "reference" / "conversation" / "tokenizers" / folder
    for file in tokenizer.iterdir():
        shutil.copy(file, source)
    size = 760
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.zeros(size, 48)
    write_state(source, state)
    change_config(source, vocab_size=size)
    convert(source, tmp_path / "ours", PRECOMPUTED)
    ours = CambrianProcessor.from_pretrained(tmp_path / "ours").tokenizer
    theirs = type(ours).from_pretrained(tokenizer)
    text = "<|im_start|>user\nHello there<|im_end|>\n  two spaces"
    assert ours(text).input_ids == theirs(text).input_ids


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="here it can be read")
def test_a_tokenizer_that_cannot_be_read_here_is_an_error_with_the_way_out(shared, tmp_path):
    source = write_released(tmp_path / "source", with_processor=False)
    tokenizer = shared / "reference" / "conversation" / "tokenizers" / "sp_v1_legacy_false"
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, source)
    assert "save it once as tokenizer.json" in refusal(source, tmp_path / "ours")


# --- vision encoders

TOWER = {"name": "timm:test_vit", "image_side": 64, "model_args": {"img_size": 64}, "pad_color": (122, 116, 104)}


@pytest.fixture
def with_tower(tmp_path, monkeypatch):
    """A released checkpoint whose one encoder is a real one, and a folder with its weights."""
    monkeypatch.setitem(released.TOWERS, "tiny-tower", TOWER)
    encoder = {"library": "precomputed", "name": "tiny-tower", "image_side": 4, "width": 64, "grid_side": 4}
    source = write_released(tmp_path / "source", vision_encoders=[encoder])
    torch.manual_seed(1)
    weights = tmp_path / "weights"
    weights.mkdir()
    save_file(timm.create_model("test_vit", img_size=64).state_dict(), weights / "model.safetensors")
    card = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (weights / "config.json").write_text(json.dumps(card))
    return source, weights


@pytest.mark.parametrize("name", ["tiny-tower", "timm:test_vit"])
@torch.no_grad()
def test_encoders_come_from_folders(name, with_tower, tmp_path):
    source, weights = with_tower
    convert(source, tmp_path / "ours", Options(encoder_folders={name: weights}))
    model = CambrianForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    (encoder,) = model.config.encoders
    assert (encoder.library, encoder.name, encoder.pad_color) == ("timm", "test_vit", (122, 116, 104))
    whole = timm.create_model("test_vit", img_size=64).eval()
    whole.load_state_dict(load_file(weights / "model.safetensors"))
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        model.encode_images([pixels])[0], whole.forward_features(pixels)[:, 1:], atol=1e-6, rtol=0
    )
    processor = CambrianProcessor.from_pretrained(tmp_path / "ours")
    assert processor.image_processor.specs[0].fill == (122, 116, 104)
    made = convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert same_bytes(tmp_path / "back", source)
    assert "weights of vision encoders are left out" in made.notes[0]


def test_a_model_with_real_encoders_that_was_never_released_names_them_as_the_original_does(with_tower, tmp_path):
    source, weights = with_tower
    convert(source, tmp_path / "ours", Options(encoder_folders={"tiny-tower": weights}))
    shutil.rmtree(tmp_path / "ours" / "released")
    convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert read_config(tmp_path / "back")["mm_vision_tower_aux_list"] == ["tiny-tower"]
    released.TOWERS["tiny-tower"] = {**TOWER, "feature_layer": 3}
    message = refusal(tmp_path / "ours", tmp_path / "other", Options(to="released"))
    assert "the original has no vision encoder timm:test_vit of 64 pixels and feature layer -1" in message


def test_weights_of_another_encoder_are_refused_before_anything_is_kept(with_tower, tmp_path):
    source, weights = with_tower
    state = load_file(weights / "model.safetensors")
    save_file({name: x for name, x in state.items() if "blocks.0" not in name}, weights / "model.safetensors")
    assert "missing" in refusal(source, tmp_path / "ours", Options(encoder_folders={"tiny-tower": weights}))


def test_encoders_that_cannot_be_had_are_an_error_with_both_ways_out(source, tmp_path):
    tower = "openai/clip-vit-large-patch14-336"
    state = read_state(source)
    state["model.mm_projector_aux_0.0.weight"] = torch.zeros(32, 1024)
    del state["model.mm_projector_aux_0.0.bias"]
    write_state(source, state)
    change_config(source, mm_vision_tower_aux_list=[tower, "tower-b"])
    assert 'mm_vision_tower_aux_list names "tower-b"' in refusal(source, tmp_path / "ours", Options())
    encoder = {"library": "precomputed", "name": tower, "image_side": 4, "width": 1024, "grid_side": 4}
    alone = write_released(tmp_path / "alone", vision_encoders=[encoder])
    message = refusal(alone, tmp_path / "ours", Options())
    assert f"the weights of {tower} cannot be had" in message
    assert f"--encoder {tower}=FOLDER" in message
    assert "--precomputed-encoders" in message


def test_a_folder_for_an_encoder_that_the_model_does_not_have_is_refused(with_tower, tmp_path):
    source, weights = with_tower
    message = refusal(source, tmp_path / "ours", Options(encoder_folders={"tiny-towr": weights}))
    assert 'did you mean "tiny-tower"?' in message


def test_encoders_that_were_trained_along_are_refused_by_name(source, tmp_path):
    state = read_state(source)
    state["model.vision_tower_aux_list.1.vision_tower.stem.0.weight"] = torch.zeros(3)
    write_state(source, state)
    message = refusal(source, tmp_path / "ours")
    assert "model.vision_tower_aux_list.1.vision_tower.stem.0.weight" in message
    assert "trained along" in message


# --- stage 1


def write_projector(folder: Path, source: Path, prefix: str = "") -> Path:
    folder.mkdir()
    state = {name: x for name, x in read_state(source).items() if released.is_connector(name)}
    bare = {"model.vision_query", "model.image_newline"}
    torch.save({(n if n in bare else prefix + n): x for n, x in state.items()}, folder / "mm_projector.bin")
    shutil.copy(source / "config.json", folder)
    return folder


@pytest.mark.parametrize("prefix", ["", "base_model.", "module._orig_mod."])
def test_a_stage_1_projector_becomes_a_connector_that_a_new_model_starts_from(prefix, source, tmp_path):
    projector = write_projector(tmp_path / "projector", source, prefix)
    made = convert(projector, tmp_path / "connector")
    assert made.kind == "connector"
    expected = {n: x for n, x in read_state(source).items() if released.is_connector(n)}
    model, _ = assemble(model_spec(tmp_path, tmp_path / "connector"))
    names = released.KeyNames.of(model.config)
    state = model.state_dict()
    assert all(torch.equal(state[names.to_ours(name)], x) for name, x in expected.items())
    convert(tmp_path / "connector", tmp_path / "back", Options(to="released"))
    found = load_file(tmp_path / "back" / "mm_projector.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    convert(tmp_path / "back", tmp_path / "again")
    assert same_bytes(tmp_path / "again", tmp_path / "connector")


def model_spec(folder: Path, weights: Path, **changes: Any) -> dict[str, Any]:
    """A recipe's model with encoders of the widths that the connector was trained for."""
    text = precomputed_config().get_text_config().to_dict()
    language = {key: text[key] for key in ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers")}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 330, "head_dim": 12}
    tiny_bytes().save_pretrained(folder / "tokenizer")
    encoders = [
        {"name": f"precomputed:{name}", "width": width, "grid_side": side, "image_side": side}
        for name, width, side in zip("ab", WIDTHS, (4, 8), strict=True)
    ]
    return {
        "language_model": {"config": {**language, **heads}},
        "tokenizer": str(folder / "tokenizer"),
        "vision_encoders": encoders,
        "connector": CONNECTOR,
        "connector_weights": str(weights),
        "grid_side": 4,
        **changes,
    }


def test_a_connector_of_another_model_is_refused_with_what_does_not_fit(source, tmp_path):
    convert(write_projector(tmp_path / "projector", source), tmp_path / "connector")
    spec = model_spec(tmp_path, tmp_path / "connector", connector={**CONNECTOR, "depth": 1})
    with pytest.raises(CheckpointError, match=r"connector\.safetensors: .*unexpected \(connector\.groups\.0\.1\."):
        assemble(spec)
    with pytest.raises(CheckpointError, match=r"no connector\.safetensors there; `cambrian convert` makes one"):
        assemble({**spec, "connector_weights": str(tmp_path)})
    with pytest.raises(CheckpointError, match="holds a connector alone"):
        CambrianForConditionalGeneration.from_pretrained(tmp_path / "connector")


def test_a_projector_of_several_encoders_needs_their_widths_to_be_told(tmp_path):
    encoders = [
        {"library": "precomputed", "name": n, "image_side": 4, "width": w, "grid_side": 4}
        for n, w in zip("ab", WIDTHS, strict=True)
    ]
    source = write_released(tmp_path / "source", connector={"type": "mlp2x_gelu"}, vision_encoders=encoders)
    projector = write_projector(tmp_path / "projector", source)
    message = refusal(projector, tmp_path / "connector", Options())
    assert "0 widths of precomputed encoders (none) for 2 encoders (a, b)" in message
    assert "1 reshaped (model.mm_projector.0.weight is [48, 64], expected [48, 65])" in refusal(
        projector, tmp_path / "connector", Options(precomputed_encoders=(24, 41))
    )
    convert(projector, tmp_path / "connector", PRECOMPUTED)
    assert len(load_file(tmp_path / "connector" / "connector.safetensors")) == 5


def test_a_recipe_names_a_connector_beside_itself(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny\nname: mine\nmodel:\n  connector_weights: connector\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.model.spec()["connector_weights"] == str(tmp_path / "connector")
    assert "connector_weights" not in load_recipe("tiny").model.spec()


def test_a_stage_1_projector_without_a_configuration_is_refused(source, tmp_path):
    projector = write_projector(tmp_path / "projector", source)
    (projector / "config.json").unlink()
    assert "the configuration must lie beside the weights" in refusal(projector, tmp_path / "connector", Options())
    assert "must lie beside" in refusal(projector / "mm_projector.bin", tmp_path / "connector", Options())


def test_a_stage_1_file_with_weights_of_other_parts_is_refused(source, tmp_path):
    projector = write_projector(tmp_path / "projector", source)
    torch.save(
        {**torch.load(projector / "mm_projector.bin"), "lm_head.weight": torch.zeros(2)}, projector / "mm_projector.bin"
    )
    assert 'such as "lm_head.weight"' in refusal(projector, tmp_path / "connector", Options())


# --- what was interrupted, and places that are taken


class Interrupted(BaseException):
    """As if somebody had pressed Ctrl-C."""


def interrupt(source: Path, destination: Path, after: float, options: Options = PRECOMPUTED) -> Path:
    """Stops a conversion once this part of its bytes is done, and returns what it left."""

    def stop(done: int, total: int) -> None:
        if done >= after * total:
            raise Interrupted

    with pytest.raises(Interrupted):
        convert(source, destination, options, stop)
    assert not destination.exists()
    return destination.with_name(f".unfinished-{destination.name}")


@pytest.fixture
def sharded(source):
    write_state(source, read_state(source), 4)
    return source


def test_an_interrupted_conversion_is_continued_with_its_finished_shards(sharded, tmp_path):
    interrupt(sharded, tmp_path / "ours", 0.7)
    made = convert(sharded, tmp_path / "ours", PRECOMPUTED)
    assert made.kept
    assert made.kept == sorted(made.hashes)[: len(made.kept)]
    assert len(made.hashes) == 4
    convert(sharded, tmp_path / "whole", PRECOMPUTED)
    assert same_bytes(tmp_path / "ours", tmp_path / "whole")
    assert not list(tmp_path.glob(".unfinished*"))


@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "gone"])
def test_a_finished_shard_that_was_damaged_since_is_written_again(damage, sharded, tmp_path):
    left = interrupt(sharded, tmp_path / "ours", 0.9)
    file = left / "model-00001-of-00004.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut off" else content)
    made = convert(sharded, tmp_path / "ours", PRECOMPUTED)
    assert "model-00001-of-00004.safetensors" not in made.kept
    convert(sharded, tmp_path / "whole", PRECOMPUTED)
    assert same_bytes(tmp_path / "ours", tmp_path / "whole")


def test_another_conversion_into_the_place_of_an_interrupted_one_is_refused(sharded, tmp_path):
    interrupt(sharded, tmp_path / "ours", 0.9)
    other = Options(precomputed_encoders=WIDTHS, chat_template="plain")
    with pytest.raises(CheckpointError, match=r"an interrupted run left .*, with chat_template None, not plain"):
        convert(sharded, tmp_path / "ours", other)
    os.utime(sharded / "config.json", (1, 1))
    with pytest.raises(CheckpointError, match=r"an interrupted run left .*, with state_of_source"):
        convert(sharded, tmp_path / "ours", PRECOMPUTED)


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_continues(sharded, tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from cambrian_model.checkpoints.convert import convert
from cambrian_model.checkpoints.plan import Options

def die(done, total):
    if done > 0.7 * total:
        os.kill(os.getpid(), signal.SIGKILL)

convert(Path({str(sharded)!r}), Path({str(tmp_path / "ours")!r}), Options(precomputed_encoders={WIDTHS}), die)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "ours").exists()
    made = convert(sharded, tmp_path / "ours", PRECOMPUTED)
    assert made.kept
    convert(sharded, tmp_path / "whole", PRECOMPUTED)
    assert same_bytes(tmp_path / "ours", tmp_path / "whole")


def test_two_processes_never_write_one_place(sharded, tmp_path):
    left = interrupt(sharded, tmp_path / "ours", 0.9)
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(CheckpointError, match="another process is writing it"):
        convert(sharded, tmp_path / "ours", PRECOMPUTED)
    os.close(descriptor)
    convert(sharded, tmp_path / "ours", PRECOMPUTED)


def test_a_place_that_is_taken_is_refused(source, tmp_path):
    with pytest.raises(CheckpointError, match="is the source itself"):
        convert(source, source / ".." / source.name, PRECOMPUTED)
    taken = tmp_path / "taken"
    taken.mkdir()
    convert(source, taken, PRECOMPUTED)
    with pytest.raises(CheckpointError, match=r"is not empty, it holds chat_template\.jinja, config\.json"):
        convert(source, taken, PRECOMPUTED)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file; choose a new folder"):
        convert(source, tmp_path / "file", PRECOMPUTED)


def test_a_disk_without_room_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "the disk has 0.0 GB left, and 0.1 GB are to be written" in refusal(source, tmp_path / "ours")


def test_a_copy_that_differs_from_its_source_is_an_error(source, tmp_path, monkeypatch):
    whole = transfer._write

    def garble(path, *arguments):
        data_hash = whole(path, *arguments)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return data_hash

    monkeypatch.setattr(transfer, "_write", garble)
    assert "what was written differs from" in refusal(source, tmp_path / "ours")


def test_ranges_are_read_whole_wherever_windows_and_blocks_end(tmp_path, monkeypatch):
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(transfer, "WINDOW", 2 * mmap.ALLOCATIONGRANULARITY)
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    ranges = [transfer.Range(5, 0), transfer.Range(3, 8192), transfer.Range(4096, 20_001), transfer.Range(99_999, 1)]
    read = b"".join(bytes(block) for block in transfer._blocks(tmp_path / "file", ranges))
    assert read == b"".join(content[start : start + size] for start, size in ranges)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """Far below the promise of one shard and 500 MB: two windows of 34 MB are mapped at most, the rest is for noise."""
    vocabulary = 600_000
    source = write_released(tmp_path / "source", with_processor=False)
    state = read_state(source)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.zeros(vocabulary, 48)  # 115 MB
    write_state(source, state)
    change_config(source, vocab_size=vocabulary)
    del state
    before = peak_memory(reset=True)
    convert(source, tmp_path / "ours", PRECOMPUTED)
    assert peak_memory() - before < 100e6
    assert (tmp_path / "ours" / "model.safetensors").stat().st_size > 230e6


def peak_memory(reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# --- bad input


def test_a_truncated_file_is_named_with_both_sizes(source, tmp_path):
    file = source / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 100)
    message = refusal(source, tmp_path / "ours")
    assert f"{file}: truncated: {size} bytes by its header, but {size - 100} are there" in message
    os.truncate(file, 50)
    assert "truncated" in refusal(source, tmp_path / "ours")
    os.truncate(file, 4)
    assert "4 bytes without a safetensors header" in refusal(source, tmp_path / "ours")


def test_a_pickle_under_the_name_of_safetensors_is_named(source, tmp_path):
    file = source / "model.safetensors"
    file.write_bytes(pickle.dumps({"model.norm.weight": [1.0]}))
    assert "this is a pickle; expected safetensors" in refusal(source, tmp_path / "ours")
    torch.save({"model.norm.weight": torch.zeros(2)}, file)
    assert "this is a file of torch.save (a zip of pickles)" in refusal(source, tmp_path / "ours")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    assert "a pointer of Git LFS" in refusal(source, tmp_path / "ours")


class Bomb:
    """Runs code as it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_file_with_code_in_it_is_refused_and_never_runs(zipped, source, tmp_path):
    (source / "model.safetensors").unlink()
    content = {"model.norm.weight": torch.zeros(2), "x": Bomb(tmp_path / "ran")}
    torch.save(content, source / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    message = refusal(source, tmp_path / "ours")
    assert "refused: it is damaged, or holds other things than tensors, which could run code" in message
    assert not (tmp_path / "ran").exists()


def test_a_bin_file_of_something_else_is_refused(source, tmp_path):
    (source / "model.safetensors").unlink()
    torch.save({"epoch": 3, "model": {"a": torch.zeros(1)}}, source / "pytorch_model.bin")
    assert "holds epoch, model; expected a dictionary of tensors" in refusal(source, tmp_path / "ours")
    (source / "pytorch_model.bin").write_bytes(b"not a checkpoint at all")
    assert "pytorch_model.bin: " in refusal(source, tmp_path / "ours")


def test_an_unknown_projector_is_named_with_the_nearest(source, tmp_path):
    change_config(source, mm_projector_type="svaa")
    assert 'mm_projector_type is "svaa"; did you mean "sva"?' in refusal(source, tmp_path / "ours")


def test_encoders_and_weights_that_disagree_in_number_are_both_named(source, tmp_path):
    change_config(
        source,
        mm_vision_tower_aux_list=["a", "b", "c"],
        mm_vision_tower_aux_token_len_list=[16, 16, 64],
    )
    message = refusal(source, tmp_path / "ours", Options(precomputed_encoders=(24, 24, 40)))
    assert "the configuration lists 3 vision encoders" in message
    assert "the weights hold 2 projections" in message
    change_config(source, mm_vision_tower_aux_token_len_list=[16, 64])
    message = refusal(source, tmp_path / "ours")
    assert "mm_vision_tower_aux_list has 3 entries, but mm_vision_tower_aux_token_len_list has 2" in message


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((24,), "1 widths of precomputed encoders (24) for 2 encoders (tower-a, tower-b)"),
        ((24, 40, 8), "3 widths of precomputed encoders (24, 40, 8) for 2 encoders"),
        ((24, 41), "the encoder tower-b gives 41 channels, but the weights expect 40 of it"),
    ],
)
def test_widths_that_are_not_those_of_the_weights_are_refused(widths, expected, source, tmp_path):
    assert expected in refusal(source, tmp_path / "ours", Options(precomputed_encoders=widths))


def test_a_missing_shard_is_named(sharded, tmp_path):
    (sharded / "model-00003-of-00004.safetensors").unlink()
    message = refusal(sharded, tmp_path / "ours")
    assert "names 4 shards, of which 1 are missing: model-00003-of-00004.safetensors" in message


def test_an_index_that_names_the_wrong_file_is_refused(sharded, tmp_path):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    places = index["weight_map"]
    right = places["lm_head.weight"]
    wrong = next(name for name in places.values() if name != right)
    write_index(sharded, {**places, "lm_head.weight": wrong})
    message = refusal(sharded, tmp_path / "ours")
    assert f'"lm_head.weight" is in {wrong} by the index, but in {right} by the files' in message
    write_index(sharded, {name: file for name, file in places.items() if name != "lm_head.weight"})
    assert f'"lm_head.weight" is in no shard by the index, but in {right} by the files' in refusal(
        sharded, tmp_path / "ours"
    )
    write_index(sharded, {**places, "lm_head.weight": "../other.safetensors"})
    assert "lies outside this folder" in refusal(sharded, tmp_path / "ours")


def test_a_tensor_in_two_shards_is_refused(sharded, tmp_path):
    first, second = (sharded / f"model-0000{i}-of-00004.safetensors" for i in (1, 2))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second, metadata={"format": "pt"})
    assert f'"{name}" stands in two shards, {first.name} and {second.name}' in refusal(sharded, tmp_path / "ours")


def test_missing_unexpected_and_reshaped_tensors_are_all_named(source, tmp_path):
    state = read_state(source)
    del state["model.image_newline"]
    state["model.norm.weight"] = torch.zeros(47)
    state["model.norm.bias"] = torch.zeros(48)
    write_state(source, state)
    message = refusal(source, tmp_path / "ours")
    assert "1 missing (model.image_newline)" in message
    assert "1 unexpected (model.norm.bias)" in message
    assert "1 reshaped (model.norm.weight is [47], expected [48])" in message


@pytest.mark.parametrize(
    "field", ["vision_hidden_size", "query_num_list", "stride_of_vision_sampler_layers", "vocab_size"]
)
def test_a_configuration_without_a_needed_field_is_refused_by_its_name(field, source, tmp_path):
    change_config(source, **{field: None})
    assert f"config.json: missing {field};" in refusal(source, tmp_path / "ours")


def test_tokens_that_form_no_square_are_refused(source, tmp_path):
    change_config(source, image_token_len=17)
    assert "17 tokens form no square grid" in refusal(source, tmp_path / "ours")


def test_the_wrong_direction_and_other_models_are_refused(source, tmp_path):
    assert 'model_type is "cambrian_llama"' in refusal(source, tmp_path / "ours", Options(to="released"))
    convert(source, tmp_path / "ours", PRECOMPUTED)
    assert "is a checkpoint of ours already" in refusal(tmp_path / "ours", tmp_path / "other")
    write_config(source, {"model_type": "llama"})
    assert 'model_type is "llama"' in refusal(source, tmp_path / "other")
    assert 'unknown format "natvie"; did you mean "native"?' in refusal(
        source, tmp_path / "other", Options(to="natvie")
    )
    assert "no such folder" in refusal(tmp_path / "nowhere", tmp_path / "other")
    change_config(source, model_type="cambrian_llama")
    with pytest.raises(CheckpointError, match="`cambrian convert` makes ours of it"):
        CambrianForConditionalGeneration.from_pretrained(source)


@pytest.mark.parametrize(
    ("connector", "expected"),
    [
        ({**CONNECTOR, "num_heads": 4}, "this model has joint attention and 4 heads"),
        ({**CONNECTOR, "attention": "separate"}, "this model has separate attention and 16 heads"),
    ],
)
def test_a_model_that_the_original_cannot_build_is_not_written_as_if_it_could(connector, expected, tmp_path):
    ours = write_native(tmp_path / "ours", connector=connector)
    assert expected in refusal(ours, tmp_path / "released", Options(to="released"))


def test_a_language_model_that_the_original_does_not_know_is_refused(tmp_path):
    ours = write_native(tmp_path / "ours", "qwen2")
    assert "the original knows no language model of type qwen2" in refusal(ours, tmp_path / "x", Options(to="released"))


@pytest.mark.parametrize(
    "index", ["null", "[]", '"x"', '{"weight_map": null}', '{"weight_map": []}', '{"weight_map": {"a": 5}}']
)
def test_an_index_of_another_form_is_named(source, tmp_path, index):
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(index)
    assert "index.json: cannot be read as an index of shards" in refusal(source, tmp_path / "ours")


@pytest.mark.parametrize("header", ["null", "5", "[]", '{"a": null}', '{"a": {"data_offsets": [0]}}', '{"a": "x"}'])
def test_a_header_of_another_form_is_named(source, tmp_path, header):
    (source / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert "model.safetensors: cannot be read as safetensors" in refusal(source, tmp_path / "ours")


@pytest.mark.parametrize(
    "odd", [{5: torch.zeros(1)}, {"a": torch.eye(2).to_sparse()}, {"a": torch.empty(2, device="meta")}]
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_a_torch_file_of_anything_but_named_dense_tensors_is_refused(source, tmp_path, odd):
    (source / "model.safetensors").unlink()
    torch.save(odd, source / "pytorch_model.bin")
    assert "expected a dictionary of tensors" in refusal(source, tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mm_projector_type": 5}, "mm_projector_type is 5"),
        ({"model_type": []}, 'model_type is "\\[\\]"'),
        ({"image_token_len": 0}, "image_token_len is 0; expected a whole number above 0"),
        ({"mm_vision_tower_aux_token_len_list": [-16, 64]}, "-16 tokens form no square grid"),
        ({"mm_vision_tower_aux_list": "abc"}, "mm_vision_tower_aux_list is 'abc'; expected a list of names"),
        ({"query_num_list": 16}, "query_num_list is 16; expected a list of whole numbers"),
        ({"connector_only": "false"}, "connector_only is 'false'; expected true or false"),
        ({"connector_depth": 1_000_000}, "connector_depth is 1000000, but the weights hold"),
        ({"vocab_size": "97"}, "vocab_size is '97'"),
        ({"rope_scaling": "linear"}, "config"),
        ({"hidden_act": "nope"}, "nope"),
        ({"pad_token_id": 1_000_000}, "no model can be built"),
    ],
)
def test_a_configuration_of_odd_values_is_named(source, tmp_path, change, named):
    file = source / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CambrianModelError, match=named):
        convert(source, tmp_path / "ours", PRECOMPUTED)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("content", ["null", "[1, 2]", "5", '[["model_type", "cambrian"]]'])
def test_a_configuration_that_is_no_object_is_named(source, tmp_path, content):
    (source / "config.json").write_text(content)
    assert "cannot be read as a configuration" in refusal(source, tmp_path / "ours")


@pytest.mark.parametrize(
    "options",
    [
        Options(to="released", precomputed_encoders=(1, 2)),
        Options(to="released", chat_template="llama_3"),
        Options(precomputed_encoders=WIDTHS, encoder_folders={"clip-l-336": Path("nowhere")}),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(source, tmp_path, options):
    with pytest.raises(CheckpointError, match="would change nothing"):
        convert(source, tmp_path / "ours", options)


def test_a_folder_that_is_not_ours_is_not_taken_for_an_unfinished_one(source, tmp_path):
    stranger = tmp_path / ".unfinished-ours"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.txt and no note of a conversion"):
        convert(source, tmp_path / "ours", PRECOMPUTED)
    assert (stranger / "thesis.txt").read_text() == "years of work"
    (stranger / "unfinished.json").write_text("")
    with pytest.raises(CheckpointError, match=r"delete .*\.unfinished-ours to begin anew"):
        convert(source, tmp_path / "ours", PRECOMPUTED)


def test_the_way_back_adds_no_weights_that_were_put_beside(source, tmp_path):
    convert(source, tmp_path / "ours", PRECOMPUTED)
    (tmp_path / "ours" / "released" / "pytorch_model.bin").write_bytes(b"foreign")
    convert(tmp_path / "ours", tmp_path / "back", Options(to="released"))
    assert not (tmp_path / "back" / "pytorch_model.bin").exists()
