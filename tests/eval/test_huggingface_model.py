"""Any model of transformers: four families in miniature, whose batches must not change what is said."""

import dataclasses
import io
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_eval import Answer, Failure, ModelError, load_model
from cambrian_eval.models.base import Choosing, Measuring, OnHardware, Preparing
from cambrian_eval.models.huggingface import HuggingFace
from cambrian_eval.picture import Picture
from cambrian_eval.types import Prompt
from tests.support.tiny_vlms import FAMILIES, write_tiny_vlm

TOKENS = 8
BLIND = "llava", "idefics3", "qwen2_vl"  # PaliGemma's processor insists on a picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: write_tiny_vlm(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def models(folders):
    return {family: load_model(f"huggingface:{folder}") for family, folder in folders.items()}


@pytest.fixture(params=FAMILIES)
def model(request, models):
    return models[request.param]


def picture(seed, width, height):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return Picture.from_bytes(f"{seed}.png", file.getvalue())


def ask(name, *content, choices=("a", "b", "c")):
    return Prompt(name, content, choices, TOKENS)


PICTURES = [picture(seed, 30 + 20 * seed, 90 - 15 * seed) for seed in range(4)]
PROMPTS = [
    *(ask(f"q{seed}", shown, f"{'Look. ' * seed}What is it?") for seed, shown in enumerate(PICTURES)),
    ask("two", PICTURES[1], PICTURES[3], "Compare \"them\", 图中 has 'three'?"),
    ask("same", PICTURES[1], "Is it large?", choices=("yes", "no")),
]


def test_a_batch_is_answered_as_its_prompts_alone(model):
    """Pictures of other sizes and numbers, texts of other lengths, and budgets differ; the random weights are large."""
    budgets = (8, 3, 8, 5, 8, 1)
    asked = [dataclasses.replace(prompt, max_new_tokens=n) for prompt, n in zip(PROMPTS, budgets, strict=True)]
    alone = [model.answer([prompt])[0] for prompt in asked]
    assert model.answer(asked) == alone
    assert tuple(answer.reply_tokens for answer in alone) == budgets
    assert len({answer.text for answer in alone}) == len(alone)
    assert all(answer.image_tokens > 0 for answer in alone)


@pytest.mark.parametrize("family", BLIND)
def test_prompts_without_pictures_go_with_the_others(models, family):
    asked = [PROMPTS[0], ask("blind", "What is it?"), PROMPTS[4], ask("other", "And what is that, then?")]
    alone = [models[family].answer([prompt])[0] for prompt in asked]
    assert models[family].answer(asked) == alone
    assert [answer.image_tokens == 0 for answer in alone] == [False, True, False, True]


def test_a_prompt_that_the_processor_refuses_is_a_failure_of_its_own(models):
    first, refused, last = models["paligemma"].answer([PROMPTS[0], ask("blind", "What is it?"), PROMPTS[1]])
    assert isinstance(refused, Failure)
    assert "expected as arguments" in refused.reason
    assert [first, last] == models["paligemma"].answer(PROMPTS[:2])


def test_replies_are_those_of_greedy_generate_up_to_the_configured_end(folders, models):
    """The generation configuration asks for sampling, and names another end than the tokenizer's."""
    network = AutoModelForImageTextToText.from_pretrained(folders["llava"]).eval()
    processor = AutoProcessor.from_pretrained(folders["llava"])
    text = processor.apply_chat_template(PROMPTS[0].messages(), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=text, images=PICTURES[0].open(), return_tensors="pt")
    ids = network.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, temperature=1.0, top_p=1.0, top_k=50)
    expected = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert models["llava"].answer(PROMPTS[:1])[0].text == expected
    end = ids[0, inputs["input_ids"].shape[1] + 3].item()
    network.generation_config.eos_token_id = end
    ended = HuggingFace("stops", network, processor, folders["llava"]).answer(PROMPTS[:1])[0]
    assert isinstance(ended, Answer)
    assert (ended.truncated, ended.reply_tokens) == (False, 3)
    assert network.generation_config.do_sample


