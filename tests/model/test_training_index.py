"""The index pass: it counts exactly what encoding will make, opens no picture, and bad samples follow the policy."""

import json
import pickle
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken

from cambrian_model.errors import ImageError, PromptError, TrainingError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing import CambrianImageProcessor, CambrianProcessor, load_image, read_image_size
from cambrian_model.processing.chat import ChatTemplate, named_template
from cambrian_model.processing.image_header import header_size
from cambrian_model.processing.measure import Measure
from cambrian_model.processing.text import TextEncoder
from cambrian_model.training.bad_samples import BadSample, BadSamples, UnreadableSampleError
from cambrian_model.training.index import BLOCK, DataIndex, index_dataset, join
from tests.support.tokenizers import load_tokenizer

IMAGE_SPECS = [{"image_side": 14, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}]
TOKENIZERS = ["tiny_bytes", "tiny_pieces", "stories260k", "babyllama105", "phi3", "llama2_vicuna", "qwen2", "llama3"]
# Each with a tokenizer of the models that it is for, and user_assistant with one that cannot spell everything.
PAIRS = [
    ("user_assistant", "tiny_pieces"),
    ("user_assistant", "tiny_bytes"),
    ("llama_3", "llama3"),
    ("vicuna_v1", "llama2_vicuna"),
    ("phi3", "phi3"),
    ("chatml_direct", "qwen2"),
]


@lru_cache
def make_processor(tokenizer: str, template: str) -> CambrianProcessor:
    return CambrianProcessor(CambrianImageProcessor(IMAGE_SPECS), load_tokenizer(tokenizer), template, grid_side=4)


PIECES = ["cat", "The", "box", "12", "345", " ", "  ", "\n", "\t ", ". ", ", ", "'s", "é", "e\u0301", "漢字", "👍", "▁"]
MARKS = ["<image>", "</s>", "<|end|>", "<|im_end|>", "<|eot_id|> ", "\u00a0", "\u2003 ", "\x1c ", "\ufdd1", "<"]
TEXTS = st.lists(st.sampled_from(PIECES + MARKS), max_size=12).map("".join)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Messages of one to three turns with pictures anywhere in the questions, and the pictures' sizes."""
    messages: list[dict[str, Any]] = []
    sizes: list[tuple[int, int]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXTS)})
    for _ in range(draw(st.integers(1, 3))):
        parts = [{"type": "text", "text": draw(TEXTS)}]
        for size in draw(st.lists(SIZES, max_size=2)):
            parts += [{"type": "image"}, {"type": "text", "text": draw(TEXTS)}]
            sizes.append(size)
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": draw(TEXTS)}]
    return messages, sizes


@pytest.mark.parametrize(("template", "tokenizer"), PAIRS)
@settings(max_examples=60, deadline=None)
@given(conversations())
def test_measuring_finds_what_encoding_makes(template, tokenizer, conversation):
    processor, (messages, sizes) = make_processor(tokenizer, template), conversation
    pictures = [Image.new("RGB", (width, height)) for height, width in sizes]
    try:
        sample = processor.encode(messages, pictures)
    except PromptError:
        with pytest.raises(PromptError, match="nothing to learn from"):
            processor.measure(messages, sizes)
        return
    image_places = np.flatnonzero(sample.input_ids == processor.image_token_id)
    assert processor.measure(messages, sizes) == (
        len(sample.input_ids),
        image_places[-1] + 1 if len(image_places) else 0,
        np.flatnonzero(sample.labels >= 0)[0],
    )


def tokenizer_ids(encoder: TextEncoder, text: str) -> list[int]:
    return encoder._backend.encode(text, add_special_tokens=False).ids


def make_encoder(name: str) -> TextEncoder:
    templates = {tokenizer: template for template, tokenizer in PAIRS}
    return make_processor(name, templates.get(name, "user_assistant"))._encoder


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_words_remembered_give_the_ids_of_the_whole_text(name, context, piece):
    encoder = make_encoder(name)
    before, both = tokenizer_ids(encoder, context), tokenizer_ids(encoder, context + piece)
    assert encoder._words.encode(context) == before
    assert encoder._words.encode(context + piece) == both
    follows = both[: len(before)] == before
    ids = both[len(before) :] if follows else tokenizer_ids(encoder, piece)
    assert encoder.encode_after(context, piece) == ids
    assert encoder._words.count(piece) == len(tokenizer_ids(encoder, piece))
    known = [i for i, token in enumerate(ids) if not encoder.is_unknown(token)]
    expected = (len(ids), known[0] if known else None)
    for _ in range(2):  # the second time from what is remembered
        assert encoder._words.measure_after(encoder._words.end_of(context), piece) == expected


