"""Conversations become tokens: one path for training and inference, supervised spans, image tokens, errors.

Every property is shown on two tokenizers made here, and on real ones where they are at hand.
"""

import copy
import pickle
import re
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase

from cambrian_model.config import IMAGE_TOKEN, CambrianConfig
from cambrian_model.errors import CambrianModelError, ImageError, PromptError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing import CambrianImageProcessor, CambrianProcessor, Sample
from cambrian_model.processing.chat import ChatTemplate, choose_template, named_template, template_names
from tests.support.tokenizers import REAL, load_tokenizer, tiny_bytes, tiny_pieces

WIDE, TALL = Image.new("RGB", (60, 20), "red"), Image.new("RGB", (30, 40), "blue")
SIZES = [(20, 60), (40, 30)]  # height, width of WIDE and TALL
ENCODERS = [
    {"image_side": side, "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    for side in (28, 42)
]


@lru_cache
def original_processor(name: str) -> CambrianProcessor:
    return CambrianProcessor(CambrianImageProcessor(ENCODERS), load_tokenizer(name), grid_side=4)


def make_processor(name: str, template: str | None = None) -> CambrianProcessor:
    """The same tokenizer for every template: reading one takes long."""
    processor = copy.copy(original_processor(name))
    processor.chat_template = choose_template(template, processor.tokenizer)
    return processor


def user(*parts: str | Image.Image) -> dict:
    return {"role": "user", "content": [as_part(part) for part in parts]}


def as_part(part: str | Image.Image) -> dict:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}


