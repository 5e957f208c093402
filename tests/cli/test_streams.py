"""Streams from files: the same records from JSON Lines, Parquet and tar files, resumable at any of them."""

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cambrian_cli.errors import CommandError
from cambrian_cli.streams import open_stream
from cambrian_model.errors import TrainingError
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import Sample
from cambrian_model.training.bad_samples import UnreadableSampleError
from cambrian_model.training.batches import Place, Share, StepData, StepEncoder, stream
from cambrian_model.training.packing import Limits
from cambrian_model.training.recipe.data import SourceSection
from cambrian_model.training.recipe.stage import BatchSection
from cambrian_model.training.streaming import MixedSource, StreamSchedule, Weighted
from tests.support.tiny_model import tiny_config
from tests.support.tokenizers import tiny_bytes


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def record(number: int, pictures: int = 1) -> dict[str, Any]:
    """A record in LLaVA's form; every other one without a picture lacks the key."""
    row: dict[str, Any] = {
        "id": f"r{number}",
        "conversations": [
            {"from": "human", "value": "<image>\n" * pictures + f"question {number}\u2028"},
            {"from": "gpt", "value": f"answer {number}"},
        ],
    }
    names = [f"pictures/{number}-{i}.png" for i in range(pictures)]
    return row | {"image": names[0] if pictures == 1 else names} if pictures else row


RECORDS = [record(number, pictures=number % 3) for number in range(11)]


def write_json(folder: Path) -> None:
    for shard, start in enumerate(range(0, 11, 4)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in RECORDS[start : start + 4]]
        (folder / f"part-{shard}.jsonl").write_text("\n".join(lines), encoding="utf-8")  # with empty lines between


def write_parquet(folder: Path) -> None:
    rows = [
        {
            "id": row["id"],
            "messages": [
                {"role": "user", "content": [*[{"type": "image", "text": None}] * (number % 3), text_of(row, 0)]},
                {"role": "assistant", "content": [text_of(row, 1)]},
            ],
            "images": [{"bytes": picture(number), "path": None}] * (number % 3),
        }
        for number, row in enumerate(RECORDS)
    ]
    for shard, start in enumerate(range(0, 11, 4)):
        pq.write_table(pa.Table.from_pylist(rows[start : start + 4]), folder / f"{shard}.parquet", row_group_size=3)


def text_of(row: Mapping[str, Any], turn: int) -> dict[str, str]:
    return {"type": "text", "text": row["conversations"][turn]["value"].replace("<image>\n", "")}


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def members_of(number: int, row: Mapping[str, Any], pictures: int) -> list[tuple[str, bytes]]:
    fields = [""] if pictures == 1 else [f"{i}." for i in range(pictures)]
    files = [(f"a/{number:03d}.{field}png", picture(number)) for field in fields]
    return [*files[:pictures], (f"a/{number:03d}.json", json.dumps(row).encode())]


def write_webdataset(folder: Path) -> None:
    for shard, start in enumerate(range(0, 11, 4)):
        rows = list(enumerate(RECORDS))[start : start + 4]
        write_tar(folder / f"{shard}.tar", [each for n, row in rows for each in members_of(n, row, n % 3)])


WRITERS = {"json": write_json, "parquet": write_parquet, "webdataset": write_webdataset}


def source_of(folder: Path, kind: str, seed: int = 0, **stream: str) -> Any:
    section = SourceSection.model_validate({"stream": {"path": str(folder), "format": kind, **stream}})
    return open_stream("mine", section, seed)


