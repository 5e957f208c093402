"""The leakage audit: near-duplicate pictures and repeated questions are found, and nothing is left out unsaid."""

import csv
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cambrian_data.boxes import Box
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.errors import DataError
from cambrian_data.images import load_image
from cambrian_data.leakage import HASHES, audit, gallery
from cambrian_data.leakage.dialogues import exchanges_of_row
from cambrian_data.leakage.methods import hash_bits, to_method
from cambrian_data.leakage.ngrams import WordingIndex, same_answer, to_words
from cambrian_data.leakage.search import HammingIndex, bands, hamming, plan

WHICH = (
    "Which object is closer to the camera taking this photo, the {} (highlighted by a red box) or the {} "
    "(highlighted by a blue box)?"
)


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture of smooth patches: pictures of two seeds have nothing in common."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def folder_of(path: Path, **pictures: Image.Image) -> Path:
    """A folder of PNG files."""
    path.mkdir(parents=True, exist_ok=True)
    for name, each in pictures.items():
        each.save(path / f"{name}.png")
    return path


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(output: Path) -> list[tuple[str, str, int]]:
    return [
        (row["benchmark_picture"], row["training_picture"], int(row["distance"]))
        for row in rows_of(output / "pairs.csv")
    ]


def left_out(output: Path) -> dict[str, str]:
    return {row["name"]: row["reason"] for row in rows_of(output / "left_out.csv")}


def written(output: Path) -> dict[str, bytes]:
    """What an audit says: every file but the hashes."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def write_lines(path: Path, *rows: dict | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def asked(image: str | None, question: str, answer: str, name: str = "r") -> dict:
    """A record in LLaVA's form."""
    mark = "<image>\n" if image else ""
    turns = [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns} | ({"image": image} if image else {})


def benchmark_row(index: int, question: str, choices: list[str], right: int, **fields: object) -> dict:
    """A row of CV-Bench."""
    return {
        "idx": index,
        "filename": f"img/{index}.png",
        "question": question,
        "choices": choices,
        "answer": f"({'ABCDE'[right]})",
        **fields,
    }


# --- search