@pytest.mark.parametrize("name", ["tiny_bytes", "tiny_pieces"])
def test_a_pickled_encoder_measures_the_same(name):
    encoder = make_encoder(name)
    pieces = [("<image>\nWhat is <this>?", False), (" A cat. 12", True)]
    assert pickle.loads(pickle.dumps(encoder)).measure(pieces) == encoder.measure(pieces)


def test_only_tokenizers_that_keep_words_apart_are_asked_word_by_word():
    # tiny_pieces has merges across spaces; an added token that swallows the space before it reaches across one, too.
    assert make_encoder("tiny_bytes")._words.is_by_words
    assert not make_encoder("tiny_pieces")._words.is_by_words
    swallowing = load_tokenizer("tiny_bytes")
    swallowing.add_tokens([AddedToken("<sep>", lstrip=True, normalized=False)])
    assert not TextEncoder(swallowing)._words.is_by_words


@pytest.mark.parametrize("template", ["chatml_direct", "llama_3", "phi3", "plain", "user_assistant", "vicuna_v1"])
@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_outlines_are_filled_as_the_template_would_write(template, texts, with_system, opened):
    source = named_template(template)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    # A comment makes it another template, which is rendered by Jinja.
    ours, plain = ChatTemplate(source, special), ChatTemplate(source + "{#- other -#}", special)
    roles = [*(["system"] if with_system else []), *["user", "assistant"] * 2]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    try:
        expected = plain.render(messages, opened)
    except PromptError:
        with pytest.raises(PromptError):
            ours.render(messages, opened)
        return
    for _ in range(2):  # the second time from what is remembered
        assert ours.render(messages, opened) == expected


# --- headers


def save_noise(path: Path, **options: Any) -> Path:
    Image.effect_noise((60, 40), 90).convert("RGB").save(path, **options)
    return path


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_headers_are_enough_whatever_the_pixels_are(tmp_path, form):
    path = save_noise(tmp_path / f"a.{form}")
    content = path.read_bytes()
    start = content.index(b"IDAT") + 4 if form == "png" else content.index(b"\xff\xda") + 14
    rest = bytes(len(content) - start - 12) + content[-12:] if form == "png" else b""
    path.write_bytes(content[:start] + rest)
    assert header_size(path) == read_image_size(path) == (40, 60)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(path)


@pytest.mark.parametrize("kind", [b"eXIf", b"tEXt", b"none"])
def test_what_turns_a_png_is_found_behind_its_pixels(tmp_path, kind):
    path = save_noise(tmp_path / "a.png")
    content = path.read_bytes()
    turned = exif(6).tobytes()[6:]
    chunks = {b"eXIf": chunk(b"eXIf", turned), b"tEXt": chunk(b"tEXt", b"date:create\x002020"), b"none": b""}
    for size in (0, 100):  # one data chunk, or many of one length
        data = content
        if size:
            start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
            pixels = content[start + 8 : end - 4]
            cut = [pixels[i : i + size] for i in range(0, len(pixels), size)]
            data = content[:start] + b"".join(chunk(b"IDAT", part) for part in cut) + content[end:]
        end = data.index(b"IEND") - 4
        path.write_bytes(data[:end] + chunks[kind] + data[end:])
        seen = load_image(path)
        assert read_image_size(path) == (seen.height, seen.width) == ((60, 40) if kind == b"eXIf" else (40, 60))
        assert (header_size(path) is None) == (kind == b"eXIf")


def test_cut_and_foreign_headers_are_left_to_pillow(tmp_path):
    for form in ("png", "jpg"):
        content = save_noise(tmp_path / f"a.{form}").read_bytes()
        assert header_size(content) == (40, 60)
        assert header_size(content[:20]) is None
    assert header_size(save_noise(tmp_path / "turned.jpg", exif=exif(6))) is None
    assert header_size(save_noise(tmp_path / "a.webp")) is None
    assert header_size(tmp_path / "missing.png") is None


