"""What people expect of a model of transformers: Auto classes, generation in every form, devices, precision, peft."""

import copy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import remove_hook_from_module
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    pipeline,
    set_seed,
)

import tests.support.compiled
from cambrian_model import CambrianConfig, CambrianForConditionalGeneration, CambrianProcessor
from cambrian_model.errors import ConfigError, PromptError
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_model import IMAGE_TOKEN_ID, VOCABULARY, pack, pad_left, tiny_model, tiny_sample

ROOT = Path(__file__).parents[2]
WIDE, TALL, SQUARE = (20, 50), (70, 20), (33, 33)


def samples() -> list[dict[str, Any]]:
    """Rows with one picture, none, and two."""
    return [tiny_sample(1, [WIDE], 5), tiny_sample(2, [], 7), tiny_sample(3, [TALL, SQUARE], 3)]


def new_model() -> CambrianForConditionalGeneration:
    """A model whose every weight matters, so that it says something else of every picture."""
    model = tiny_model()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.language_model.named_parameters():
        if parameter.ndim > 1 and ".sva." not in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> CambrianForConditionalGeneration:
    """Not to be changed."""
    return new_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def logits_of(model: Any) -> list[Tensor]:
    with torch.no_grad():
        return [model(**sample).logits[0].float() for sample in samples()]