def brute_force(hashes: np.ndarray, queries: np.ndarray, threshold: int) -> list[tuple[int, int, int]]:
    numbers, wanted = ([int.from_bytes(row.tobytes(), "little") for row in rows] for rows in (hashes, queries))
    distances = ((row, entry, (a ^ b).bit_count()) for row, a in enumerate(wanted) for entry, b in enumerate(numbers))
    return [each for each in distances if each[2] <= threshold]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    num_bits=st.sampled_from([9, 49, 64, 81, 256]),
    threshold=st.integers(0, 16),
    num_hashes=st.integers(0, 30),
    num_queries=st.integers(0, 40),
)
def test_search_finds_what_brute_force_finds(seed, num_bits, threshold, num_hashes, num_queries):
    rng = np.random.default_rng(seed)
    threshold = min(threshold, num_bits // 4)
    centres = rng.integers(0, 2, (4, num_bits))
    some = centres[rng.integers(0, 4, num_hashes + num_queries)]
    some = some ^ (rng.random(some.shape) < rng.choice([0.0, 0.03, 0.1]))
    packed = np.packbits(some.astype(np.uint8), axis=1, bitorder="little")
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view("<u8")
    hashes, queries = words[:num_hashes], words[num_hashes:]
    found = HammingIndex(hashes, num_bits, threshold).search(queries)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == brute_force(hashes, queries, threshold)


def test_bands_share_no_bit_and_their_radii_suffice():
    for threshold in range(17):
        for count in range(1, threshold + 2):
            made = bands(64, threshold, count, 22)
            assert len({bit for band in made for bit in band.bits}) == sum(len(band.bits) for band in made)
            fewest_missed = sum(band.radius + 1 for band in made)  # bits that must differ to escape every band
            assert fewest_missed == threshold + 1
    assert all(band.radius <= 1 for band in plan(49_535, 64, 4))  # few keys for each hash


@pytest.mark.slow
def test_search_is_far_faster_than_comparing_all():
    rng = np.random.default_rng(0)
    hashes, queries = (rng.integers(0, 2**64, (count, 1), dtype=np.uint64) for count in (49_535, 500_000))
    queries[:1000] = hashes[:1000] ^ np.uint64(0b1011 << 30)
    index = HammingIndex(hashes, 64, 4)
    start = time.perf_counter()
    found = index.search(queries)
    searched = time.perf_counter() - start
    sample = 2000
    start = time.perf_counter()
    expected = [np.flatnonzero(hamming(hashes, query[None]) <= 4) for query in queries[:sample]]
    compared = (time.perf_counter() - start) * len(queries) / sample
    assert found.query[found.query < sample].tolist() == [row for row, it in enumerate(expected) for _ in it]
    assert found.entry[found.query < sample].tolist() == [entry for it in expected for entry in it]
    assert compared / searched > 50  # measured: near 300


# --- pictures


@pytest.fixture
def sets(tmp_path):
    """A benchmark of three pictures; of the first two there are copies in training, small and as JPEG."""
    one, two, three = (picture(seed) for seed in (1, 2, 3))
    folder_of(tmp_path / "bench", one=one, two=two, three=three)
    folder_of(tmp_path / "train/deep", small=one.resize((48, 36)), other=picture(4))
    two.save(tmp_path / "train/two.jpg", quality=60)
    return tmp_path / "bench", tmp_path / "train"


def test_copies_are_found_with_their_distance_and_the_nearest_come_first(sets, tmp_path):
    summary = audit([sets[0]], [sets[1]], tmp_path / "out")
    found = pairs(tmp_path / "out")
    assert {(one, other) for one, other, _ in found} == {("one.png", "deep/small.png"), ("two.png", "two.jpg")}
    assert [bits for _, _, bits in found] == sorted(bits for _, _, bits in found)
    assert summary.num_pairs == 2
    (overlap,) = [each for each in summary.overlaps if each.training is not None]
    assert (overlap.pictures, overlap.found[-1], overlap.exact) == (3, 2, 0)
    assert overlap.found == [sum(bits <= most for _, _, bits in found) for most in range(5)]
    shares = {(row["training"], row["within_bits"]): row["share"] for row in rows_of(tmp_path / "out/summary.csv")}
    assert shares[str(sets[1]), "4"] == shares["all", "4"] == "0.6667"


def test_distances_are_those_of_the_library(sets, tmp_path):
    import imagehash

    for name, function in HASHES.items():
        audit([sets[0]], [sets[1]], tmp_path / name, hash=name, threshold=16)
        for ours, theirs, bits in pairs(tmp_path / name):
            one, other = (load_image(folder / file) for folder, file in zip(sets, (ours, theirs), strict=True))
            assert bits == getattr(imagehash, function)(one) - getattr(imagehash, function)(other)
        assert ("one.png", "deep/small.png") in [pair[:2] for pair in pairs(tmp_path / name)]


def test_the_same_file_is_told_from_a_near_duplicate(sets, tmp_path):
    (sets[1] / "same.png").write_bytes((sets[0] / "three.png").read_bytes())
    load_image(sets[0] / "three.png").save(sets[1] / "again.png", compress_level=1)
    summary = audit([sets[0]], [sets[1]], tmp_path / "out")
    exact = {row["training_picture"]: row["exact"] for row in rows_of(tmp_path / "out/pairs.csv")}
    assert (exact["same.png"], exact["again.png"]) == ("yes", "no")
    assert pairs(tmp_path / "out")[0] == ("three.png", "same.png", 0)
    assert summary.overlaps[0].exact == 1


def test_several_benchmarks_and_training_sets_are_counted_apart_and_together(sets, tmp_path):
    second = folder_of(tmp_path / "second", three=picture(3))
    summary = audit([sets[0], second], [sets[1], second], tmp_path / "out")
    counted = {(each.benchmark, each.training): (each.found[-1], each.pictures) for each in summary.overlaps}
    ours, other = str(sets[0]), str(second)
    assert counted == {
        (ours, str(sets[1])): (2, 3),
        (ours, other): (1, 3),
        (ours, None): (3, 3),
        (other, str(sets[1])): (0, 1),
        (other, other): (1, 1),
        (other, None): (1, 1),
    }


def test_broken_missing_and_foreign_files_are_counted_and_listed(sets, tmp_path):
    bench, train = sets
    (bench / "cut.png").write_bytes((bench / "one.png").read_bytes()[:200])
    (train / "notes.txt").write_text("no picture")
    (train / "empty.jpg").write_bytes(b"")
    (train / "linked").symlink_to(bench, target_is_directory=True)
    (train / "gone.png").symlink_to(train / "nowhere.png")
    summary = audit([bench], [train], tmp_path / "out")
    assert left_out(tmp_path / "out") == {
        "cut.png": "broken",
        "notes.txt": "not a picture",
        "linked": "not a picture",
        "empty.jpg": "broken",
        "gone.png": "missing",
    }
    assert summary.benchmarks[0].pictures == 4  # a picture that cannot be read is one of the benchmark's all the same
    assert summary.benchmarks[0].left_out == {"broken": 1}
    assert summary.training[0].left_out == {"broken": 1, "missing": 1, "not a picture": 2}
    assert summary.overlaps[0].pictures == 4
    again = audit([bench], [train], tmp_path / "out")
    assert again == summary
    assert left_out(tmp_path / "out")["cut.png"] == "broken"


def test_flat_pictures_match_nothing_but_the_same_file(tmp_path):
    flat = {"white": Image.new("RGB", (60, 40), "white"), "grey": Image.new("RGB", (80, 80), (120, 120, 120))}
    slope = Image.fromarray(np.tile(np.arange(200, 0, -2, dtype=np.uint8), (50, 1)))  # every bit of its dhash is 0
    bench = folder_of(tmp_path / "bench", real=picture(1), slope=slope, **flat)
    train = folder_of(tmp_path / "train", real=picture(1), black=Image.new("RGB", (60, 40)))
    (train / "white.png").write_bytes((bench / "white.png").read_bytes())
    summary = audit([bench], [train], tmp_path / "out")
    assert pairs(tmp_path / "out") == [("real.png", "real.png", 0), ("white.png", "white.png", 0)]
    reasons = [(row["role"], row["name"], row["reason"]) for row in rows_of(tmp_path / "out/left_out.csv")]
    assert sorted(reasons) == [
        *(("benchmark", name, "no information") for name in ("grey.png", "slope.png", "white.png")),
        *(("training", name, "no information") for name in ("black.png", "white.png")),
    ]
    assert summary.overlaps[0].found == [2] * 5
    audit([bench], [train], tmp_path / "phash", hash="phash")
    assert ("grey.png", "black.png") not in [pair[:2] for pair in pairs(tmp_path / "phash")]


def test_orientation_and_transparency_are_those_that_a_model_is_shown(tmp_path):
    upright = picture(7)
    bench = folder_of(tmp_path / "bench", upright=upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    train = tmp_path / "train"
    train.mkdir()
    upright.transpose(Image.Transpose.ROTATE_90).save(train / "turned.jpg", exif=exif, quality=95)
    audit([bench], [train], tmp_path / "out")
    assert [pair[:2] for pair in pairs(tmp_path / "out")] == [("upright.png", "turned.jpg")]


# --- forms of sets


def test_records_in_both_forms_name_pictures_once(sets, tmp_path, write_jsonl):
    bench, train = sets
    llava = write_jsonl(
        asked("two.jpg", "What?", "This."),
        asked("two.jpg", "Why?", "So."),
        asked("lost.jpg", "What?", "Gone."),
        asked(None, "No picture?", "None."),
        "{broken",
        name="llava.jsonl",
    )
    summary = audit([bench], [llava], tmp_path / "out", images=[train])
    assert [pair[:2] for pair in pairs(tmp_path / "out")] == [("two.png", "two.jpg")]
    assert (summary.training[0].kind, summary.training[0].pictures) == ("records", 2)
    assert left_out(tmp_path / "out") == {"lost.jpg": "missing", "llava.jsonl:5": "bad record"}
    chat = {
        "images": ["deep/small.png"],
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
    }
    (tmp_path / "chat.json").write_text(json.dumps([chat]))
    audit([bench], [tmp_path / "chat.json"], tmp_path / "chat", images=[bench, train])
    assert [pair[:2] for pair in pairs(tmp_path / "chat")] == [("one.png", "deep/small.png")]


def test_records_of_an_array_are_named_by_their_number_and_each_bad_one_is_counted(sets, tmp_path):
    question = "How many red trains can be seen in the picture?"
    bad = {"id": "bad", "conversations": []}
    rows = [bad, bad, asked("two.jpg", question, "Two."), bad, bad, asked("deep/small.png", question, "One."), bad]
    bench = write_lines(sets[0] / "rows.jsonl", benchmark_row(0, question, ["1", "2"], 1, filename="two.png"))
    lines = write_lines(tmp_path / "records.jsonl", *rows)
    array = tmp_path / "records.json"
    array.write_text(json.dumps(rows))  # all on one line
    by_line = audit([bench], [lines], tmp_path / "lines", images=[sets[1]])
    by_number = audit([bench], [array], tmp_path / "array", images=[sets[1]])
    assert by_number.training[0].left_out == by_line.training[0].left_out == {"bad record": 5}
    assert list(left_out(tmp_path / "lines")) == [f"records.jsonl:{number}" for number in (1, 2, 4, 5, 7)]
    assert list(left_out(tmp_path / "array")) == [f"records.json, record {number}" for number in (1, 2, 4, 5, 7)]
    for name, place in (("lines", "records.jsonl:3"), ("array", "records.json, record 3")):
        assert [row["training_location"] for row in rows_of(tmp_path / name / "text.csv")] == [place]
        assert f"({place})" in (tmp_path / name / "index.html").read_text()


def test_rows_of_an_array_are_named_by_their_number_too(sets, tmp_path):
    rows = [benchmark_row(number, "What is it?", ["a"], 0, filename=None) for number in range(3)]
    rows += [benchmark_row(3, "What is it?", ["a"], 0, filename="one.png")]
    bench = sets[0] / "rows.json"
    bench.write_text(json.dumps(rows))
    train = write_lines(tmp_path / "records.jsonl", asked("two.jpg", "What is it?", "a"))
    summary = audit([bench], [train], tmp_path / "out", images=[sets[1]])
    assert summary.benchmarks[0].left_out == {"bad record": 3}
    assert list(left_out(tmp_path / "out")) == [f"rows.json, record {number}" for number in (1, 2, 3)]
    assert [row["question_location"] for row in rows_of(tmp_path / "out/text.csv")] == ["rows.json, record 4"]


def test_paths_of_records_stay_in_their_folder(sets, tmp_path, write_jsonl):
    records = write_jsonl(asked("../bench/one.png", "What?", "This."), asked("two.jpg", "What?", "This."))
    audit([sets[0]], [records], tmp_path / "out", images=[sets[1]])
    (row,) = rows_of(tmp_path / "out/left_out.csv")
    assert row["reason"] == "missing"
    assert 'leaves its folder through ".."' in row["detail"]


def test_parquet_is_read_in_every_form_that_holds_pictures(sets, tmp_path):
    bench, train = sets
    files = [*sorted(train.rglob("*.png")), train / "two.jpg"]
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    forms = {
        "struct": pa.table({"image": pa.array([*cells, None], cell)}),
        "list": pa.table({"images": pa.array([cells[:2], None, [cells[2]], []], pa.list_(cell))}),
        "bytes": pa.table({"jpg": pa.array([each["bytes"] for each in cells])}),
        "path": pa.table({"image": pa.array([file.relative_to(train).as_posix() for file in files])}),
        "two": pa.table({"image_1": pa.array(cells, cell), "image_2": pa.array(cells[::-1], cell)}),
    }
    for name, table in forms.items():
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
        audit([bench], [tmp_path / f"{name}.parquet"], tmp_path / name, images=[train])
    assert [pair[:2] for pair in pairs(tmp_path / "struct")] == [
        ("one.png", "struct.parquet:2"),
        ("two.png", "struct.parquet:3"),
    ]
    assert [pair[1] for pair in pairs(tmp_path / "list")] == ["list.parquet:1[1]", "list.parquet:3[0]"]
    assert [pair[1] for pair in pairs(tmp_path / "bytes")] == ["bytes.parquet:2", "bytes.parquet:3"]
    assert [pair[1] for pair in pairs(tmp_path / "path")] == ["deep/small.png", "two.jpg"]
    assert {pair[1] for pair in pairs(tmp_path / "two")} == {
        *("two.parquet:2.image_1", "two.parquet:2.image_2", "two.parquet:3.image_1", "two.parquet:1.image_2"),
    }


def test_a_folder_of_parquet_files_is_one_set_and_cells_without_bytes_are_told(sets, tmp_path):
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content = (sets[1] / "two.jpg").read_bytes()
    for number, rows in enumerate(([{"bytes": content, "path": "a"}], [{"bytes": None, "path": "b"}])):
        (tmp_path / "shards").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": pa.array(rows, cell)}), tmp_path / f"shards/{number}.parquet")
    (tmp_path / "shards/deep").mkdir()
    (tmp_path / "shards/deep/more.tar").write_bytes(b"pictures, perhaps")
    summary = audit([sets[0]], [tmp_path / "shards"], tmp_path / "out")
    assert [pair[:2] for pair in pairs(tmp_path / "out")] == [("two.png", "0.parquet:1")]
    assert left_out(tmp_path / "out") == {"1.parquet:1": "missing", "deep/more.tar": "not a picture"}
    assert summary.training[0].pictures == 2


def test_a_folder_in_the_hubs_layout_is_a_benchmark_in_parquet_or_json_lines(sets, tmp_path):
    hub = tmp_path / "hub"
    folder_of(hub / "img", **{"0": picture(1), "1": picture(2)})
    rows = [benchmark_row(0, "How many trains?", ["1", "2"], 1), benchmark_row(1, "Where is the cat?", ["left"], 0)]
    write_lines(hub / "test_2d.jsonl", *rows)
    lines = audit([hub], [sets[1]], tmp_path / "lines")
    assert (lines.benchmarks[0].kind, lines.benchmarks[0].questions) == ("CV-Bench folder", 2)
    assert [pair[:2] for pair in pairs(tmp_path / "lines")] == [
        ("img/0.png", "deep/small.png"),
        ("img/1.png", "two.jpg"),
    ]
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": (hub / row["filename"]).read_bytes(), "path": row["filename"]} for row in rows], cell)
    table = pa.Table.from_pylist(rows).append_column("image", images)
    pq.write_table(table, hub / "test_2d.parquet")
    embedded = audit([hub], [sets[1]], tmp_path / "embedded")
    assert [each[1:] for each in pairs(tmp_path / "embedded")] == [each[1:] for each in pairs(tmp_path / "lines")]
    assert embedded.benchmarks == lines.benchmarks
    assert embedded.overlaps == lines.overlaps


def write_table(path: Path, *images: Image.Image) -> Path:
    """A Parquet file of pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [encoded(image) for image in images]}), path)
    return path


def test_a_folder_of_several_kinds_is_refused_with_what_to_name_instead(sets, tmp_path):
    snapshot = folder_of(tmp_path / "snapshot", logo=picture(8))
    (snapshot / "README.md").write_text("a data set")
    for number in (1, 2):
        write_table(snapshot / f"data/train-{number}.parquet", picture(number))
    beside = tmp_path / "beside"
    folder_of(beside / "imgs/deep", one=picture(1))
    records = write_lines(beside / "rec.jsonl", asked("imgs/deep/one.png", "What?", "This."))
    among = folder_of(tmp_path / "among", one=picture(1))
    write_lines(among / "rows.json", benchmark_row(0, "What?", ["a"], 0))
    tables = [write_table(tmp_path / f"tables/{number}.parquet", picture(number)) for number in range(5)]
    write_lines(tmp_path / "tables/rec.jsonl", "{broken", asked(None, "What?", "This."))
    for folder, held, instead in (
        (snapshot, "pictures (logo.png) and Parquet files (data/train-1.parquet)", str(snapshot / "data")),
        (beside, "pictures (imgs/deep/one.png) and records (rec.jsonl)", f"{beside / 'imgs/deep'}, {records}"),
        (among, "pictures (one.png) and records (rows.json)", str(among / "rows.json")),
        (tmp_path / "tables", "Parquet files (0.parquet) and records", ", ".join([*map(str, tables[:4]), "..."])),
    ):
        for benchmarks, training in (([sets[0]], [folder]), ([folder], [sets[1]])):
            with pytest.raises(DataError) as error:
                audit(benchmarks, training, tmp_path / "out")
            assert f"{folder} holds {held}" in str(error.value)
            assert f" Give instead {instead} (by repeating the option" in str(error.value)
    audit([sets[0]], [snapshot / "data", beside / "imgs/deep", records], tmp_path / "out", images=[beside])
    assert len(pairs(tmp_path / "out")) == 4


def test_annotations_beside_pictures_are_no_set_of_their_own(sets, tmp_path):
    annotations = {"info": {"messages": []}, "images": [], "annotations": []}
    (sets[1] / "plain.json").write_text(json.dumps(annotations))
    (sets[1] / "indented.json").write_text(json.dumps(annotations, indent=1))
    (sets[1] / "long.json").write_text(json.dumps(annotations | {"conversations": "x" * (1 << 20)}))
    (sets[1] / "words.json").write_text('["conversations"]')
    summary = audit([sets[0]], [sets[1]], tmp_path / "out")
    assert summary.training[0].left_out == {"not a picture": 4}
    assert summary.num_pairs == 2


# --- what boxes do


def test_pictures_with_boxes_are_found_against_what_they_were_drawn_on(assets, tmp_path):
    originals = assets / "coco/images"
    annotations = json.loads((assets / "coco/instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in annotations["images"]}
    rows = []
    for index, thing in enumerate(thing for thing in annotations["annotations"][::30] if not thing["iscrowd"]):
        left, top, width, height = thing["bbox"]
        name = names[thing["image_id"]]
        other = Box(left / 2, top / 2, left / 2 + width, top / 2 + height)
        boxes = {"red": Box(left, top, left + width, top + height), "blue": other}
        (tmp_path / "bench/img").mkdir(parents=True, exist_ok=True)
        draw_boxes(load_image(originals / name), boxes).save(tmp_path / f"bench/img/{index}.png", compress_level=1)
        rows.append(benchmark_row(index, "Where?", ["left", "right"], 0, source_filename=name))
        if len(rows) == 12:
            break
    rows.append(benchmark_row(12, "Where?", ["left", "right"], 0, source_filename="not_there.jpg"))
    draw_boxes(picture(1), {}).save(tmp_path / "bench/img/12.png")
    write_lines(tmp_path / "bench/test_2d.jsonl", *rows)
    summary = audit([tmp_path / "bench"], [originals], tmp_path / "out", source_images=[originals])
    assert summary.overlaps[0].found[-1] == 12
    assert summary.overlaps[0].exact == 12  # the file under the boxes is in training
    assert summary.benchmarks[0].sources_left_out == {"missing": 1}
    (drawing,) = summary.drawings
    assert sum(drawing.bits.values()) == 12
    assert max(drawing.bits) <= 4
    for row in rows_of(tmp_path / "out/pairs.csv"):
        assert row["distance"] == row["distance_source"] == "0"
        assert 0 <= int(row["distance_shown"]) <= 4
    alone = audit([tmp_path / "bench"], [originals], tmp_path / "alone")
    assert alone.overlaps[0].found[-1] == 12  # drawn on as they are
    assert alone.overlaps[0].exact == 0
    assert alone.drawings == []


def changed(image: Image.Image) -> dict[str, Image.Image]:
    """Copies as they occur in training sets."""
    width, height = image.size
    small = image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    return {
        "recompressed": Image.open(io.BytesIO(encoded(image, "JPEG"))),
        "resized": small,
        "cropped": image.crop((width // 10, height // 10, width - width // 10, height - height // 10)),
        "mirrored": ImageOps.mirror(image),
    }


def test_which_copies_of_real_pictures_are_found(assets):
    method = to_method("dhash", 8)
    files = [*sorted((assets / "photos").glob("*.jpg")), *sorted((assets / "coco/images").glob("*.jpg"))[::3]]
    originals = [load_image(file) for file in files]
    hashes = np.stack([hash_bits(image, method) for image in originals])
    copies = [changed(image) for image in originals]
    distances = {
        name: hamming(hashes, np.stack([hash_bits(copy[name].convert("RGB"), method) for copy in copies]))
        for name in copies[0]
    }
    assert (distances["recompressed"] <= method.default_threshold).all()
    assert (distances["resized"] <= method.default_threshold).all()
    assert (distances["cropped"] > method.default_threshold).mean() > 0.9  # says the documentation
    assert (distances["mirrored"] > method.default_threshold).all()  # likewise
    others = [hamming(hashes[index + 1 :], row[None]) for index, row in enumerate(hashes[:-1])]
    assert np.concatenate(others).min() > 2 * method.default_threshold


# --- cache, processes, killing


def test_a_second_run_reads_no_picture_again_unless_it_has_changed(sets, tmp_path):
    first = audit([sets[0]], [sets[1]], tmp_path / "out")
    before = written(tmp_path / "out")
    file = sets[1] / "two.jpg"
    state, content = file.stat(), file.read_bytes()
    file.write_bytes(b"x" * len(content))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = audit([sets[0]], [sets[1]], tmp_path / "out", pairs_shown=0)
    assert again == first
    assert written(tmp_path / "out")["pairs.csv"] == before["pairs.csv"]
    os.utime(file)  # now it is another file
    audit([sets[0]], [sets[1]], tmp_path / "out")
    assert left_out(tmp_path / "out") == {"two.jpg": "broken"}
    assert len(list((tmp_path / "out/hashes/dhash-8").iterdir())) == 1


def test_another_hash_has_a_cache_of_its_own(sets, tmp_path):
    audit([sets[0]], [sets[1]], tmp_path / "out")
    audit([sets[0]], [sets[1]], tmp_path / "out", hash="phash", hash_size=16)
    assert sorted(path.name for path in (tmp_path / "out/hashes").iterdir()) == ["dhash-8", "phash-16"]
    audit([sets[0]], [sets[1]], tmp_path / "fresh", hash="phash", hash_size=16)
    assert written(tmp_path / "out") == written(tmp_path / "fresh")


def test_a_damaged_file_of_hashes_is_named(sets, tmp_path):
    audit([sets[0]], [sets[1]], tmp_path / "out")
    (file,) = (tmp_path / "out/hashes/dhash-8").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{file.name}: cannot be read .*delete it, and its pictures are hashed again"):
        audit([sets[0]], [sets[1]], tmp_path / "out")


def test_the_number_of_processes_changes_nothing(tmp_path):
    pictures = {f"{seed:03d}": picture(seed % 200, (24, 18)) for seed in range(560)}
    train = folder_of(tmp_path / "train", **pictures)
    for number in (7, 300, 520):
        (train / f"{number:03d}.png").write_bytes(b"broken")
    (train / "notes.txt").write_text("no picture")
    bench = folder_of(tmp_path / "bench", **{name: pictures[name] for name in list(pictures)[:20]})
    audit([bench], [train], tmp_path / "one")
    audit([bench], [train], tmp_path / "two", processes=2)
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert len(pairs(tmp_path / "one")) > 40


def test_a_killed_audit_keeps_its_finished_batches(tmp_path):
    train = folder_of(tmp_path / "train", **{f"{seed:04d}": picture(seed, (40, 30)) for seed in range(800)})
    bench = folder_of(tmp_path / "bench", one=picture(5))
    out = tmp_path / "out"
    code = "import sys; from pathlib import Path; from cambrian_data.leakage import audit\n"
    code += "audit([Path(sys.argv[1])], [Path(sys.argv[2])], Path(sys.argv[3]))"
    running = subprocess.Popen([sys.executable, "-c", code, bench, train, out])
    hashes = out / "hashes/dhash-8"
    while len(list(hashes.glob("*.npz"))) < 2:
        assert running.poll() is None, "ended before it could be killed"
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (out / "leakage.json").exists()
    kept = {path.name: path.read_bytes() for path in hashes.glob("*.npz")}
    assert len(kept) >= 2
    held = sum(len(np.load(hashes / name, allow_pickle=False)["prints"]) for name in kept)
    assert held >= 1 + 256
    audit([bench], [train], out)
    audit([bench], [train], tmp_path / "undisturbed")
    assert written(out) == written(tmp_path / "undisturbed")


# --- questions


def test_containment_is_the_share_of_ngrams_in_one_text():
    question = "one two three four five six seven eight nine ten"  # three 8-grams
    index = WordingIndex([question, "what else is there"], 8, 0.5)
    (hit,) = index.hits("Zero, ONE two three: four five six seven eight nine! eleven")
    assert (hit.wording, round(hit.containment, 3), hit.same) == (0, 0.667, False)
    assert index.hits("one two three four five six seven eight") == []  # a third is not enough
    assert index.hits("one two three four x five six seven eight nine ten") == []
    (hit,) = index.hits(question.upper() + "?")
    assert (hit.containment, hit.same) == (1.0, True)


def test_questions_shorter_than_an_ngram_must_be_the_same():
    index = WordingIndex(["How many trains are in the image?"], 8, 0.7)
    assert index.is_short(0)
    assert [hit.same for hit in index.hits("how many trains are in the image")] == [True]
    (hit,) = index.hits("How many trains are in the image? Select from the following choices.\n(A) 1\n(B) 2")
    assert hit.same
    assert index.hits("How many trains are in the image of the station?") == []
    assert index.hits("how many brown trains are in the image") == []


def test_the_wording_of_a_template_alone_is_no_hit():
    questions = [WHICH.format(one, other) for one, other in (("sink", "bottle"), ("car", "bus"), ("bed", "lamp"))]
    index = WordingIndex(questions, 8, 0.7)
    assert index.hits(WHICH.format("dog", "cat")) == []
    assert index.hits(WHICH.format("sink", "lamp")) == []
    (hit,) = index.hits("Look. " + WHICH.format("car", "bus"))
    assert (hit.wording, hit.containment, hit.own) == (1, 1.0, 1.0)


def test_words_are_compared_without_case_punctuation_and_look_alikes():
    assert to_words("Is the \uff23\uff21\uff34's hat, red?") == ("is", "the", "cat", "s", "hat", "red")
    assert same_answer(["the left"], ["It is on THE LEFT."]) is True
    assert same_answer(["2"], ["There are 12."]) is False
    assert same_answer([], ["2"]) is None


def test_answers_are_words_whatever_the_letters_stand_for():
    row = {"question": "How many?", "choices": ["3", "2"], "answer": "(B)"}
    (benchmark,) = exchanges_of_row(row, "here", ())
    assert benchmark.answers == ("2",)
    turns = [
        {"from": "human", "value": "<image>How many?\n(A) 2\n(B) 5"},
        {"from": "gpt", "value": "A"},
        {"from": "human", "value": "Really?"},
    ]
    told = list(exchanges_of_row({"conversations": turns}, "there", ("a.png",)))
    assert [each.answers for each in told] == [("2",), ()]
    assert told[0].links == ("a.png",)


@pytest.mark.parametrize(
    ("choices", "answer", "expected"),
    [
        (["1", "0", "3", "2"], 1, "1"),
        ([1, 0, 3, 2], 2, "2"),
        (["one", "none", "three"], 1, "none"),
        (["1", "2"], 0, "1"),
        (["1", "2"], 7, "7"),
        (["no", "yes"], "B", "yes"),
        (["C", "B", "A"], "A", "A"),
        (["C", "B", "A"], "(A)", "C"),
    ],
)
def test_an_answer_that_is_a_choice_is_no_place_among_the_choices(choices, answer, expected):
    (exchange,) = exchanges_of_row({"question": "How many?", "choices": choices, "answer": answer}, "here", ())
    assert exchange.answers == (expected,)


def test_a_count_given_as_a_number_is_the_answer(tmp_path):
    bench = folder_of(tmp_path / "bench", one=picture(1))
    row = {"filename": "one.png", "question": "How many cats are there?", "choices": ["1", "0", "3", "2"], "answer": 1}
    train = write_lines(bench / "train.jsonl", asked("one.png", "How many cats are there?", "1"))
    summary = audit([write_lines(bench / "rows.jsonl", row)], [train], tmp_path / "out")
    assert (summary.questions[0].with_picture, summary.questions[0].with_answer) == (1, 1)


def test_questions_are_counted_by_wording_picture_and_answer(tmp_path):
    bench, train = tmp_path / "bench", tmp_path / "train"
    folder_of(bench / "img", **{str(seed): picture(seed) for seed in range(4)})
    write_lines(
        bench / "test_3d.jsonl",
        benchmark_row(0, WHICH.format("sink", "bottle"), ["sink", "bottle"], 0),
        benchmark_row(1, WHICH.format("sink", "bottle"), ["bottle", "sink"], 0),
        benchmark_row(2, WHICH.format("car", "bus"), ["car", "bus"], 1),
        benchmark_row(3, "How many cats are there?", ["1", "2"], 1),
    )
    folder_of(train, a=picture(0, (60, 40)), c=picture(2, (60, 40)), x=picture(9))
    write_lines(
        train / "records.jsonl",
        asked("a.png", WHICH.format("sink", "bottle") + "\n(A) bottle\n(B) sink", "B"),  # the question of picture 0
        asked("c.png", WHICH.format("car", "bus"), "The car."),  # that of picture 2, answered otherwise
        asked("x.png", "How many cats are there? Answer with a number.", "2"),
        asked("x.png", "What is this?", "Nothing."),
    )
    summary = audit([bench], [train / "records.jsonl"], tmp_path / "out")
    (counted,) = summary.questions
    assert (counted.questions, counted.short, counted.worded, counted.same) == (4, 1, 4, 4)
    assert (counted.with_picture, counted.with_answer, counted.training_questions) == (2, 1, 3)
    rows = rows_of(tmp_path / "out/text.csv")
    told = [
        (row["question_location"], row["training_location"], row["same_picture"], row["same_answer"]) for row in rows
    ]
    assert told == [
        ("test_3d.jsonl:1", "records.jsonl:1", "yes", "yes"),
        ("test_3d.jsonl:3", "records.jsonl:2", "yes", "no"),
        ("test_3d.jsonl:2", "records.jsonl:1", "no", "no"),
        ("test_3d.jsonl:4", "records.jsonl:3", "no", "yes"),
    ]
    assert [row["containment"] for row in rows] == ["1.0000"] * 4


def test_questions_are_read_from_parquet_too(tmp_path):
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": encoded(picture(seed)), "path": None} for seed in (1, 2)], cell)
    question = "How many red trains can be seen in the picture?"
    bench = pa.table({"image": images, "question": [question, "What is it?"], "answer": ["2", "cat"]})
    turns = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": "2"}],
        [{"role": "user", "content": "?"}],
    ]
    train = pa.table({"images": pa.array([[images[0].as_py()], []], pa.list_(cell)), "messages": turns})
    pq.write_table(bench, tmp_path / "bench.parquet")
    pq.write_table(train, tmp_path / "train.parquet")
    summary = audit([tmp_path / "bench.parquet"], [tmp_path / "train.parquet"], tmp_path / "out")
    (counted,) = summary.questions
    assert (counted.worded, counted.with_picture, counted.with_answer) == (1, 1, 1)


# --- the page


def test_the_page_holds_its_pictures_runs_nothing_and_says_what_it_leaves_out(tmp_path):
    bench = folder_of(tmp_path / "<b>&bench", **{"<i>x": picture(1), "y": picture(2)})
    copies = {f"copy{number}": picture(1) for number in range(5)}
    train = folder_of(tmp_path / "train", **copies, small=picture(2).resize((30, 20)))
    (train / "<script>alert(1)<").mkdir()
    (train / "<script>alert(1)<" / "bad.png").write_bytes(b"no picture")
    audit([bench], [train], tmp_path / "out", pairs_shown=3)
    page = (tmp_path / "out/index.html").read_text()
    assert page.count('<div class="pair">') == 4
    assert page.count("data:image/jpeg;base64,") == 8
    assert "<h3>The same file: 5</h3>" in page
    assert "2 more stand in pairs.csv." in page
    assert page.index("The same file") < page.index("small.png")
    for harmful in ("<script", "<i>", "http:", "https:", 'src="/'):
        assert harmful not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;" in page


def test_the_page_fits_a_narrow_window_and_its_tables_scroll(browser, tmp_path):
    question = WHICH.format("sink", "bottle")
    bench = folder_of(tmp_path / "a benchmark/img", **{"0": picture(1), "1": Image.new("RGB", (60, 40))}).parent
    write_lines(bench / "test_3d.jsonl", *(benchmark_row(number, question, ["sink", "b"], 0) for number in (0, 1)))
    train = folder_of(tmp_path / "training", copy=picture(1).resize((60, 40)))
    records = write_lines(train / "records.jsonl", asked("copy.png", question, "sink"), asked("lost.png", "?", "!"))
    audit([bench], [records], tmp_path / "out")
    page = browser.new_page(viewport={"width": 380, "height": 800})
    page.goto((tmp_path / "out/index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    tables = page.locator("table")
    assert tables.count() == 5
    assert all(table.bounding_box()["width"] > 380 for table in tables.all()[:1])  # wider than the window: it scrolls
    for cell in page.locator("td.text").all():
        assert cell.bounding_box()["width"] >= 7 * 15  # not squeezed to a letter a line
    page.close()


# --- what can be wrong


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"hash": "dash"}, 'unknown perceptual hash "dash"; did you mean'),
        ({"hash_size": 1}, "hash size is 1; expected 2 to 32"),
        ({"hash": "whash", "hash_size": 12}, "power of two"),
        ({"threshold": 17}, "threshold is 17 bits; expected 0 to 16, a quarter of the 64 bits"),
        ({"threshold": -1}, "threshold is -1"),
        ({"ngram": 0}, "ngram is 0"),
        ({"text_threshold": 0.0}, "text threshold is 0.0"),
        ({"processes": 0}, "processes is 0"),
        ({"pairs_shown": -1}, "pairs shown is -1"),
        ({"images": [Path("nowhere")]}, "nowhere is no folder"),
    ],
)
def test_arguments_out_of_range_are_refused(sets, tmp_path, arguments, expected):
    with pytest.raises(DataError, match=expected):
        audit([sets[0]], [sets[1]], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_without_imagehash_nothing_is_begun(sets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)  # as if it were not installed
    with pytest.raises(DataError, match=r'needs ImageHash: pip install "cambrian-data\[leakage\]"'):
        audit([sets[0]], [sets[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_set_is_refused(sets, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": []}')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"number": [1]}), tmp_path / "numbers.parquet")
    for path, expected in {
        tmp_path / "nowhere": "there is no such file or folder",
        empty: "holds no files; expected pictures, Parquet files",
        tmp_path / "coco.json": 'has the keys .*"annotations".*; expected records',
        tmp_path / "bad.parquet": "cannot be read as Parquet",
        tmp_path / "numbers.parquet": "has the columns number; expected pictures",
    }.items():
        with pytest.raises(DataError, match=expected):
            audit([sets[0]], [path], tmp_path / "out")
    with pytest.raises(DataError, match="found 1 benchmarks and 0 training sets"):
        audit([sets[0]], [], tmp_path / "out")


def test_a_set_given_twice_is_refused_but_for_one_on_each_side(sets, tmp_path):
    bench, train = sets
    again = train / ".." / train.name
    with pytest.raises(DataError, match=f"training set {again} is given twice, once as {train}; once will do"):
        audit([bench], [train, again], tmp_path / "out")
    (tmp_path / "link").symlink_to(bench, target_is_directory=True)
    with pytest.raises(DataError, match=r"benchmark .*link is given twice, once as .*bench; once will do"):
        audit([bench, tmp_path / "link"], [train], tmp_path / "out")
    with pytest.raises(DataError, match=r"benchmark .*bench is given twice; once will do"):
        audit([bench, bench], [train], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert audit([bench], [bench, train], tmp_path / "out").num_pairs == 5


def test_a_set_of_which_nothing_can_be_read_is_refused(sets, tmp_path, write_jsonl):
    records = write_jsonl(asked("a.jpg", "?", "!"), asked("b.jpg", "?", "!"))
    with pytest.raises(DataError, match=r"none of its 2 pictures can be read; the first: a\.jpg: .*--images"):
        audit([sets[0]], [records], tmp_path / "out", images=[sets[1]])


def test_a_folder_of_something_else_is_not_written_to(sets, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no audit"):
        audit([sets[0]], [sets[1]], tmp_path / "mine")
    with pytest.raises(DataError, match="is a file"):
        audit([sets[0]], [sets[1]], tmp_path / "mine/thesis.txt")


def test_progress_is_told_for_each_set(sets, tmp_path):
    told = []
    audit([sets[0]], [sets[1]], tmp_path / "out", progress=lambda *it: told.append(it))
    assert [it for it in told if it[1] == it[2] and it[0].startswith("pictures")] == [
        (f"pictures of {sets[0]}", 3, 3),
        (f"pictures of {sets[1]}", 3, 3),
    ]
    assert all(done <= total for _, done, total in told)


def test_a_benchmark_of_questions_alone_needs_no_pictures(tmp_path, write_jsonl):
    bench = write_jsonl(asked(None, "How many legs has a spider?", "8"), name="bench.jsonl")
    train = write_jsonl(asked("lost.jpg", "How many legs has a spider?", "8"), "{broken", name="train.jsonl")
    summary = audit([bench], [train], tmp_path / "out")
    assert left_out(tmp_path / "out") == {"train.jsonl:2": "bad record"}
    assert (summary.training[0].pictures, summary.training[0].questions) == (None, 1)
    assert (summary.questions[0].same, summary.questions[0].with_picture) == (1, 0)


def test_a_process_that_is_killed_is_told(sets, tmp_path):
    def kill(label: str, done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(DataError, match=r"was killed, perhaps for want of memory; .*fewer --processes"):
        audit([sets[0]], [sets[1]], tmp_path / "out", processes=2, progress=kill)


def test_more_pairs_than_anybody_reads_are_refused(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_PAIRS", 1)
    with pytest.raises(DataError, match="more than 1 pairs within 4 bits; lower --threshold or raise --hash-size"):
        audit([sets[0]], [sets[1]], tmp_path / "out")


def test_names_that_are_no_text_are_written_all_the_same(sets, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(sets[1]) + b"/\xff.png"))
    odd.write_bytes((sets[0] / "three.png").read_bytes())
    audit([sets[0]], [sets[1]], tmp_path / "out")
    assert ("three.png", "\\udcff.png", 0) in pairs(tmp_path / "out")


def test_order_of_files_on_disk_does_not_matter(tmp_path):
    names = [f"{number:02d}" for number in range(12)]
    random.Random(0).shuffle(names)
    bench = folder_of(tmp_path / "bench", one=picture(3))
    train = folder_of(tmp_path / "train", **{name: picture(3) for name in names})
    audit([bench], [train], tmp_path / "out")
    assert [pair[1] for pair in pairs(tmp_path / "out")] == [f"{name}.png" for name in sorted(names)]