# --- the pass


class Words:
    """Counts words, as a processor counts tokens."""

    def encode(self, messages, images):
        raise AssertionError("the index encodes nothing")

    def measure(self, messages, image_sizes):
        if messages[0]["content"] == "bad":
            raise PromptError("nothing to learn from")
        words = len(messages[0]["content"].split())
        pixels = sum(num_image_tokens(size, 4) for size in image_sizes)
        return Measure(words + pixels, pixels, pixels + 1)


def record(name, text, images=()):
    return {"id": name, "source": "test", "messages": [{"role": "user", "content": text}], "images": list(images)}


def many(count: int) -> list[dict[str, Any]]:
    return [record(f"r{i}", "word " * (i % 7 + 1)) for i in range(count)]


def test_the_index_measures_text_and_image_headers_and_changes_with_the_data(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (3, 5)).save(path)
    data = [record("a", "one two", [str(path)]), record("b", "one two three", [path.read_bytes()]), record("c", "one")]
    index = index_dataset("mine", data, Words())

    pixels = num_image_tokens((5, 3), 4)
    assert (index.name, index.ids, index.bad) == ("mine", ["a", "b", "c"], [])
    assert index.lengths.tolist() == [2 + pixels, 3 + pixels, 1]
    assert index.num_images.tolist() == [1, 1, 0]
    assert index.picture_ends.tolist() == [pixels, pixels, 0]
    assert index.first_supervised.tolist() == [pixels + 1, pixels + 1, 1]
    assert {array.dtype for array in (index.lengths, index.num_images, index.picture_ends)} == {np.dtype(np.int32)}
    assert index_dataset("mine", data, Words()) == index
    others = [data[::-1], [data[0], record("b", "one two four", data[1]["images"]), data[2]], data[:2]]
    assert len({index.hash, *(index_dataset("mine", other, Words()).hash for other in others)}) == 4


def with_content(content: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"id": "a", "messages": [{"role": role, "content": content}, {"role": "assistant", "content": "x"}]}]


class Ones:
    """Finds every conversation alike."""

    def encode(self, messages, images):
        raise AssertionError("the index encodes nothing")

    def measure(self, messages, image_sizes):
        return Measure(1, 0, 0)