def answer(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def bare(messages: list[dict]) -> list[dict]:
    """The same messages with pictures that are given beside them."""
    return [
        {**m, "content": [{"type": "image"} if p["type"] == "image" else p for p in m["content"]]} for m in messages
    ]


def prompt_ids(processor: CambrianProcessor, messages: list[dict]) -> list[int]:
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    return inputs["input_ids"][0]


def supervised_texts(processor: CambrianProcessor, sample: Sample) -> list[str]:
    """What the labels say, one text for each uninterrupted stretch of them."""
    runs: list[list[int]] = [[]]
    for label in sample.labels.tolist():
        if label >= 0:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [processor.decode(run).lstrip() for run in runs if run]


DIALOGUE = [
    user(WIDE, "What is this?"),
    answer("A red box."),
    user("And this?", TALL, "Be brief."),
    answer("12 things"),
    user("Thanks"),
    answer("No problem: bye"),
]
# Answers that a tokenizer likes to merge with what stands in front of or behind them.
AWKWARD = [
    user("Say it.\n"),
    answer("\n\nindented"),
    user(" "),
    answer("  two spaces "),
    user("3"),
    answer("14159\n"),
    user("?", WIDE),
    answer("::) <b>ok</b>'s"),
    user("Ünï 猫 🚌"),
    answer("🚌 猫"),
]
TOKENIZERS = ["tiny_bytes", "tiny_pieces", *REAL]
CHATS = [None, "user_assistant", "vicuna_v1", "llama_3", "chatml_direct", "phi3"]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", CHATS)
@pytest.mark.parametrize("messages", [DIALOGUE, AWKWARD], ids=["dialogue", "awkward"])
def test_a_prompt_is_an_exact_prefix_of_the_training_tokens(name, template, messages):
    processor = make_processor(name, template)
    sample = processor.encode(messages)
    ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = prompt_ids(processor, messages[:i])
            assert prompt == ids[: len(prompt)]
            assert labels[len(prompt) - 1] == -100
            assert labels[len(prompt)] == ids[len(prompt)] or processor.tokenizer.unk_token_id == ids[len(prompt)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_plain_captions_follow_their_prompt(name):
    processor = make_processor(name, "plain")
    messages = [user(WIDE, "Describe it."), answer("A red box.")]
    sample = processor.encode(messages)
    prompt = prompt_ids(processor, messages[:1])
    assert sample.input_ids.tolist()[: len(prompt)] == prompt
    assert "Describe" not in processor.decode(sample.input_ids)
    assert supervised_texts(processor, sample)[0].startswith("A red box.")
    with pytest.raises(PromptError, match="needs a user message with an image"):
        processor.encode([user("no picture"), answer("caption")])


@pytest.mark.parametrize(
    ("name", "template", "end"),
    [
        ("tiny_bytes", None, "</s>"),
        ("tiny_pieces", None, "</s>"),
        ("stories260k", None, "</s>"),
        ("babyllama105", None, "</s>"),
        ("llama2_vicuna", "vicuna_v1", "</s>"),
        ("phi3", None, "<|end|>"),
        ("phi3", "phi3", "<|end|>"),
        ("qwen2", None, "<|im_end|>"),
        ("qwen2", "chatml_direct", "<|im_end|>"),
        ("mistral", "vicuna_v1", "</s>"),
    ],
)
def test_answers_and_their_end_marks_are_supervised_and_nothing_else(name, template, end):
    processor = make_processor(name, template)
    sample = processor.encode(DIALOGUE)
    assert supervised_texts(processor, sample) == [
        f"{text}{end}" for text in ("A red box.", "12 things", "No problem: bye")
    ]
    taught = sample.labels[sample.labels >= 0]
    assert torch.equal(sample.labels[sample.labels >= 0], sample.input_ids[sample.labels >= 0])
    assert taught[-1].item() in processor.stop_token_ids


@pytest.mark.parametrize("name", ["tiny_bytes", "tiny_pieces", *REAL])
def test_every_picture_fills_its_own_number_of_tokens(name):
    processor = make_processor(name)
    sample = processor.encode(bare(DIALOGUE), [WIDE, TALL])
    is_image = sample.input_ids == processor.image_token_id
    assert is_image.sum() == sum(num_image_tokens(size, 4) for size in SIZES)
    assert (sample.labels[is_image] == -100).all()
    assert sample.image_sizes.tolist() == [list(size) for size in SIZES]
    assert [tuple(pixels.shape) for pixels in sample.pixel_values] == [(2, 3, 28, 28), (2, 3, 42, 42)]
    assert processor.count_tokens(DIALOGUE, SIZES) == sample.num_tokens
    assert processor.image_token_id == len(processor.tokenizer) - 1


texts = st.text(alphabet=st.sampled_from("abcT .,:;\n<>image猫3'"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=4),
    name=st.sampled_from(["tiny_bytes", "tiny_pieces"]),
)
def test_any_conversation_keeps_the_promises(turns, name):
    processor = make_processor(name)
    messages: list[dict] = []
    for question, reply, has_image in turns:
        messages += [user(*([TALL] if has_image else []), question), answer("ab " + reply)]
    sample = processor.encode(messages)
    sizes = [SIZES[1] for _, _, has_image in turns if has_image]
    assert processor.count_tokens(messages, sizes) == sample.num_tokens
    ids = sample.input_ids.tolist()
    assert ids.count(processor.image_token_id) == sum(num_image_tokens(size, 4) for size in sizes)
    for i in range(1, len(messages), 2):
        prompt = prompt_ids(processor, messages[:i])
        assert ids[: len(prompt)] == prompt
    if name == "tiny_bytes":  # it spells everything
        assert supervised_texts(processor, sample) == [("ab " + reply + "</s>") for _, reply, _ in turns]


@pytest.mark.parametrize("name", ["tiny_bytes", *REAL])
def test_a_typed_image_tag_is_text(name):
    processor = make_processor(name)
    messages = [user("What does <image> mean in HTML?"), answer("<image> is no tag.")]
    sample = processor.encode(messages)
    assert processor.image_token_id not in sample.input_ids
    text = processor.decode(sample.input_ids)
    assert "What does <image> mean" in text
    assert "<image> is no tag." in text
    rendered = processor.apply_chat_template(messages)
    assert "What does <image> mean" in rendered
    assert rendered.isprintable() or "\n" in rendered


@pytest.mark.parametrize("name", ["tiny_bytes", "tiny_pieces"])
@pytest.mark.parametrize("template", CHATS)
def test_a_picture_may_stand_in_any_turn(name, template):
    processor = make_processor(name, template)
    system = {"role": "system", "content": [as_part("Be brief."), as_part(TALL)]}
    reply = {"role": "assistant", "content": [as_part(WIDE), as_part("A red box.")]}
    messages = [system, user("What is this?"), reply, user(TALL, WIDE, "Thanks"), answer("bye")]
    sample = processor.encode(messages)
    is_image = sample.input_ids == processor.image_token_id
    tall, wide = (num_image_tokens(SIZES[i], 4) for i in (1, 0))
    assert is_image.sum() == 2 * (tall + wide)
    assert sample.image_sizes.tolist() == [list(SIZES[i]) for i in (1, 0, 1, 0)]
    assert (sample.labels[is_image] == -100).all()
    taught = "".join(supervised_texts(processor, sample))
    assert "A red box." in taught
    assert IMAGE_TOKEN not in taught
    assert "Thanks" not in taught


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 1000)])
def test_extreme_pictures_fill_some_tokens(size):
    processor = make_processor("tiny_bytes")
    sample = processor.encode([user(Image.new("RGB", size), "x"), answer("a")])
    assert (sample.input_ids == processor.image_token_id).sum() == num_image_tokens((size[1], size[0]), 4) >= 10


