"""How fast the leakage audit searches and hashes, and which copies of a picture its hashes find.

Search: random hashes of 64 bits, as many as the pictures of the paper's benchmarks, against ten million, within 4 and
within 8 bits. Among the ten million are copies of some with a few bits turned. Beside it every hash is compared with
every one of a part of the ten million, which is scaled up; status 1 if the two do not find the same pairs there.

Questions: made-up ones of a training set, looked at for a thousand questions of a benchmark that share a template; some
are of words of their own, some have the same template.

With --pictures, folders of photographs: the CPU time of hashing one as its file lies there, the share of changed copies
found within so many bits by each hash, and the distances of different pictures. The tables are in Markdown.

    uv run python benchmarks/leakage.py --queries 10000000 --pictures PHOTOS --seed 0
"""

import argparse
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from cambrian_data.boxes import Box
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.images import load_image
from cambrian_data.leakage.methods import FUNCTIONS, Method, hash_bits, to_method
from cambrian_data.leakage.ngrams import WordingIndex
from cambrian_data.leakage.pictures import SUFFIXES, Picture, stamp_of
from cambrian_data.leakage.prints import make_prints
from cambrian_data.leakage.search import HammingIndex, hamming

NUM_HASHES, NUM_BITS = 49_535, 64
THRESHOLDS = (4, 8)
PLANTED = 2_000  # queries that are hashes with up to MOST_TURNED bits turned, all among those compared one by one
MOST_TURNED = 10

NUM_WORDINGS, NUM_QUESTIONS, NGRAM, CONTAINMENT = 1_000, 100_000, 8, 0.7
OWN_WORDS = 12
TEMPLATE = (
    "Which object is closer to the camera taking this photo, the {} (highlighted by a red box) or the {} "
    "(highlighted by a blue box)?"
)

WITHIN = (0, 2, 4, 8, 10)
ROUNDS = 5
SQUARE = 336  # pixels, as CLIP sees a picture
BOXES = {
    "red": (0.10, 0.20, 0.45, 0.60),
    "blue": (0.50, 0.30, 0.80, 0.90),
    "green": (0.30, 0.05, 0.70, 0.25),
}
"""Left, top, right and bottom as parts of the picture's sides."""


def search(random: np.random.Generator, num_queries: int, num_compared: int) -> bool:
    """Prints how long the search takes beside comparing all; tells whether they find the same."""
    hashes, queries = (random.integers(0, 2**64, (count, 1), dtype=np.uint64) for count in (NUM_HASHES, num_queries))
    planted = random.permutation(num_compared)[:PLANTED]
    queries[planted] = hashes[random.integers(0, NUM_HASHES, len(planted))] ^ turned(random, len(planted))
    agree = True
    for threshold in THRESHOLDS:
        start = time.perf_counter()
        index = HammingIndex(hashes, NUM_BITS, threshold)
        filed = time.perf_counter() - start
        found = index.search(queries)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        near = [np.flatnonzero(hamming(hashes, query[None]) <= threshold) for query in queries[:num_compared]]
        compared = time.perf_counter() - start
        expected = {(row, entry) for row, entries in enumerate(near) for entry in entries.tolist()}
        mine = found.query < num_compared
        pairs = set(zip(found.query[mine].tolist(), found.entry[mine].tolist(), strict=True))
        agree &= pairs == expected
        print(
            f"search within {threshold} bits: {NUM_HASHES:,} hashes against {num_queries:,} in {seconds:.1f} s, "
            f"{filed:.1f} s of them to file the hashes, {len(found.query):,} pairs; comparing all "
            f"{compared * num_queries / num_compared:.0f} s (scaled from {num_compared:,}), where both find "
            f"{len(pairs):,} and {len(expected):,} pairs{'' if pairs == expected else ', NOT THE SAME'}"
        )
    return agree


def turned(random: np.random.Generator, count: int) -> np.ndarray:
    """Words of which 0 to MOST_TURNED bits, chosen at random, are 1."""
    words = np.zeros((count, 1), np.uint64)
    for row in range(count):
        for bit in random.permutation(NUM_BITS)[: random.integers(0, MOST_TURNED + 1)].tolist():
            words[row] |= np.uint64(1 << bit)
    return words