def test_the_fingerprint_changes_with_every_text_role_picture_name_and_size(tmp_path):
    for name, size in (("a.png", (3, 5)), ("b.png", (3, 5)), ("c/a.png", (5, 3)), ("d/a.png", (3, 5))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    text, image = {"type": "text", "text": "one"}, {"type": "image"}
    conversations = [
        with_content("one"),
        with_content("onx"),
        with_content("one", "system"),
        with_content([text, text]),
        with_content([text, image]),
        with_content([image, text]),
        with_content([{"type": "text", "text": '{"type": "image"}'}, text]),
        with_content([text | {"further": 1}]),
        *(with_content([image]) for _ in range(3)),
    ]
    for found, name in zip(conversations[-3:], ("a.png", "b.png", "c/a.png"), strict=True):
        found[0]["images"] = [str(tmp_path / name)]
    assert len({index_dataset("mine", found, Ones()).hash for found in conversations}) == len(conversations)
    # Where a file lies says nothing about it, and a string is a text.
    moved = [conversations[-3][0] | {"images": [str(tmp_path / "d/a.png")]}]
    assert index_dataset("mine", moved, Ones()).hash == index_dataset("mine", conversations[-3], Ones()).hash
    assert index_dataset("mine", with_content([text]), Ones()) == index_dataset("mine", conversations[0], Ones())


def test_processes_that_share_the_work_make_the_same_index():
    data = many(2 * BLOCK + 3)
    done: list[tuple[int, int]] = []
    alone = index_dataset("mine", data, Words())
    shared = index_dataset("mine", data, Words(), num_workers=2, report=lambda *now: done.append(now))
    assert shared == alone
    assert done == [(BLOCK, len(data)), (2 * BLOCK, len(data)), (len(data), len(data))]


def test_a_saved_index_is_read_as_it_was(tmp_path):
    data = [record("a", "one"), record("ü\u2028", "bad"), record("c", "one two")]
    index = index_dataset("mine", data, Words(), on_bad="skip")
    for _ in range(2):  # the second one takes the place of the first
        index.save(tmp_path / "index")
    assert DataIndex.load(tmp_path / "index") == index
    assert DataIndex.load(tmp_path / "index").hash == index.hash
    (tmp_path / "index" / "ids.jsonl").write_text('"a"\n')
    with pytest.raises(TrainingError, match="names 1 samples and measures others"):
        DataIndex.load(tmp_path / "index")
    (tmp_path / "index" / "index.safetensors").write_bytes(b"cut")
    with pytest.raises(TrainingError, match="holds no whole index of data"):
        DataIndex.load(tmp_path / "index")


def test_indices_differ_if_anything_does():
    index = index_dataset("mine", many(3), Words())
    assert index != index_dataset("other", many(3), Words())
    assert index != index_dataset("mine", many(4), Words())
    assert index != "mine"


class Unreadable(list):
    """A dataset that cannot read its second record."""

    def __getitem__(self, number):
        if number == 1:
            raise UnreadableSampleError("records.jsonl:2", "malformed JSON")
        return super().__getitem__(number)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_sample_is_an_error_with_its_place_or_noted(tmp_path, num_workers):
    missing = str(tmp_path / "missing.png")
    data = Unreadable(
        [record("a", "one"), {}, record("c", "x", [missing]), record("d", "x", [b"no"]), record("e", "bad")]
    )
    with pytest.raises(TrainingError, match=r"records\.jsonl:2: malformed JSON; .*--on-bad-sample skip"):
        index_dataset("mine", data, Words(), num_workers=num_workers)
    index = index_dataset("mine", data, Words(), on_bad="skip", num_workers=num_workers)
    assert [(bad.number, bad.name) for bad in index.bad] == [
        (1, "records.jsonl:2"),
        (2, 'sample "c"'),
        (3, 'sample "d"'),
        (4, 'sample "e"'),
    ]
    assert "missing.png: no such file" in index.bad[1].reason
    assert "image 0: is no image" in index.bad[2].reason
    assert index.lengths.tolist() == [1, 0, 0, 0, 0]
    assert len(index) == len(data)


def test_an_empty_dataset_is_an_error():
    with pytest.raises(TrainingError, match='data "mine" is empty'):
        index_dataset("mine", [], Words())


def test_sources_are_joined_end_to_end():
    first, second = index_dataset("first", many(2), Words()), index_dataset("second", many(3), Words())
    both = join([first, second], [1.0, 0.5])
    assert both.lengths.tolist() == [*first.lengths, *second.lengths]
    assert both.source.tolist() == [0, 0, 1, 1, 1]
    assert (both.names, both.weights) == (["first", "second"], [1.0, 0.5])
    assert join([first], [1.0]).hash == first.hash
    assert len({both.hash, join([second, first], [1.0, 1.0]).hash, first.hash, second.hash}) == 4


# --- the list


def test_the_list_names_every_bad_sample_once(tmp_path):
    path = tmp_path / "run" / "bad_samples.jsonl"
    found = [BadSample(3, "records.jsonl:4", "no such file"), BadSample(5, "records.jsonl:6", "is empty\u2028")]
    bad = BadSamples(path, "skip")
    assert bad.read() == []
    bad.record("index", "mine", [])
    assert not path.exists()
    bad.record("index", "mine", found[:1])
    bad.record("index", "mine", found)
    bad.record("train", "other", found[:1] * 2)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [(line["when"], line["source"], line["name"]) for line in lines] == [
        ("index", "mine", "records.jsonl:4"),
        ("index", "mine", "records.jsonl:6"),
        ("train", "other", "records.jsonl:4"),
    ]
    assert bad.read() == lines
    with pytest.raises(TrainingError, match=r"records\.jsonl:4: no such file; .*--on-bad-sample skip"):
        BadSamples(path, "error").record("train", "mine", found)


def test_a_line_that_a_kill_cut_off_is_written_anew(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    bad = BadSamples(path, "skip")
    bad.record("index", "mine", [BadSample(0, "a", "x")])
    with path.open("a") as file:
        file.write('{"when": "train", "sou')
    bad.record("train", "mine", [BadSample(1, "b", "y")])
    assert [line["name"] for line in bad.read()] == ["a", "b"]
    assert path.read_text().count("\n") == 2