def test_a_picture_without_area_is_named():
    processor = make_processor("tiny_bytes")
    with pytest.raises(ImageError, match="row 4, image 0: 0x5 pixels have no area"):
        processor.encode([user(Image.new("RGB", (0, 5)), "x"), answer("a")], name="row 4")
    with pytest.raises(ImageError, match="5x0 pixels has no area"):
        processor.count_tokens(bare([user(WIDE, "x"), answer("a")]), [(0, 5)])


def test_other_tokens_keep_their_ids_when_the_image_token_is_text():
    tokenizer = tiny_bytes()
    tokenizer.add_tokens(["<first>", IMAGE_TOKEN, "<last>"], special_tokens=True)
    processor = CambrianProcessor(CambrianImageProcessor(ENCODERS), tokenizer, grid_side=4)
    ids = processor(text="<first> <last>")["input_ids"][0]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<first>")
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<last>")
    assert processor.image_token_id == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)


def test_a_picture_and_text_without_white_space_are_joined_by_a_line_break():
    processor = make_processor("tiny_bytes")
    for parts in [("What?",), ("\nWhat?",)]:
        assert "User: <image>\nWhat? " in processor.apply_chat_template([user(WIDE, *parts)])
    assert "User: What?\n<image> " in processor.apply_chat_template([user("What?", WIDE)])
    assert "User: <image><image>\nSame? " in processor.apply_chat_template([user(WIDE, TALL, "Same?")])


def test_a_tokenizer_without_line_breaks_gets_spaces():
    processor = make_processor("tiny_pieces")
    assert "User: <image> What? " in processor.apply_chat_template([user(WIDE, "What?")])
    assert processor.tokenizer.unk_token_id not in processor.encode(DIALOGUE).input_ids


def test_characters_that_cannot_be_spelled_are_never_a_target():
    processor = make_processor("tiny_pieces")
    sample = processor.encode([user("this?"), answer("A 猫 box.")])
    unknown = processor.tokenizer.unk_token_id
    assert unknown in sample.input_ids
    assert unknown not in sample.labels
    with pytest.raises(PromptError, match=r"record 9: nothing to learn from"):
        processor.encode([user("this?")], name="record 9")


def tiny_config() -> CambrianConfig:
    encoders = [{"library": "timm", "name": "x", "width": 8, "grid_side": 6, **encoder} for encoder in ENCODERS]
    return CambrianConfig(
        text_config={"model_type": "llama", "num_hidden_layers": 1},
        vision_encoders=encoders,
        connector={"width": 8, "num_heads": 2, "query_grid_sides": [6]},
        grid_side=6,
    )


def test_from_config_takes_grid_and_encoders_from_the_model():
    processor = CambrianProcessor.from_config(tiny_config(), tiny_bytes())
    assert processor.grid_side == 6
    assert [spec.image_side for spec in processor.image_processor.specs] == [28, 42]
    assert processor.chat_template == named_template("user_assistant")


