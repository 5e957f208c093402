"""Conversations with the real tokenizers of the language models that Cambrian uses, and of some that it does not."""

from functools import lru_cache

import pytest
from PIL import Image

from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing import CambrianImageProcessor, CambrianProcessor
from tests.support.tokenizers import load_tokenizer

PICTURE = Image.new("RGB", (60, 20), "red")
# Tokenizer, template (None: its own), end of an answer, begin of a text, and whether it decodes to the very same text.
CASES = [
    ("llama3", "llama_3", "<|eot_id|>", "<|begin_of_text|>", True),
    ("llama2_vicuna", "vicuna_v1", "</s>", "<s>", False),
    ("mistral", "vicuna_v1", "</s>", "<s>", False),
    ("phi3", "phi3", "<|end|>", "<s>", False),
    ("phi3", None, "<|end|>", "<s>", False),
    ("qwen2", "chatml_direct", "<|im_end|>", None, True),
    ("qwen2", None, "<|im_end|>", None, True),
]
PARAMETERS = ("name", "template", "end", "begin", "is_exact")
ANSWERS = ["A red box.", " 14 159\n", "\n\n- one\n- two", "Ünï 猫 🚌", "::) <b>ok</b>'s", "ends with a space "]


@lru_cache
def make_processor(name: str, template: str | None) -> CambrianProcessor:
    encoder = {"image_side": 28, "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.5, 0.5)}
    tokenizer = make_processor(name, None).tokenizer if template else load_tokenizer(name)
    return CambrianProcessor(CambrianImageProcessor([encoder]), tokenizer, chat_template=template, grid_side=4)


def conversation(system: str | None = None) -> list[dict]:
    messages: list[dict] = [{"role": "system", "content": system}] if system else []
    for i, answer in enumerate(ANSWERS):
        image = [{"type": "image", "image": PICTURE}] if i in (0, 3) else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": f"What is {i}?\n"}]})
        messages.append({"role": "assistant", "content": answer})
    return messages


def runs(labels: list[int]) -> list[list[int]]:
    """Every uninterrupted stretch of supervised ids."""
    found: list[list[int]] = [[]]
    for label in labels:
        if label >= 0:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


@pytest.mark.parametrize(PARAMETERS, CASES)
def test_answers_and_their_end_marks_are_supervised_and_nothing_else(name, template, end, begin, is_exact):
    processor = make_processor(name, template)
    sample = processor.encode(conversation())
    supervised = runs(sample.labels.tolist())
    end_id = processor.tokenizer.convert_tokens_to_ids(end)
    assert processor.tokenizer.added_tokens_decoder[end_id].special
    assert all(run[-1] == end_id and run.count(end_id) == 1 for run in supervised)
    assert end_id in processor.stop_token_ids
    decoded = [processor.decode(run[:-1]) for run in supervised]
    if is_exact:
        assert decoded == ANSWERS
    else:  # SentencePiece drops a space in front when it decodes
        assert [text.lstrip(" ") for text in decoded] == [answer.lstrip(" ") for answer in ANSWERS]


@pytest.mark.parametrize(PARAMETERS, CASES)
def test_a_text_begins_once(name, template, end, begin, is_exact):
    processor = make_processor(name, template)
    for messages in (conversation(), conversation(system="Be brief.")):
        ids = processor.encode(messages).input_ids.tolist()
        starts = [i for i, token in enumerate(ids) if token == processor.tokenizer.bos_token_id]
        assert starts == ([0] if begin else [])
        assert begin is None or processor.tokenizer.bos_token == begin


@pytest.mark.parametrize(PARAMETERS, CASES)
def test_a_prompt_begins_the_training_tokens(name, template, end, begin, is_exact):
    processor = make_processor(name, template)
    messages = conversation(system="Be brief.")
    ids = processor.encode(messages).input_ids.tolist()
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            inputs = processor.apply_chat_template(messages[:i], add_generation_prompt=True, tokenize=True)
            assert ids[: len(inputs[0])] == inputs[0]


@pytest.mark.parametrize(
    ("name", "template", "position"), [("llama3", "llama_3", 91), ("llama2_vicuna", "vicuna_v1", 35)]
)
def test_the_picture_stands_where_the_released_models_expect_it(name, template, position):
    """The published `image_position` counts the tokens before the picture."""
    processor = make_processor(name, template)
    question = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is this?"}]
    (ids,) = processor.apply_chat_template([{"role": "user", "content": question}], tokenize=True)
    num_tokens = num_image_tokens((20, 60), 4)
    assert [i for i, token in enumerate(ids) if token == processor.image_token_id] == [
        *range(position, position + num_tokens)
    ]
    assert processor.decode(ids[position + num_tokens :]).lstrip(" ").startswith("\nWhat is this?")


def test_a_tokenizer_that_closes_every_text_and_knows_only_small_letters():
    """CLIP's belongs to no language model that answers; its habits are still no reason to fail."""
    processor = make_processor("clip", None)
    sample = processor.encode(
        [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A box."}]
    )
    begin, end = processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id
    ids = sample.input_ids.tolist()
    assert [i for i, token in enumerate(ids) if token in (begin, end)] == [0, len(ids) - 1]
    assert [processor.decode(run) for run in runs(sample.labels.tolist())] == ["a box . <|endoftext|>"]
    assert processor.stop_token_ids == [end]
