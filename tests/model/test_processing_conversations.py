"""Conversations become tokens: one path for training and inference, supervised spans, image tokens, errors.

Every property is shown on two tokenizers made here, and on real ones where they are at hand.
"""

import base64
import copy
import pickle
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from cambrian_model.config import IMAGE_TOKEN, CambrianConfig
from cambrian_model.errors import CambrianModelError, ImageError, PromptError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing import CambrianImageProcessor, CambrianProcessor, Sample
from cambrian_model.processing.chat import ChatTemplate, named_template, template_names

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
WIDE, TALL = Image.new("RGB", (60, 20), "red"), Image.new("RGB", (30, 40), "blue")
SIZES = [(20, 60), (40, 30)]  # height, width of WIDE and TALL
ENCODERS = [
    {"image_side": side, "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    for side in (28, 42)
]
CORPUS = [
    "The cat sat on the mat.",
    "User: What is this? Assistant: A red box.",
    "two\nlines, 3 things; <image> & more",
    "0123456789 Thanks? No problem: bye! Be brief",
]


def tiny_bytes() -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it: spells everything, adds nothing in front."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def tiny_pieces() -> PreTrainedTokenizerFast:
    """As SentencePiece: a space in front of every text, a begin token added, and characters that it cannot spell."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    words = [text.replace("\n", " ").replace("<image>", "") for text in CORPUS]
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"]))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


class Llama3Converter(TikTokenConverter):
    """Reads the published file without the tiktoken package."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        lines = (line.split() for line in Path(tiktoken_url).read_bytes().splitlines())
        return {base64.b64decode(token): int(rank) for token, rank in lines}


def real_llama3() -> PreTrainedTokenizerFast:
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    special = [f"<|{name}|>" for name in names]
    file = ASSETS / "tokenizers" / "llama3" / "tokenizer.model"
    backend = Llama3Converter(vocab_file=str(file), extra_special_tokens=special).converted()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=special[0], eos_token=special[1])


@lru_cache
def original_tokenizer(name: str) -> PreTrainedTokenizerBase:
    if name.startswith("tiny"):
        return {"tiny_bytes": tiny_bytes, "tiny_pieces": tiny_pieces}[name]()
    if not ASSETS.is_dir():
        pytest.skip(f"real tokenizers lie in {ASSETS}, which is absent here")
    if name == "llama3":
        return real_llama3()
    folder = "lm" if name in ("stories260k", "babyllama105") else "tokenizers"
    return AutoTokenizer.from_pretrained(ASSETS / folder / name)


@lru_cache
def make_processor(name: str, template: str | None = None) -> CambrianProcessor:
    tokenizer = copy.deepcopy(original_tokenizer(name))
    return CambrianProcessor(CambrianImageProcessor(ENCODERS), tokenizer, chat_template=template, grid_side=4)


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
REAL = ["stories260k", "babyllama105", "qwen2", "phi3", "llama2_vicuna"]
TOKENIZERS = ["tiny_bytes", "tiny_pieces", *REAL, pytest.param("llama3", marks=pytest.mark.slow)]
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
        ("tiny_bytes", "llama_3", "<|eot_id|>"),
        pytest.param("llama3", "llama_3", "<|eot_id|>", marks=pytest.mark.slow),
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
    }
    for problem, call in cases.items():
        with pytest.raises(PromptError, match=re.escape(problem)):
            call()


def test_a_bad_picture_is_named():
    processor = make_processor("tiny_bytes")
    with pytest.raises(ImageError, match="row 3, image 1: cannot be read"):
        processor.encode(bare(DIALOGUE), [WIDE, b"nothing"], name="row 3")
    with pytest.raises(ImageError, match="prompt 1, image 0: cannot be read"):
        processor([WIDE, b"nothing"], ["<image>", "<image>"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"continue_final_message": True}, "continue_final_message is not supported"),
        ({"tokenize": True, "padding": "max_length"}, 'padding is "max_length"'),
        ({"tokenize": True, "return_tensors": "tf"}, 'return_tensors is "tf"'),
        ({"tokenize": True, "return_tensors": "pt", "padding": False}, "do not fit one tensor"),
    ],
)
def test_options_that_are_not_supported_are_refused(options, problem):
    with pytest.raises(PromptError, match=problem):
        make_processor("tiny_bytes").apply_chat_template([[user("Hi")], [user("Hello there")]], **options)


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