def assert_same_logits(model: Any, other: Any, atol: float = 1e-5) -> None:
    """A product's last bits depend on where in memory its factors lie; logits go up to 10."""
    for ours, theirs in zip(logits_of(model), logits_of(other), strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


def labels_of(ids: Tensor) -> Tensor:
    return ids.masked_fill(ids == IMAGE_TOKEN_ID, -100)


# --- Auto classes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def question(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": Image.effect_noise(size, 80).convert("RGB")} for size in sizes]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": "What is shown?"}]}]


def test_auto_classes_load_the_folder_and_the_processor_feeds_the_model(checkpoint):
    assert isinstance(AutoConfig.from_pretrained(checkpoint), CambrianConfig)
    model, processor = (auto.from_pretrained(checkpoint) for auto in (AutoModelForImageTextToText, AutoProcessor))
    assert isinstance(model, CambrianForConditionalGeneration)
    assert isinstance(processor, CambrianProcessor)
    replies = set()
    for sizes in ([], [(50, 20)], [(20, 70), (33, 33)]):
        inputs = processor.apply_chat_template(
            question(*sizes), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        replies.add(processor.batch_decode(ids, skip_special_tokens=True)[0])
    assert len(replies) == 3


def test_the_pipeline_answers_as_the_model(checkpoint):
    messages = question((50, 20))
    ask = pipeline("image-text-to-text", model=str(checkpoint))
    answer = ask(text=messages, max_new_tokens=8, do_sample=False, return_full_text=False)[0]["generated_text"]
    inputs = ask.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = ask.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answer == ask.processor.decode(ids, skip_special_tokens=True) != ""


# --- generation

GENERATION: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "sampled": {"do_sample": True, "num_return_sequences": 3},
    "sampled beams": {"do_sample": True, "num_beams": 2},
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "no cache": {"do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("kind", GENERATION)
@torch.no_grad()
def test_generation_encodes_every_picture_once_and_shows_it_to_the_blocks_once(kind):
    model, calls = new_model(), Counter[str]()

    def count(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda *_: calls.update([name]))

    for i, encoder in enumerate(model.vision_encoders):
        count(f"encoder {i}", encoder)
    count("block", model.language_model.model.layers[0].sva)
    set_seed(0)
    model.generate(**pad_left(samples()), max_new_tokens=4, min_new_tokens=4, **GENERATION[kind])
    assert calls["encoder 0"] == calls["encoder 1"] == 1
    assert calls["block"] == (4 if kind == "no cache" else 1)  # without a cache, every step sees everything anew


@torch.no_grad()
def test_beams_equal_those_of_every_sample_alone(model):
    options = {"max_new_tokens": 5, "num_beams": 4, "num_return_sequences": 3, "do_sample": False, "min_new_tokens": 5}
    batch = pad_left(samples())
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :].unflatten(0, (3, 3))
    for sample, beams in zip(samples(), together, strict=True):
        alone = model.generate(**sample, **options)[:, sample["input_ids"].shape[1] :]
        assert len({tuple(beam) for beam in beams.tolist()}) == 3
        assert alone.tolist() == beams.tolist()


@torch.no_grad()
def test_sampled_sequences_repeat_with_their_seed_and_see_their_own_pictures(model):
    batch, width = pad_left(samples()), 41
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": True, "num_return_sequences": 2, "top_k": 0}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    runs = []
    for seed in (7, 7, 8):
        set_seed(seed)
        runs.append(model.generate(**batch, **options))
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    assert not torch.equal(runs[0].sequences, runs[2].sequences)

    logits = torch.stack(runs[0].logits, dim=1)  # rows, steps, vocabulary
    for row, sequence in enumerate(runs[0].sequences):
        sample = samples()[row // 2]
        told = torch.cat([sample["input_ids"], sequence[None, width:]], dim=1)
        expected = model(**{**sample, "input_ids": told}).logits[0, -6:-1]
        torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=0)  # as above


@torch.no_grad()
def test_pictures_that_were_encoded_before_are_taken_as_they_are(model):
    sample = samples()[2]
    images = model.get_image_features(sample["pixel_values"], sample["image_sizes"])
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": 2}
    given = model.generate(sample["input_ids"], mm_encoder_outputs={"image": images}, **options)
    assert torch.equal(given, model.generate(**sample, **options))


@torch.no_grad()
def test_embeddings_of_text_alone_are_continued(model):
    ids = samples()[1]["input_ids"]
    options = {"max_new_tokens": 4, "do_sample": False}
    told = model.generate(inputs_embeds=model.get_input_embeddings()(ids), **options)
    assert told.tolist() == model.generate(ids, **options)[:, ids.shape[1] :].tolist()


def test_a_prompt_in_chunks_is_refused(model):
    with pytest.raises(PromptError, match="prefill_chunk_size is 8, but a prompt with pictures is filled whole"):
        model.generate(**samples()[0], max_new_tokens=1, prefill_chunk_size=8)


# --- devices and precision


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_of_one_device_changes_nothing(model, folder, device_map):
    loaded = CambrianForConditionalGeneration.from_pretrained(folder, device_map=device_map)
    assert_same_logits(loaded, model)


def spread(*elsewhere: str, where: str = "disk") -> dict[str, str]:
    """A device map with the named parts elsewhere, and all others on the CPU."""
    parts = ["vision_encoders.0", "vision_encoders.1", "connector", "language_model.lm_head"]
    decoder = ("embed_tokens", "rotary_emb", "norm", "layers.0", "layers.1", "layers.2")
    parts += [f"language_model.model.{part}" for part in decoder]
    return {part: where if part.endswith(elsewhere) else "cpu" for part in parts}


@pytest.mark.parametrize(
    "device_map",
    [
        spread("vision_encoders.1"),
        spread("norm", "lm_head", "layers.0", "layers.1", "layers.2"),
        {"": "disk"},
    ],
    ids=["an encoder", "the language model", "everything"],
)
def test_parts_may_be_offloaded_to_disk(model, folder, tmp_path, device_map):
    loaded = CambrianForConditionalGeneration.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path)
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same_logits(loaded, model)
    for sample in samples():
        options = {"max_new_tokens": 3, "do_sample": False}
        assert torch.equal(loaded.generate(**sample, **options), model.generate(**sample, **options))


def test_what_does_not_fit_into_memory_goes_to_disk_by_itself(model, folder, tmp_path):
    options = {"device_map": "auto", "max_memory": {"cpu": 1_750_000}, "offload_folder": tmp_path}
    loaded = CambrianForConditionalGeneration.from_pretrained(folder, **options)
    places = loaded.hf_device_map
    assert places["connector"] == places["language_model.model.layers.0"] == "cpu"
    assert places["language_model.model.layers.2"] == "disk"
    assert_same_logits(loaded, model)


def test_no_layer_encoder_or_connector_is_spread_over_devices(model):
    whole = [model.connector, *model.vision_encoders, *model.language_model.model.layers]
    assert {type(module).__name__ for module in whole} <= model._no_split_modules


@torch.no_grad()
def test_everything_moves_along_to_a_second_device():
    # "meta" stands for it: whatever stayed behind would be an error, as on any other. Nothing comes back from there.
    places = spread("layers.2", "norm", "lm_head", where="meta")
    spread_out = dispatch_model(new_model(), places, main_device="cpu")
    remove_hook_from_module(spread_out)  # the one that would bring the logits back
    for sample in samples():
        logits = spread_out(**sample).logits
        assert logits.is_meta
        assert logits.shape == (1, sample["input_ids"].shape[1], VOCABULARY)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.06), (torch.float16, 0.008)])