@pytest.fixture(params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "data [1]"  # brackets mean something in a pattern
    folder.mkdir()
    WRITERS[kind](folder)
    return folder


def number_of(item: Any) -> int:
    assert not isinstance(item, UnreadableSampleError), item
    return int(item["id"].removeprefix("r"))


def test_every_record_comes_once_with_its_text_and_pictures(folder, kind):
    found = {number_of(item): item for item in source_of(folder, kind)}

    assert sorted(found) == list(range(11))
    for number, item in found.items():
        content = item["messages"][0]["content"]
        texts = "".join(part["text"] for part in content if part["type"] == "text")
        assert texts.strip("\n") == f"question {number}\u2028"
        assert sum(part["type"] == "image" for part in content) == len(item["images"]) == number % 3
        if kind == "json":
            assert item["images"] == [str(folder / f"pictures/{number}-{i}.png") for i in range(number % 3)]
        else:
            assert item["images"] == [picture(number)] * (number % 3)


def test_a_stream_goes_on_behind_any_record_as_if_it_had_not_stopped(folder, kind):
    source = source_of(folder, kind)
    source.start(3)
    whole, states = [], []
    for item in source:
        whole.append(item)
        states.append(json.loads(json.dumps(source.state_dict())))

    for number, state in enumerate(states, start=1):
        again = source_of(folder, kind)
        again.load_state_dict(state)
        assert list(again) == whole[number:]


def test_shards_come_in_another_order_in_every_epoch_which_the_seed_decides(folder, kind):
    def order(seed: int, epoch: int) -> list[int]:
        source = source_of(folder, kind, seed)
        source.start(epoch)
        return [number_of(item) for item in source]

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed, epoch in itertools.product(range(3), range(3))}) > 3
    assert order(0, 0)[:4] in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, *order(0, 0)[3:4]])


def test_other_files_than_a_run_was_saved_with_are_refused(folder, kind):
    source = source_of(folder, kind)
    next(iter(source))
    state = source.state_dict()
    next(iter(sorted(folder.iterdir()))).unlink()

    with pytest.raises(TrainingError, match=r"files \(2 from .*\) are not those that the run was saved with"):
        source_of(folder, kind).load_state_dict(state)


def test_one_file_and_some_files_can_be_named(folder, kind):
    first = sorted(folder.iterdir())[0]

    assert sorted(number_of(item) for item in source_of(first, kind)) == [0, 1, 2, 3]
    some = source_of(folder, kind, files=f"*0{first.suffix}")
    assert sorted(number_of(item) for item in some) == [0, 1, 2, 3]


def errors_of(items: Iterable[Any]) -> list[str]:
    return [str(item) for item in items if isinstance(item, UnreadableSampleError)]


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        path = tmp_path / "records.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_a_bad_line_is_an_error_in_its_place_that_names_file_and_line(lines):
    good = json.dumps(record(1, 0))
    path = lines(good, "{", json.dumps({"id": 1, "text": "x"}), json.dumps(record(2, 1) | {"image": "../x.png"}), good)
    items = list(source_of(path, "json"))

    assert [isinstance(item, UnreadableSampleError) for item in items] == [False, True, True, True, False]
    broken, other_form, outside = errors_of(items)
    assert broken.startswith(f"{path}:2: malformed JSON")
    assert other_form.startswith(f'{path}:3: found the keys ["id", "text"]; expected "messages"')
    assert outside.startswith(f"{path}:4: image path '../x.png' leaves its folder")


def test_later_records_may_have_other_keys_and_types_than_the_first(lines):
    chat = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "images": []}
    path = lines(
        *(json.dumps(row) for row in (record(1, 0), record(2, 2) | {"id": 2}, chat, record(3, 0) | {"x": [1]}))
    )

    assert [item["id"] for item in source_of(path, "json")] == ["r1", 2, f"{path}:3", "r3"]


def test_one_json_array_is_refused_with_what_to_do(lines):
    path = lines(json.dumps([record(1, 0), record(2, 0)], indent=1))
    with pytest.raises(CommandError, match="one JSON array, which cannot be read in parts; write one record a line"):
        list(source_of(path, "json"))


def test_a_sample_of_a_tar_file_without_its_record_is_an_error_in_its_place(tmp_path):
    path = tmp_path / "a.tar"
    good = members_of(1, record(1, 1), 1)
    too_few = members_of(3, record(3, 2), 1)
    write_tar(path, [("readme", b"x"), ("a/000.png", picture(0)), ("a/000.txt", b"x"), *good, *too_few])
    items = list(source_of(path, "webdataset"))

    assert [isinstance(item, UnreadableSampleError) for item in items] == [True, False, True]
    assert errors_of(items) == [
        f"{path}:a/000: has png, txt but no json, which should hold its conversation",
        f"{path}:a/003: the conversation shows 2 images but names 1; the two must agree. Fix or remove the record",
    ]


