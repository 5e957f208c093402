"""How fast the index pass is: text records a second, and with pictures beside opening the pictures' headers alone.

Text: questions and answers as recipe `tiny` trains on, with its tokenizer, and longer records as instruction data has,
of words drawn as often as in English (Zipf's law), with a tokenizer of Llama 3's kind that is trained on them. Both are
read from a file of records as the command line reads it. Pictures: one to a record, with a caption, and many of the
files are links to one picture; beside it Pillow opens each of the same files for its size, one after the other in this
process, and once more also for its EXIF orientation, which the index heeds too. Rounds are paired; printed are the
median ratios and their 95 % intervals from resampled rounds. To start two processes takes some tenths of a second,
whatever they do, so there are enough records for that to matter little.

    uv run python benchmarks/index.py --records 50000 --pictures 40000 --rounds 9 --seed 0
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from scipy import stats
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cambrian_cli.datasets import read_records
from cambrian_data.cvbench.scenes import RECORDS, write_scene_records
from cambrian_data.formats import read_records as parse_records
from cambrian_data.scenes import write_scenes
from cambrian_model.assemble import assemble
from cambrian_model.processing import CambrianProcessor
from cambrian_model.training.index import DataIndex, index_dataset
from cambrian_model.training.recipe import load_recipe

WORKERS = (0, 2)
NUM_SCENES, QUESTIONS_PER_TASK = 300, 200
NUM_WORDS, ZIPF = 60_000, 1.1
VOCABULARY = 16_000
QUESTION_WORDS, ANSWER_WORDS = 15, 60  # on average: some 150 tokens with the template's own
CAPTION_WORDS = 12
NUM_FILES = 2_000  # pictures that are written; further ones are links to them
LLAMA_3_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Writer:
    """Writes texts of made-up words, the r-th most frequent one drawn in proportion to 1 / r**ZIPF."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        letters, lengths = np.array(list("etaoinshrdlucmfwypvbgkjqxz")), self._random.integers(2, 11, NUM_WORDS)
        chance = 1 / np.arange(1, 27)
        drawn = self._random.choice(letters, lengths.sum(), p=chance / chance.sum())
        ends = lengths.cumsum()
        self.words = ["".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
        weights = 1 / np.arange(1, NUM_WORDS + 1) ** ZIPF
        self._cumulated = (weights / weights.sum()).cumsum()

    def text(self, mean_words: int) -> str:
        """Returns sentences of twelve words."""
        count = int(self._random.integers(mean_words // 2, mean_words * 3 // 2 + 1))
        numbers = np.searchsorted(self._cumulated, self._random.random(count)).clip(max=NUM_WORDS - 1)
        words = [self.words[number] for number in numbers.tolist()]
        return ". ".join(" ".join(words[start : start + 12]).capitalize() for start in range(0, count, 12)) + "."


def train_tokenizer(writer: Writer) -> PreTrainedTokenizerFast:
    """A byte-level BPE that cuts text as Llama 3's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((writer.text(200) for _ in range(5000)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Writes rows as JSON Lines."""
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def scene_questions(folder: Path, count: int) -> Path:
    """Questions about rendered scenes with their answers, without the pictures, again and again up to `count`."""
    write_scenes(folder / "scenes", count=NUM_SCENES, seed=0)
    write_scene_records(
        folder / "scenes", folder / "questions", count_per_task=QUESTIONS_PER_TASK, format_prompt=True, reasoning=True
    )
    records = [record.to_dict() for record in parse_records(folder / "questions" / RECORDS)]
    for record in records:
        for message in record["messages"]:
            message["content"] = [part for part in message["content"] if part["type"] == "text"]
    rows = (records[i % len(records)] | {"id": f"{i}", "images": []} for i in range(count))
    return write_jsonl(folder / "short.jsonl", rows)


def instructions(folder: Path, writer: Writer, count: int) -> Path:
    """Records in LLaVA's form, of one or two turns and no picture."""
    rows = (
        {
            "id": f"{i}",
            "conversations": [
                {"from": "human", "value": writer.text(QUESTION_WORDS)},
                {"from": "gpt", "value": writer.text(ANSWER_WORDS)},
            ],
        }
        for i in range(count)
    )
    return write_jsonl(folder / "long.jsonl", rows)


def captions(folder: Path, writer: Writer, count: int, form: str) -> Path:
    """A file of captions, each of a picture of its own: noise, so that files are as large as photographs."""
    (folder / form).mkdir()
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (480, 640, 3), np.uint8))
    rows = []
    for i in range(count):
        name = f"{form}/{i:06}.{form}"
        if i < NUM_FILES:
            noise.crop((0, 0, 256 + i % 64, 192 + i % 48)).save(folder / name)
        else:
            (folder / name).hardlink_to(folder / form / f"{i % NUM_FILES:06}.{form}")
        turns = [
            {"from": "human", "value": "<image>\nWhat is this?"},
            {"from": "gpt", "value": writer.text(CAPTION_WORDS)},
        ]
        rows.append({"id": f"{i}", "image": name, "conversations": turns})
    return write_jsonl(folder / f"{form}.jsonl", rows)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns seconds and the result."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def measure(path: Path, processor: CambrianProcessor, num_workers: int) -> DataIndex:
    """One index pass, from the file on."""
    return index_dataset(path.stem, read_records(path, path.parent), processor, num_workers=num_workers)


def open_headers(files: list[Path], with_orientation: bool = False) -> None:
    """Opens pictures with Pillow for their sizes, and for their orientation as far as no pixels stand before it."""
    for file in files:
        with Image.open(file) as image:
            _ = image.size
            if with_orientation:
                _ = Image.Image.getexif(image).get(ExifTags.Base.Orientation)


def report_text(path: Path, processor: CambrianProcessor, rounds: int) -> None:
    """Prints records a second, the median of the rounds and the slowest and fastest."""
    for num_workers in WORKERS:
        times, indices = zip(
            *(timed(lambda w=num_workers: measure(path, processor, w)) for _ in range(rounds)), strict=True
        )
        rates = sorted(len(indices[0]) / seconds for seconds in times)
        print(
            f"{path.stem:<8}{num_workers} workers: {np.median(rates):>9,.0f} records/s "
            f"({rates[0]:,.0f} to {rates[-1]:,.0f}), {indices[0].lengths.mean():.0f} tokens a record"
        )


def report_pictures(path: Path, processor: CambrianProcessor, rounds: int) -> None:
    """Prints the speed of the index pass over that of opening the headers alone."""
    files = sorted((path.parent / path.stem).iterdir())
    open_headers(files)
    for num_workers in WORKERS:
        rounds_of_three = [
            (
                timed(lambda: open_headers(files))[0],
                timed(lambda: open_headers(files, with_orientation=True))[0],
                timed(lambda w=num_workers: measure(path, processor, w))[0],
            )
            for _ in range(rounds)
        ]
        alone, turned, ours = np.array(rounds_of_three).T
        print(
            f"{path.stem:<8}{num_workers} workers: {len(files) / np.median(ours):>9,.0f} records/s; "
            f"headers alone {len(files) / np.median(alone):,.0f}/s: ratio {interval(alone / ours)}; "
            f"with orientation {len(files) / np.median(turned):,.0f}/s: ratio {interval(turned / ours)}"
        )


def interval(ratios: NDArray[np.float64]) -> str:
    """Returns the median of some ratios and its 95 % interval."""
    low, high = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    return f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Makes the files in a temporary folder and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    _, tiny = assemble(load_recipe("tiny").model.spec())
    writer = Writer(args.seed)
    instructed = CambrianProcessor(tiny.image_processor, train_tokenizer(writer), "vicuna_v1", tiny.grid_side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report_text(scene_questions(folder, args.records), tiny, args.rounds)
        report_text(instructions(folder, writer, args.records), instructed, args.rounds)
        for form in ("jpg", "png"):
            report_pictures(captions(folder, writer, args.pictures, form), instructed, args.rounds)


if __name__ == "__main__":
    main()