def test_letters_are_weighed_where_the_reply_begins(folders, models):
    network = AutoModelForImageTextToText.from_pretrained(folders["qwen2_vl"]).eval()
    processor = AutoProcessor.from_pretrained(folders["qwen2_vl"])
    for prompt, answer in zip(PROMPTS, models["qwen2_vl"].choose(PROMPTS), strict=True):
        text = processor.apply_chat_template(prompt.messages(), add_generation_prompt=True, tokenize=False)
        inputs = processor(text=text, images=[shown.open() for shown in prompt.pictures], return_tensors="pt")
        with torch.inference_mode():
            scores = network(**inputs).logits[0, -1].log_softmax(-1)
        letters = processor.tokenizer.convert_tokens_to_ids(list("ABC"[: len(prompt.choices)]))
        assert answer.option_scores == pytest.approx(scores[letters].tolist(), abs=1e-4)  # padding changes the rounding
        assert answer.text == "ABC"[int(scores[letters].argmax())]


def test_lengths_are_those_of_the_prompt(models):
    for family in BLIND:  # PaliGemma's processor adds a begin and a line end of its own
        for prompt in (*PROMPTS, ask("blind", "What?")):
            (batch,) = models[family].prepare([prompt]).batches
            assert sum(models[family].length(prompt)) == batch.inputs["input_ids"].shape[1]


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])  # whose tokens hang on the picture's shape
def test_a_turned_picture_is_seen_upright(models, family):
    pixels = Image.radial_gradient("L").resize((112, 40)).convert("RGB")
    upright, turned = (io.BytesIO() for _ in range(2))
    pixels.save(upright, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    pixels.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    asked = [
        ask("q", Picture.from_bytes(f"{i}.png", file.getvalue()), "Hm?") for i, file in enumerate((upright, turned))
    ]
    one, other = models[family].answer(asked)
    assert one == other
    assert models[family].length(asked[0]) == models[family].length(asked[1])


def test_a_processor_that_tells_no_lengths_is_measured_by_its_prompts(models, monkeypatch):
    told = [models["llava"].length(prompt) for prompt in PROMPTS]
    monkeypatch.setattr(models["llava"], "_tells_lengths", False)
    assert [models["llava"].length(prompt) for prompt in PROMPTS] == told
    assert [answer.image_tokens for answer in models["llava"].answer(PROMPTS)] == [
        length.image_tokens for length in told
    ]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_what_looks_like_a_token_of_the_template_is_text_in_a_question(models, family):
    model = models[family]
    mark = model._processor.image_token
    asked = ask("marked", PICTURES[0], f"What does {mark} mean in <end> this?")
    (batch,) = model.prepare([asked]).batches
    assert batch.image_tokens == model.prepare(PROMPTS[:1]).batches[0].image_tokens
    (row,) = batch.inputs["input_ids"].tolist()
    assert row.count(model._image_token_id) == batch.image_tokens[0]
    assert row.count(model._vocabulary["<end>"]) == 1  # the template's
    assert mark in model._reader.decode(row[-60:])
    alone = [model.answer([prompt])[0] for prompt in (PROMPTS[0], asked)]
    assert model.answer([PROMPTS[0], asked]) == alone


def test_it_can_do_what_our_own_model_can(model):
    assert isinstance(model, Choosing)
    assert isinstance(model, Measuring)
    assert isinstance(model, Preparing)
    assert isinstance(model, OnHardware)
    assert model.hardware.startswith("CPU")


def test_the_fingerprint_tells_files_apart(folders, models, tmp_path):
    model = models["llava"]

    def fingerprint(changed):
        copy = shutil.copytree(folders["llava"], tmp_path / changed)
        with (copy / changed).open("ab") as file:
            file.write(b" ")
        return HuggingFace(model.name, model._model, model._processor, copy).fingerprint

    assert load_model(f"huggingface:{folders['llava']}").fingerprint == model.fingerprint == fingerprint("README.md")
    changed = ("model.safetensors", "generation_config.json", "chat_template.jinja", "processor_config.json")
    assert len({model.fingerprint, *map(fingerprint, changed)}) == 5


def test_half_precision_is_kept(folders, tmp_path):
    network = AutoModelForImageTextToText.from_pretrained(folders["llava"], dtype=torch.bfloat16)
    shutil.copytree(folders["llava"], tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors"))
    network.save_pretrained(tmp_path / "half")
    model = load_model(f"huggingface:{tmp_path / 'half'}")
    assert model.fingerprint.endswith(":torch.bfloat16:cpu")
    assert all(isinstance(answer, Answer) for answer in model.answer(PROMPTS))


def refused(argument):
    with pytest.raises(ModelError) as caught:
        load_model(f"huggingface:{argument}")
    return str(caught.value)


def test_what_cannot_be_loaded_is_refused_in_a_sentence(folders, tmp_path):
    assert "write huggingface:PATH or huggingface:ORGANISATION/NAME" in refused("")
    assert "no name of the hub" in refused(tmp_path / "nowhere")
    assert "the hub does not give it" in refused("nobody/nothing")  # the tests are offline
    assert "no config.json" in refused(tmp_path)
    for kind, more, message in [
        ("vendors-own", {"auto_map": {"AutoConfig": "code.Config"}}, "such code is not run"),
        ("vendors-own", {}, "cannot be loaded"),
        ("llama", {}, "takes no pictures and texts together"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **more}))
        assert message in refused(tmp_path)
    cut = shutil.copytree(folders["llava"], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    assert "cannot be loaded" in refused(cut)
    bare = shutil.copytree(folders["llava"], tmp_path / "bare", ignore=shutil.ignore_patterns("*processor*"))
    assert "expected a processor for pictures and texts" in refused(bare) or "cannot be loaded" in refused(bare)


def test_a_pickle_is_not_loaded(folders, tmp_path):
    copy = shutil.copytree(folders["llava"], tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "cannot be loaded" in refused(copy)


def test_a_cambrian_checkpoint_is_sent_to_its_own_adapter(tmp_path, monkeypatch):
    monkeypatch.delitem(
        CONFIG_MAPPING._extra_content, "cambrian", raising=False
    )  # as where cambrian_model is not loaded
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "cambrian"}))
    assert "write cambrian:PATH" in refused(tmp_path)