def questions(random: np.random.Generator) -> None:
    """Prints how many training questions a second are looked at."""
    things = ["".join(letters) for letters in itertools.product("bdfgklmnprst", "aeiou", "bdgklmnprstz", ("", "er"))]
    index = WordingIndex((TEMPLATE.format(*random.choice(things, 2)) for _ in range(NUM_WORDINGS)), NGRAM, CONTAINMENT)
    kinds: dict[str, Callable[[], str]] = {
        f"{OWN_WORDS} words of their own": lambda: " ".join(random.choice(things, OWN_WORDS)) + "?",
        "the benchmark's template": lambda: TEMPLATE.format(*random.choice(things, 2)),
    }
    for kind, make in kinds.items():
        texts = [make() for _ in range(NUM_QUESTIONS // (1 if kind[0].isdigit() else 10))]
        start = time.process_time()
        hits = sum(bool(index.hits(text)) for text in texts)
        rate = len(texts) / (time.process_time() - start)
        print(
            f"questions with {kind}: {rate:,.0f} a second of CPU, {hits:,} of {len(texts):,} found "
            f"({NUM_WORDINGS:,} questions of the benchmark)"
        )


def reencoded(image: Image.Image, form: str, **options: int) -> Image.Image:
    """The picture, saved and read again."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return Image.open(stream).convert("RGB")


def scaled(image: Image.Image, part: float) -> Image.Image:
    """The picture, smaller."""
    size = (max(1, round(image.width * part)), max(1, round(image.height * part)))
    return image.resize(size, Image.Resampling.BICUBIC)


def cropped(image: Image.Image, part: float) -> Image.Image:
    """The picture without a part of it at each side, one pixel at least."""
    across, down = (max(1, round(side * part)) for side in image.size)
    return image.crop((across, down, image.width - across, image.height - down))


def boxed(image: Image.Image, count: int) -> Image.Image:
    """The picture with boxes as CV-Bench draws them."""
    sides = (image.width, image.height) * 2
    scaled_boxes = {
        colour: Box(*(part * side for part, side in zip(box, sides, strict=True))) for colour, box in BOXES.items()
    }
    return draw_boxes(image, dict(itertools.islice(scaled_boxes.items(), count)))


def padded(image: Image.Image) -> Image.Image:
    """The picture in the middle of a black square."""
    return ImageOps.pad(image, (max(image.size),) * 2, color=(0, 0, 0))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same pixels as PNG": lambda image: reencoded(image, "PNG", compress_level=1),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "JPEG of quality 50": lambda image: reencoded(image, "JPEG", quality=50),
    "JPEG of quality 10": lambda image: reencoded(image, "JPEG", quality=10),
    "half the size": lambda image: scaled(image, 1 / 2),
    "a quarter of the size, JPEG of quality 30": lambda image: reencoded(scaled(image, 1 / 4), "JPEG", quality=30),
    f"squeezed to {SQUARE} x {SQUARE}": lambda image: image.resize((SQUARE, SQUARE), Image.Resampling.BICUBIC),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "one box drawn": lambda image: boxed(image, 1),
    "three boxes drawn": lambda image: boxed(image, 3),
    "1 % cut off at each side": lambda image: cropped(image, 0.01),
    "5 % cut off at each side": lambda image: cropped(image, 0.05),
    "10 % cut off at each side": lambda image: cropped(image, 0.10),
    "padded to a square": padded,
    "mirrored": ImageOps.mirror,
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
COMPARED = ("three boxes drawn", "JPEG of quality 10", "1 % cut off at each side", "5 % cut off at each side")


class Distances(NamedTuple):
    """What one hash says.

    Attributes:
        copies: by kind of copy the bits between each picture and its copy.
        strangers: bits between every two pictures.
    """

    copies: dict[str, np.ndarray]
    strangers: np.ndarray


def hashed(images: Sequence[Image.Image], method: Method) -> np.ndarray:
    """The hashes of pictures, of their grey values as the audit takes them."""
    return np.stack([hash_bits(image.convert("L"), method) for image in images])


def distances(files: Sequence[Path]) -> dict[str, Distances]:
    """By hash of 64 bits the distances of copies and strangers."""
    methods = {name: to_method(name, 8) for name in FUNCTIONS}
    originals = [load_image(file) for file in files]
    hashes = {name: hashed(originals, method) for name, method in methods.items()}
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in methods}
    for kind, change in COPIES.items():
        copies = [change(image) for image in originals]
        for name, method in methods.items():
            found[name][kind] = hamming(hashes[name], hashed(copies, method))
    return {name: Distances(found[name], np.concatenate(list(strangers(hashes[name])))) for name in methods}


def strangers(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Bits between each hash and those after it."""
    return (hamming(hashes[row + 1 :], hashes[row][None]) for row in range(len(hashes) - 1))


def tell_copies(files: Sequence[Path]) -> None:
    """Prints the tables of the documentation."""
    by_hash = distances(files)
    print(f"\ncopies of {len(files)} pictures found by dhash of {NUM_BITS} bits within so many bits\n")
    print(f"| copy | {' | '.join(map(str, WITHIN))} | median | largest |\n|{'---|' * (len(WITHIN) + 3)}")
    for kind, bits in by_hash["dhash"].copies.items():
        shares = " | ".join(f"{(bits <= most).mean():.0%}" for most in WITHIN)
        print(f"| {kind} | {shares} | {np.median(bits):.0f} | {bits.max()} |")
    print(f"\n| hash | nearest different pair | median | {' | '.join(f'{kind}, within 4' for kind in COMPARED)} |")
    print(f"|{'---|' * (len(COMPARED) + 3)}")
    for name, (copies, others) in by_hash.items():
        shares = " | ".join(f"{(copies[kind] <= 4).mean():.0%}" for kind in COMPARED)
        print(f"| `{name}` | {others.min()} bits | {np.median(others):.0f} | {shares} |")
    print(f"\n{len(others):,} pairs of different pictures")


def tell_hashing(files: Sequence[Path]) -> None:
    """Prints what reading, decoding and hashing a picture costs."""
    pictures = [Picture(file.name, file, stamp_of(file)) for file in files]
    pixels = np.mean([np.prod(load_image(file).size) for file in files])
    for name in FUNCTIONS:
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            made = make_prints(pictures, to_method(name, 8))
            times.append((time.process_time() - start) / len(files))
        print(
            f"hashing by {name}: {1000 * np.median(times):.1f} ms of CPU a picture, median of {ROUNDS} rounds over "
            f"{len(files)} of {pixels / 1e6:.2f} megapixels on average, {len(made.problems)} of them broken"
        )


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000_000)
    parser.add_argument("--compared", type=int, default=20_000, help="of the queries, one by one")
    parser.add_argument("--pictures", type=Path, action="append", default=[], help="folder; may be given again")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    agree = search(random, args.queries, args.compared)
    questions(random)
    for folder in args.pictures:
        tell_hashing([file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES])
    files = [file for folder in args.pictures for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
    if files:
        tell_copies(files)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
