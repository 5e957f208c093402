"""Tokenizers to prepare conversations with: two made here, which behave as the two great families do, and real ones."""

import base64
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter, generate_merges

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
CORPUS = [
    "The cat sat on the mat.",
    "User: What is this? Assistant: A red box.",
    "two\nlines, 3 things; <image> & more",
    "0123456789 Thanks? No problem: bye! Be brief",
]
REAL = ["stories260k", "babyllama105", "qwen2", "phi3", "llama2_vicuna", "mistral"]


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


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer anew, so that the caller may change it; skips the test where a real one is absent."""
    if name in ("tiny_bytes", "tiny_pieces"):
        return {"tiny_bytes": tiny_bytes, "tiny_pieces": tiny_pieces}[name]()
    if not ASSETS.is_dir():
        pytest.skip(f"real tokenizers lie in {ASSETS}, which is absent here")
    if name in ("llama3", "mistral"):  # published in forms of their own
        return {"llama3": _llama3, "mistral": _mistral}[name]()
    folder = "lm" if name in ("stories260k", "babyllama105") else "tokenizers"
    return AutoTokenizer.from_pretrained(ASSETS / folder / name)


class _Llama3Converter(TikTokenConverter):
    """Reads the published file without the tiktoken package."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        lines = (line.split() for line in Path(tiktoken_url).read_bytes().splitlines())
        return {base64.b64decode(token): int(rank) for token, rank in lines}


def _llama3() -> PreTrainedTokenizerFast:
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    special = [f"<|{name}|>" for name in names]
    file = ASSETS / "tokenizers" / "llama3" / "tokenizer.model"
    backend = _Llama3Converter(vocab_file=str(file), extra_special_tokens=special).converted()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=special[0], eos_token=special[1])


def _mistral() -> PreTrainedTokenizerBase:
    content = (ASSETS / "tokenizers" / "mistral" / "tokenizer.model.v1").read_bytes()
    pieces = list(_sentencepiece_pieces(content))
    vocabulary = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = generate_merges(vocabulary, dict(pieces))
    return LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=False, add_bos_token=True)


def _sentencepiece_pieces(content: bytes) -> Iterator[tuple[str, float]]:
    """Yields (piece, score) of a SentencePiece model: field 1 of the message, of which 1 is text and 2 is a float."""
    for number, value in _fields(content):
        if number == 1:
            parts = dict(_fields(value))
            yield parts[1].decode(), struct.unpack("<f", parts[2])[0]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (number, content) of the fields of a protocol buffer; those that are mere integers have none."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = varint()
        length = {0: 0, 1: 8, 2: 0, 5: 4}[key & 7]
        if key & 7 == 0:
            varint()
        elif key & 7 == 2:
            length = varint()
        yield key >> 3, message[place : place + length]
        place += length