def test_half_precision_is_kept_and_close(model, tmp_path, dtype, bound):
    copy.deepcopy(model).to(dtype).save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert loaded(**samples()[0]).logits.dtype == dtype
    errors = [
        ((ours - theirs).square().mean().sqrt() / theirs.std()).item()
        for ours, theirs in zip(logits_of(loaded), logits_of(model), strict=True)
    ]
    # 15 roundings (of 2^-8 and 2^-11) of the logits' spread: as much as the language model alone makes of text, row 1.
    assert max(errors) < bound
    assert max(errors) < 1.5 * errors[1]
    assert loaded.generate(**samples()[2], max_new_tokens=3).shape == (1, 44)


@pytest.mark.slow
def test_the_whole_model_and_its_decoding_steps_compile_to_one_graph_each():
    command = [sys.executable, "-m", tests.support.compiled.__name__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- size and training


def test_the_vocabulary_may_grow_and_image_tokens_stay(model, tmp_path):
    grown = copy.deepcopy(model)
    grown.resize_token_embeddings(VOCABULARY + 20, mean_resizing=False)  # now the image token's id lies inside
    assert grown.config.get_text_config().vocab_size == VOCABULARY + 20 > IMAGE_TOKEN_ID
    assert grown.num_parameters() == model.num_parameters() + 2 * 20 * 48
    for ours, theirs in zip(logits_of(grown), logits_of(model), strict=True):
        assert ours.shape[1] == VOCABULARY + 20
        torch.testing.assert_close(ours[:, :VOCABULARY], theirs, atol=1e-5, rtol=0)  # as above
    grown.save_pretrained(tmp_path)
    assert_same_logits(CambrianForConditionalGeneration.from_pretrained(tmp_path), grown)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    batch = pack(samples())
    model.train()(**batch, labels=labels_of(batch["input_ids"])).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_frozen_language_model_passes_gradients_on_also_with_checkpointing():
    found = []
    for checkpointing in (False, True):
        model = new_model()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("connector") or ".sva." in name)
        if checkpointing:
            model.activation_checkpointing_enable()
        assert 0 < model.num_parameters(only_trainable=True) < model.num_parameters()
        found.append(gradients(model))
    plain, checkpointed = found
    assert set(plain) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name in plain:
        assert torch.equal(plain[name], checkpointed[name]), name


# --- peft

# peft asks for this attribute when it wraps a model, and transformers is about to rename it
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def adapted_layers(model: nn.Module) -> set[str]:
    prefix = "base_model.model."
    return {n.split(".lora_")[0].removeprefix(prefix) for n, _ in model.named_parameters() if ".lora_" in n}


