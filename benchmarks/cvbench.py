"""Time and memory of making Count and Relation questions from annotations as large as COCO's training set.

That is 118,000 pictures with 850,000 things in 80 categories, with outlines, in one COCO-format file. The file is made
up: things a picture, sizes, places and categories are drawn so that their spread is like COCO's (some 7 things a
picture and many times that in some, two fifths of them smaller than 32 x 32 pixels, a fifth of them of one category).
A second process reads it, makes all candidates and chooses; printed are the seconds of each step, by the clock and of
the processor, and its largest memory. Writing pictures is not part of it. A third process reads the file with
pycocotools alone, for comparison. Status 1 if the second takes longer, or more, than it may.

    uv run python benchmarks/cvbench.py --pictures 118000 --things 850000 --seed 0
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cambrian_data.cvbench.build import candidates_2d, select
from cambrian_data.cvbench.candidates import Task
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import Rules
from cambrian_data.cvbench.sources import coco

MAX_SECONDS, MAX_GIGABYTES = 90.0, 3.0
SIZES = ((640, 480), (480, 640), (640, 427), (427, 640))
NUM_CATEGORIES = 80
CATEGORY_EXPONENT = 1.0  # the r-th most frequent category comes in proportion to 1 / r: the first is a fifth of all
SPREAD_OF_THINGS = 1.3  # shape of the gamma law that the number of things in a picture follows: most have few
MEDIAN_AREA, SPREAD_OF_AREA = 2500.0, 2.0  # square pixels, and of the logarithm: two fifths are below 1024
CORNERS = (8, 40)  # of an outline
CROWDS = 0.012  # part of the things
COUNT_PER_TASK = 1000


def things_per_picture(random: np.random.Generator, pictures: int, things: int) -> list[int]:
    """How many things each picture has, `things` in all."""
    weights = random.gamma(SPREAD_OF_THINGS, size=pictures)
    return np.bincount(random.choice(pictures, things, p=weights / weights.sum()), minlength=pictures).tolist()


def annotations(random: np.random.Generator, pictures: int, things: int) -> Iterator[dict[str, Any]]:
    """The entries of "annotations"."""
    chances = 1 / np.arange(1, NUM_CATEGORIES + 1) ** CATEGORY_EXPONENT
    chances /= chances.sum()
    number = 0
    for image, count in enumerate(things_per_picture(random, pictures, things)):
        width, height = SIZES[image % len(SIZES)]
        # A picture shows few kinds of things, and several of some.
        kinds = random.choice(NUM_CATEGORIES, 1 + min(count, 5), p=chances)
        for kind in random.choice(kinds, count).tolist():
            area = min(MEDIAN_AREA * np.exp(SPREAD_OF_AREA * random.standard_normal()), 0.9 * width * height)
            across = float(np.clip(np.sqrt(area * np.exp(0.5 * random.standard_normal())), 2, width - 1))
            down = float(np.clip(area / across, 2, height - 1))
            left, top = random.uniform(0, width - across), random.uniform(0, height - down)
            corners = random.uniform(0, 1, (int(random.integers(*CORNERS)), 2)) * (across, down) + (left, top)
            number += 1
            yield {
                "segmentation": [corners.round(2).ravel().tolist()],
                "area": round(0.6 * across * down, 4),
                "iscrowd": 0,
                "image_id": image + 1,
                "bbox": [round(edge, 2) for edge in (left, top, across, down)],
                "category_id": kind + 1,
                "id": number,
            }


def with_crowds(entries: Iterator[dict[str, Any]], random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The same, some of them crowds, outlined by run lengths."""
    for entry in entries:
        if random.random() < CROWDS:
            entry |= {"iscrowd": 1, "segmentation": {"counts": [7, 5, 9, 3], "size": [480, 640]}}
        yield entry