def test_a_template_that_the_tokenizer_cannot_spell_is_refused():
    with pytest.raises(PromptError, match=r"writes .*'\|'.* which this tokenizer cannot spell.*user_assistant"):
        CambrianProcessor.from_config(tiny_config(), tiny_pieces(), chat_template="phi3")
    with pytest.raises(PromptError, match='unknown chat template "vicuna"; did you mean "vicuna_v1"'):
        CambrianProcessor.from_config(tiny_config(), tiny_bytes(), chat_template="vicuna")
    tokenizer = tiny_bytes()
    tokenizer.eos_token = None
    with pytest.raises(PromptError, match="an answer would never end"):
        CambrianProcessor.from_config(tiny_config(), tokenizer)


def test_the_tokenizers_own_template_is_used():
    assert "system\nYou are Qwen" in make_processor("qwen2").apply_chat_template([user("Hi")])
    tokenizer = tiny_bytes()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert CambrianProcessor(CambrianImageProcessor(ENCODERS), tokenizer).chat_template == tokenizer.chat_template


@pytest.mark.parametrize("name", ["tiny_bytes", "tiny_pieces", *REAL])
def test_saving_and_loading_changes_nothing(name, tmp_path):
    processor = make_processor(name)
    processor.save_pretrained(tmp_path)
    again = CambrianProcessor.from_pretrained(tmp_path)
    assert again.chat_template == processor.chat_template
    assert (again.grid_side, again.image_token_id) == (4, processor.image_token_id)
    first, second = processor.encode(DIALOGUE), again.encode(DIALOGUE)
    assert torch.equal(first.input_ids, second.input_ids)
    assert torch.equal(first.labels, second.labels)
    assert all(map(torch.equal, first.pixel_values, second.pixel_values))


@pytest.mark.parametrize("legacy", [True, False])
def test_how_pieces_are_spelled_survives_saving(legacy, tmp_path, shared):
    folder = shared / "reference" / "conversation" / "tokenizers" / f"sp_v1_legacy_{str(legacy).lower()}"
    processor = CambrianProcessor(CambrianImageProcessor(ENCODERS), AutoTokenizer.from_pretrained(folder), "vicuna_v1")
    processor.save_pretrained(tmp_path)
    again = CambrianProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.legacy is legacy
    assert torch.equal(processor.encode(DIALOGUE).input_ids, again.encode(DIALOGUE).input_ids)