def lora(target_modules: str | list[str], **options: Any) -> LoraConfig:
    return LoraConfig(r=2, target_modules=target_modules, init_lora_weights=False, **options)


def test_lora_sits_on_the_layers_of_the_language_model_that_are_named(model):
    chosen = get_peft_model(copy.deepcopy(model), lora(model.lora_target_modules("q_proj", "v_proj")))
    layer = "language_model.model.layers.{}.self_attn.{}_proj"
    assert adapted_layers(chosen) == {layer.format(i, name) for i in range(3) for name in "qv"}
    linear = {n for n, m in model.language_model.named_modules() if isinstance(m, nn.Linear) and ".sva." not in n}
    every = get_peft_model(copy.deepcopy(model), lora(model.lora_target_modules()))
    assert adapted_layers(every) == {f"language_model.{name}" for name in linear - {"lm_head"}}
    with pytest.raises(ConfigError, match='no linear layer "q_prj"; did you mean "q_proj"'):
        model.lora_target_modules("q_prj")


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_lora_trains_saves_loads_and_merges(model, folder, tmp_path, task_type):
    config = lora(model.lora_target_modules("q_proj", "v_proj"), task_type=task_type)
    adapted = get_peft_model(copy.deepcopy(model), config)
    found = gradients(adapted)
    assert len(found) == 12
    assert all("lora_" in name and grad.any() for name, grad in found.items())

    adapted.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(CambrianForConditionalGeneration.from_pretrained(folder), tmp_path)
    assert_same_logits(loaded, adapted)
    changes = [(a - b).abs().max() for a, b in zip(logits_of(adapted), logits_of(model), strict=True)]
    assert min(changes) > 1e-2
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(loaded.generate(**samples()[2], **options), adapted.generate(**samples()[2], **options))
    merged = loaded.merge_and_unload()
    assert isinstance(merged, CambrianForConditionalGeneration)
    assert_same_logits(merged, adapted, atol=1e-4)  # the sum of two matrices, or of two products


def test_lora_gradients_are_the_same_with_checkpointing():
    found = []
    for checkpointing in (False, True):
        model = new_model()
        torch.manual_seed(2)
        adapted = get_peft_model(model, lora(model.lora_target_modules()))
        if checkpointing:
            model.activation_checkpointing_enable()
        found.append(gradients(adapted))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_connector_and_the_blocks_may_be_trained_whole_beside_lora(model, folder, tmp_path):
    config = lora(model.lora_target_modules(), modules_to_save=["connector", "sva"])
    adapted = get_peft_model(copy.deepcopy(model), config)
    found = gradients(adapted)
    assert set(found) == {name for name, p in adapted.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    adapted.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(CambrianForConditionalGeneration.from_pretrained(folder), tmp_path)
    assert_same_logits(loaded, adapted)


@pytest.mark.parametrize("target_modules", [["q_proj"], ["o_proj"], "all-linear"])
def test_adapters_that_hit_sva_blocks_are_refused_where_they_would_do_nothing(model, target_modules):
    adapted = get_peft_model(copy.deepcopy(model), lora(target_modules))
    assert any(".sva." in name for name in adapted_layers(adapted))  # peft asks nobody, and adds them
    with pytest.raises(ConfigError, match=r"an adapter sits on connector.*model\.lora_target_modules"):
        adapted(**samples()[0])
    with pytest.raises(ConfigError, match=r"an adapter sits on connector.*model\.lora_target_modules"):
        adapted.train()(input_ids=samples()[1]["input_ids"])


def test_adapters_on_the_blocks_inside_the_language_model_alone_are_refused_too(model):
    adapted = get_peft_model(copy.deepcopy(model), lora(r".*\.sva\..*q_proj"))
    with pytest.raises(ConfigError, match=r"an adapter sits on decoder layer 0: sva\.attention\.q_proj"):
        adapted(**samples()[0])