def write_coco(file: Path, pictures: int, things: int, seed: int) -> None:
    """A COCO-format file, entry by entry."""
    random = np.random.default_rng(seed)
    images = (
        {"id": n + 1, "file_name": f"{n + 1:012d}.jpg", "width": SIZES[n % 4][0], "height": SIZES[n % 4][1]}
        for n in range(pictures)
    )
    categories = ({"id": n + 1, "name": f"kind{n}"} for n in range(NUM_CATEGORIES))
    lists = {
        "images": images,
        "annotations": with_crowds(annotations(random, pictures, things), random),
        "categories": categories,
    }
    with file.open("w") as out:
        out.write('{"info": {"description": "made up"}')
        for name, entries in lists.items():
            out.write(f', "{name}": [')
            for number, entry in enumerate(entries):
                out.write(f"{',' if number else ''}{json.dumps(entry)}")
            out.write("]")
        out.write("}")


def measure(file: Path, count_per_task: int, seed: int) -> dict[str, Any]:
    """Reads, makes candidates and chooses; seconds of each step, and the largest memory of this process."""
    seconds: dict[str, float] = {}
    begin = time.perf_counter()
    read = coco.read(file)
    seconds["read"] = time.perf_counter() - begin
    rules = Rules.photographs()
    rejected: dict[Task, Rejections] = {Task.COUNT: Counter(), Task.RELATION: Counter()}
    begin = time.perf_counter()
    candidates = candidates_2d(read, rules, rejected)
    seconds["candidates"] = time.perf_counter() - begin
    begin = time.perf_counter()
    questions = {
        task: select(found, task, count=count_per_task, seed=seed, rules=rules, rejected=rejected[task])
        for task, found in candidates.items()
    }
    seconds["choice"] = time.perf_counter() - begin
    return {
        "pictures": len(read.pictures),
        "things": sum(len(picture.things) for picture in read.pictures),
        "candidates": {task: len(found) for task, found in candidates.items()},
        "questions": {task: len(found) for task, found in questions.items()},
        "seconds": seconds,
        "processor_seconds": time.process_time(),
        "gigabytes": largest_memory(),
    }


def measure_pycocotools(file: Path) -> dict[str, Any]:
    """Reads with pycocotools; seconds, and the largest memory of this process."""
    from pycocotools.coco import COCO  # type: ignore[import-untyped]  # here: the other process must not pay for it

    with contextlib.redirect_stdout(io.StringIO()):
        COCO(file)
    return {"processor_seconds": time.process_time(), "gigabytes": largest_memory()}


def largest_memory() -> float:
    """Of this process until now, gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> int:
    """Writes the file, measures in other processes, and prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=118_000)
    parser.add_argument("--things", type=int, default=850_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the file, in the second process
    parser.add_argument("--pycocotools", type=Path, help=argparse.SUPPRESS)  # the file, in the third process
    options = parser.parse_args()
    if options.pycocotools is not None:
        print(json.dumps(measure_pycocotools(options.pycocotools)))
        return 0
    if options.measure is not None:
        print(json.dumps(measure(options.measure, COUNT_PER_TASK, options.seed)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances.json"
        begin = time.perf_counter()
        write_coco(file, options.pictures, options.things, options.seed)
        print(f"wrote {file.stat().st_size / 1e6:,.0f} MB in {time.perf_counter() - begin:.0f} s", flush=True)
        command = [sys.executable, __file__, "--measure", str(file), "--seed", str(options.seed)]
        begin = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - begin
        command = [sys.executable, __file__, "--pycocotools", str(file)]
        library = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = json.loads(done.stdout)
    print(f"{found['pictures']:,} pictures, {found['things']:,} things")
    for task in found["candidates"]:
        print(f"{task}: {found['candidates'][task]:,} candidates, {found['questions'][task]:,} questions chosen")
    print(", ".join(f"{step} {seconds:.1f} s" for step, seconds in found["seconds"].items()))
    print(
        f"in all {wall:.1f} s (allowed {MAX_SECONDS:.0f}), {found['processor_seconds']:.1f} s of the processor, "
        f"{found['gigabytes']:.2f} GB (allowed {MAX_GIGABYTES:.0f})"
    )
    print(
        f"reading with pycocotools: {library['processor_seconds']:.1f} s of the processor, "
        f"{library['gigabytes']:.2f} GB"
    )
    return 0 if wall < MAX_SECONDS and found["gigabytes"] < MAX_GIGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