@pytest.mark.parametrize("cut", [100, 512, 700, 1024])
def test_a_tar_file_that_was_cut_short_is_an_error_and_not_a_short_one(tmp_path, cut):
    path, whole = tmp_path / "a.tar", tmp_path / "whole.tar"
    write_tar(whole, [each for n in range(4) for each in members_of(n, record(n, 1), 1)])
    with tarfile.open(whole) as archive:
        last = archive.getmembers()[-2].offset
    path.write_bytes(whole.read_bytes()[: last + cut])
    source = source_of(path, "webdataset")
    items = list(source)

    assert [number_of(item) for item in items[:3]] == [0, 1, 2]
    assert f"{path}:after record a/00" in errors_of(items)[-1]
    assert "the rest of the file cannot be read" in errors_of(items)[-1]
    again = source_of(path, "webdataset")
    again.load_state_dict(source.state_dict())
    assert not list(again)  # the error is not met a second time


def test_a_parquet_file_that_is_none_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing of the kind")
    (message,) = errors_of(source_of(path, "parquet"))

    assert message.startswith(f"{path}:after its beginning: the rest of the file cannot be read")


def test_what_is_not_there_is_refused_with_what_to_set(tmp_path):
    with pytest.raises(CommandError, match=r"--set data.mine.stream.path=FOLDER"):
        open_stream("mine", SourceSection.model_validate({"stream": {"path": None}}), 0)
    with pytest.raises(CommandError, match=r"holds no \*.jsonl or \*.json; say with stream.files"):
        source_of(tmp_path, "json")
    with pytest.raises(CommandError, match='"nobody/nothing" is no folder here, and no data set that the hub gives'):
        source_of(Path("nobody/nothing"), "json")


def encoded(folder: Path, place: Place, rank: int, ranks: int, workers: int = 0) -> Iterator[StepData]:
    """The steps of one rank, which reads the folder as a new process would."""
    processor = CambrianProcessor.from_config(tiny_config(), tiny_bytes())
    batch = BatchSection(rows=2, row_tokens=110, max_images=4)
    nothing = torch.zeros(0, dtype=torch.long)
    empty = Sample(nothing, nothing, [torch.zeros(0, 3, 64, 64)] * 2, torch.zeros(0, 2, dtype=torch.long))
    encoder = StepEncoder([], processor, batch, 0, empty, Share(rank, ranks))
    source = MixedSource({"mine": Weighted(source_of(folder, "webdataset"))})
    limits = Limits(batch.row_tokens, batch.max_images)
    schedule = StreamSchedule(source, processor, limits, batch.rows, seed=0, window=5)
    return stream(encoder, schedule, place, workers)


def test_pictured_tar_files_are_trained_on_in_one_order_by_any_number_of_ranks_and_workers(tmp_path):
    write_webdataset(tmp_path)
    whole = list(itertools.islice(encoded(tmp_path, Place(), 0, 1), 8))
    stopped, rest = whole[1], whole[2:]

    first_epoch = [name for step in whole if step.epoch == 0 for name in step.ids]
    assert sorted(first_epoch) == sorted(f"r{number}" for number in range(11))
    assert {step.epoch for step in rest} >= {0, 1}
    assert sum(batch.images for step in whole if step.epoch == 0 for batch in step.batches) == sum(
        number % 3 for number in range(11)
    )
    ranks = [
        list(itertools.islice(encoded(tmp_path, stopped.next_place, rank, 2, workers=rank), len(rest)))
        for rank in range(2)
    ]
    for alone, *shares in zip(rest, *ranks, strict=True):
        assert sorted(alone.ids) == sorted(name for share in shares for name in share.ids)
        assert all(share.next_place == alone.next_place for share in shares)
        assert alone.supervised_tokens == sum(share.supervised_tokens for share in shares)