def test_a_context_that_is_full_is_a_failure_of_its_own(models, monkeypatch):
    monkeypatch.setattr(models["llava"], "_context", 38)
    answers = models["llava"].answer(PROMPTS[:4])
    (batch,) = models["llava"].prepare(PROMPTS[:1]).batches
    assert isinstance(answers[0], Answer)
    assert answers[0].reply_tokens == 38 - batch.inputs["input_ids"].shape[1]
    assert isinstance(answers[3], Failure)
    assert "context holds 38" in answers[3].reason


def test_a_model_that_does_not_continue_its_prompt_is_refused(models, monkeypatch):
    """An encoder-decoder's `generate` gives the reply alone; cut like a decoder's it would lose its beginning."""
    generate = models["llava"]._model.generate
    monkeypatch.setattr(models["llava"]._model, "generate", lambda **inputs: generate(**inputs)[:, -TOKENS:])
    with pytest.raises(ModelError, match="LlavaForConditionalGeneration does not continue its prompt"):
        models["llava"].answer(PROMPTS[:2])


def test_without_transformers_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'cambrian-eval\[transformers\]'"):
        load_model(f"huggingface:{tmp_path}")


def test_nothing_is_warned_about(models):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        models["qwen2_vl"].answer(PROMPTS)
    assert not caught