@pytest.mark.parametrize("template", CHATS)
def test_the_auto_class_loads_what_was_saved(template, tmp_path):
    encoders = [{**ENCODERS[0], "pad_color": (122, 116, 104)}, {**ENCODERS[1], "interpolation": "lanczos"}]
    processor = CambrianProcessor(CambrianImageProcessor(encoders), tiny_bytes(), chat_template=template, grid_side=5)
    processor.save_pretrained(tmp_path)
    tiny_config().save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is CambrianProcessor
    assert again.chat_template == processor.chat_template
    assert again.image_processor.specs == processor.image_processor.specs
    assert again.image_processor.specs[0].fill == (122, 116, 104)
    assert (again.grid_side, again.image_token_id) == (5, processor.image_token_id)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    again.save_pretrained(tmp_path / "twice")
    for name in ("processor_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_copies_and_workers_encode_alike():
    processor = make_processor("tiny_bytes")
    for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert torch.equal(other.encode(DIALOGUE).input_ids, processor.encode(DIALOGUE).input_ids)


def test_a_batch_is_padded_on_the_left_and_moves_to_a_device():
    processor = make_processor("tiny_bytes")
    batch = processor.apply_chat_template(
        [[user("Hi")], DIALOGUE[:3], [user(WIDE)]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert isinstance(batch, BatchFeature)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "image_sizes"}
    assert [tuple(pixels.shape) for pixels in batch["pixel_values"]] == [(3, 3, 28, 28), (3, 3, 42, 42)]
    assert batch["image_sizes"].tolist() == [[20, 60], [40, 30], [20, 60]]
    for row, mask, messages in zip(
        batch["input_ids"], batch["attention_mask"], ([user("Hi")], DIALOGUE[:3]), strict=False
    ):
        single = prompt_ids(processor, messages)
        assert row.tolist()[-len(single) :] == single
        assert mask.tolist() == [0] * (len(mask) - len(single)) + [1] * len(single)
    assert all(pixels.is_meta for pixels in batch.to("meta")["pixel_values"])


def test_padding_stands_on_the_left_whatever_the_tokenizer_says():
    processor = copy.copy(make_processor("tiny_bytes"))
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    processor.tokenizer.padding_side = "right"
    batch = processor(text=["a", "abc abc"], return_tensors="pt")
    assert batch["attention_mask"][0].tolist()[-1] == 1
    assert batch["attention_mask"][0].tolist()[0] == 0


def test_a_batch_is_filled_up_to_a_length_and_never_cut():
    processor = make_processor("tiny_bytes")
    messages = [[user("Hi")], [user(WIDE, "What is this?")]]
    lengths = [len(ids) for ids in processor.apply_chat_template(messages, tokenize=True, padding=False)]
    longest = max(lengths)
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    fixed: dict[str, Any] = {"padding": "max_length", "max_length": longest + 3}
    for settled in (fixed, {"processor_kwargs": fixed}):
        batch = processor.apply_chat_template(messages, **options, **settled)
        assert batch["input_ids"].shape == (2, longest + 3)
        assert batch["attention_mask"].sum(dim=1).tolist() == lengths
        assert (batch["attention_mask"][:, -min(lengths) :] == 1).all()
    assert processor(text="a", padding="max_length", max_length=9, return_tensors="pt")["input_ids"].shape == (1, 9)
    problem = f"prompt 1 has {longest} tokens, but max_length is {longest - 1}; nothing is cut here"
    with pytest.raises(PromptError, match=problem):
        processor.apply_chat_template(messages, **options, max_length=longest - 1)
    assert processor.apply_chat_template(messages, **options, max_length=longest)["input_ids"].shape == (2, longest)


def test_replies_decode():
    processor = make_processor("tiny_bytes")
    ids = processor(text=["A red box.</s>", "12 things</s>"], return_tensors="pt")["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["A red box.", "12 things"]
    assert processor.decode(ids[0], skip_special_tokens=True) == "A red box."


def test_a_prompt_without_pictures_has_no_pixels():
    inputs = make_processor("tiny_bytes").apply_chat_template([user("Hi")], tokenize=True, return_dict=True)
    assert set(inputs) == {"input_ids", "attention_mask"}


def test_text_prompts_take_pictures_in_order():
    processor = make_processor("tiny_bytes")
    by_chat = prompt_ids(processor, DIALOGUE[:1])
    text = processor.apply_chat_template(DIALOGUE[:1], add_generation_prompt=True)
    for images in (WIDE, [WIDE], [[WIDE]]):
        assert processor(images=images, text=text)["input_ids"][0] == by_chat
    batch = processor(images=[WIDE, TALL], text=["a <image>", "<image>"], return_tensors="pt")
    assert batch["image_sizes"].tolist() == [list(size) for size in SIZES]
    assert processor.batch_decode(batch["input_ids"], skip_special_tokens=True)[0].strip() == "a"


def test_pictures_come_from_paths_and_bytes(tmp_path):
    processor = make_processor("tiny_bytes")
    path = tmp_path / "wide.png"
    WIDE.save(path)
    expected = processor.encode([user(WIDE, "x"), answer("a")])
    for part in [{"image": path}, {"path": str(path)}, {"url": str(path)}, {"image": path.read_bytes()}]:
        messages = [{"role": "user", "content": [{"type": "image", **part}, as_part("x")]}, answer("a")]
        sample = processor.encode(messages)
        assert torch.equal(sample.input_ids, expected.input_ids)
        assert all(map(torch.equal, sample.pixel_values, expected.pixel_values))
    messages[0]["content"][0] = {"type": "image", "url": "https://example.org/a.png"}
    with pytest.raises(ImageError, match=r"https://example.org/a.png: nothing is downloaded"):
        processor.encode(messages)


def test_lengths_for_other_tools():
    counts = make_processor("tiny_bytes")._get_num_multimodal_tokens(image_sizes=SIZES)
    assert counts["num_image_tokens"] == [num_image_tokens(size, 4) for size in SIZES]


BAD_MESSAGES = [
    ([], "there are no messages"),
    (["hi"], "message 0: expected a dictionary"),
    ([{"role": "user"}], 'message 0: expected a dictionary with "role" and "content"'),
    ([{"role": "user", "content": 3}], "message 0: content is int"),
    ([user("a"), {"role": "user", "content": [{"type": "video"}]}], 'message 1: unknown part of type "video"'),
    ([{"role": "user", "content": [{"type": "text"}]}], 'a text part needs "text"'),
    ([{"role": "robot", "content": "a"}], 'refuses this conversation: unknown role "robot"'),
]


@pytest.mark.parametrize(("messages", "problem"), BAD_MESSAGES)
def test_messages_of_another_form_are_refused(messages, problem):
    with pytest.raises(PromptError, match=problem):
        make_processor("tiny_bytes").encode(messages)


def test_pictures_and_placeholders_must_match():
    processor = make_processor("tiny_bytes")
    messages = bare(DIALOGUE)
    cases = {
        "row 5: 2 image placeholders but 1 images": lambda: processor.encode(messages, [WIDE], name="row 5"),
        "row 6: 2 image placeholders but 3 images": lambda: processor.encode(messages, [WIDE] * 3, name="row 6"),
        "row 7: 2 image placeholders but 0 images": lambda: processor.count_tokens(messages, name="row 7"),
        "prompt 1: 2 image placeholders but 0 images": lambda: processor.apply_chat_template(
            [[user("Hi")], messages], tokenize=True
        ),
        "prompt 0 (1), prompt 1 (0): 1 image placeholders but 2 images": lambda: processor(
            [WIDE, TALL], ["<image>", "a"]
        ),
        "prompt 1: 0 image placeholders but 1 images": lambda: processor([[WIDE], [TALL]], ["<image>", "a"]),
        "1 lists of images for 2 prompts": lambda: processor([[WIDE]], ["<image>", "a"]),
        "prompt 1: 1 image placeholders but 2 images": lambda: processor([[WIDE], [TALL, WIDE]], ["<image>"] * 2),
        "prompt 0 (1), prompt 1 (2): 3 image placeholders but 2 images": lambda: processor(
            [WIDE, TALL], ["<image>", "<image><image>"]
        ),
        "prompt 0 (0): 0 image placeholders but 1 images": lambda: processor(WIDE, "no place for it"),
        "prompt 0 (1): 1 image placeholders but 0 images": lambda: processor(text="<image>"),
        "row 8: 0 image placeholders but 1 images": lambda: processor.encode(
            [{"role": "user", "content": "a typed <image>"}, answer("b")], [WIDE], name="row 8"
        ),
    }
    for problem, call in cases.items():
        with pytest.raises(PromptError, match=re.escape(problem)):
            call()


def test_a_bad_picture_is_named():
    processor = make_processor("tiny_bytes")
    with pytest.raises(ImageError, match="row 3, image 1: is no image"):
        processor.encode(bare(DIALOGUE), [WIDE, b"nothing"], name="row 3")
    with pytest.raises(ImageError, match="prompt 1, image 0: is no image"):
        processor([WIDE, b"nothing"], ["<image>", "<image>"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"continue_final_message": True}, "continue_final_message is not supported"),
        ({"tokenize": True, "padding": "max_length"}, 'padding is "max_length" but max_length is missing'),
        ({"tokenize": True, "padding": "longer"}, 'padding is "longer"; known: True, False, "longest", "max_length"'),
        ({"tokenize": True, "truncation": True}, "truncation=True is not supported; known: padding, max_length"),
        ({"tokenize": True, "padding_side": "right"}, "padding_side='right' is not supported"),
        ({"tokenize": True, "return_assistant_tokens_mask": True}, "return_assistant_tokens_mask=True is not support"),
        ({"tokenize": True, "processor_kwargs": {"do_resize": False}}, "do_resize=False is not supported"),
        ({"tokenize": True, "return_tensors": "tf"}, 'return_tensors is "tf"'),
        ({"tokenize": True, "return_tensors": "pt", "padding": False}, "do not fit one tensor"),
    ],
)
def test_options_that_are_not_supported_are_refused(options, problem):
    with pytest.raises(PromptError, match=problem):
        make_processor("tiny_bytes").apply_chat_template([[user("Hi")], [user("Hello there")]], **options)


def test_options_that_change_nothing_are_taken():
    processor = make_processor("tiny_bytes")
    plain = processor.apply_chat_template([user("Hi")], tokenize=True)
    options: dict[str, Any] = {
        "truncation": False,
        "padding_side": "left",
        "add_special_tokens": None,
        "processor_kwargs": {},
    }
    assert processor.apply_chat_template([user("Hi")], tokenize=True, enable_thinking=False, **options) == plain
    assert processor(text="a", videos=None, audio=None)["input_ids"] == processor(text="a")["input_ids"]
    with pytest.raises(PromptError, match="videos=3 is not supported"):
        processor(text="a", videos=3)


@pytest.mark.parametrize("text", [None, [], 3 * [None], [7]])
def test_prompts_that_are_no_text_are_refused(text):
    with pytest.raises(PromptError, match="text must be a string, or several"):
        make_processor("tiny_bytes")(images=[WIDE], text=text)


@pytest.mark.parametrize("template", ["llama_3", "chatml_direct", "phi3"])
def test_an_end_mark_of_several_tokens_cannot_end_an_answer(template):
    processor = make_processor("tiny_bytes", template)
    with pytest.raises(PromptError, match=r"ends an answer with '<\|\w+\|>', which is \d+ tokens for this tokenizer"):
        _ = processor.stop_token_ids
    tokenizer = tiny_bytes()
    ends = ["<|eot_id|>", "<|im_end|>", "<|end|>"]
    tokenizer.add_tokens(ends, special_tokens=True)
    processor = CambrianProcessor(CambrianImageProcessor(ENCODERS), tokenizer, chat_template=template)
    (end,) = [token for token in ends if token in named_template(template)]
    assert processor.stop_token_ids == [tokenizer.convert_tokens_to_ids(end), tokenizer.eos_token_id]


def test_without_an_end_mark_only_the_end_of_a_sequence_ends_an_answer():
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert make_processor("tiny_bytes", source).stop_token_ids == [tiny_bytes().eos_token_id]


def test_slow_tokenizers_are_refused():
    class Slow(PreTrainedTokenizerBase):
        chat_template = None

        def get_added_vocab(self):
            return {IMAGE_TOKEN: 0}

        def convert_tokens_to_ids(self, tokens):
            return 0

    with pytest.raises(PromptError, match="Slow is a slow tokenizer"):
        CambrianProcessor(CambrianImageProcessor(ENCODERS), Slow(eos_token="</s>"))


def test_foreign_templates_that_rewrite_earlier_turns_are_refused():
    forgetful = (
        "{% for m in messages %}{{ m.role }}:"
        "{% if m.role == 'assistant' and not loop.last %}...{% else %}{{ m.content }}{% endif %};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    template = ChatTemplate(forgetful, {})
    rows = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert template.render(rows[:2]).supervised == [(17, 19)]
    with pytest.raises(PromptError, match="up to message 1 differently once it goes on"):
        template.render(rows)


def test_templates_that_open_answers_differently_in_training_are_refused():
    source = named_template("user_assistant").replace(
        "{%- if add_generation_prompt -%}\n    {{- 'Assistant:'",
        "{%- if add_generation_prompt -%}\n    {{- 'Assistant (thinks):'",
    )
    processor = make_processor("tiny_bytes", source)
    assert "Assistant (thinks):" in processor.apply_chat_template([user("Hi")], add_generation_prompt=True)
    with pytest.raises(PromptError, match="differently in training and in inference"):
        processor.encode(DIALOGUE)


def test_all_templates_come_with_the_package():
    assert template_names() == ["chatml_direct", "llama_3", "phi3", "plain", "user_assistant", "vicuna_v1"]
    assert issubclass(PromptError, CambrianModelError)


PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def test_an_end_of_text_behind_the_whole_conversation_is_no_part_of_an_answer():
    # Phi-3's published template; a conversation that goes on has no such end behind its first answer.
    tokenizer = tiny_bytes()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = PHI_3
    processor = CambrianProcessor(CambrianImageProcessor(ENCODERS), tokenizer)
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    for count, answers in ((2, "b<|end|>"), (4, "b<|end|>d<|end|>")):
        labels = processor.encode(turns[:count]).labels
        assert tokenizer.decode(labels[labels >= 0]) == answers
    assert processor.stop_token_ids == [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
