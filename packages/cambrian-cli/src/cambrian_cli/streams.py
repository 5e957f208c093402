"""Streams of a recipe: JSON Lines, Parquet or WebDataset tar files, in a folder or on the hub, read record by record.

`datasets` reads JSON Lines and Parquet. JSON Lines go through its reader of plain text: its reader of JSON wants every
record to have the keys and types of the first ones, which records with and without pictures have not. Tar files are
read here, for the same reason, and because a member can be found again by its place in the file.
"""

import glob
import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from cambrian_cli.errors import CommandError
from cambrian_data import formats, images
from cambrian_data.errors import ImageError, RecordError
from cambrian_data.formats.rows import parse
from cambrian_data.records import Row
from cambrian_model.errors import TrainingError
from cambrian_model.training.bad_samples import UnreadableSampleError

if TYPE_CHECKING:
    from cambrian_model.training.index import Conversation
    from cambrian_model.training.recipe.data import SourceSection, StreamSection

HUB = "hf://"
FILES = {"json": ("*.jsonl", "*.json"), "parquet": ("*.parquet",), "webdataset": ("*.tar",)}
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")  # members of a tar file that are a sample's
MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # KEY.FIELD of WebDataset: the first dot of a file's name counts
BLOCK = 512  # bytes; what a tar file is made of, and ends with one of zeros
END: Mapping[str, Any] = {"end": True}  # stands behind the last record of a shard that breaks off
BROKEN = (ValueError, EOFError, tarfile.TarError)  # what readers raise for content that is not what it should be


class Numbered(NamedTuple):
    """A record of a shard.

    Attributes:
        name: What errors call it beside its shard: its line, its number or its key.
        row: Its keys and values, or what is wrong with it; None for an empty line.
        after: Where its reader stands behind it, as JSON.
    """

    name: str
    row: Row | RecordError | None
    after: Mapping[str, Any]


class Reader(Protocol):
    """Reads the records of one shard."""

    def __call__(self, shard: str, after: Mapping[str, Any] | None) -> Iterator[Numbered]:
        """Yields the records behind a place, or all of them."""


def open_stream(name: str, source: "SourceSection", seed: int) -> "ShardedSource":
    """Returns the conversations of a recipe's source with a section `stream`.

    The list of shards is made here, once; whoever reads it later asks the hub for their content alone.

    Args:
        name: Of the source in the recipe.
        source: Its section; relative image paths begin in its folder `images`, or else in that of the stream.
        seed: Of the order of the shards, which is another one in every epoch.

    Raises:
        CommandError: The recipe leaves the path open, or nothing is there.
    """
    section = source.stream
    assert section is not None, "the source is no stream"
    if section.path is None:
        raise CommandError(
            f"the recipe leaves data.{name} to you: --set data.{name}.stream.path=FOLDER, or the name of a data set on "
            "the hub."
        )
    path = Path(section.path)
    folder = Path(source.images) if source.images else path.parent if path.is_file() else path
    return ShardedSource(list_shards(section), READERS[section.format], folder, seed)


def list_shards(section: "StreamSection") -> list[str]:
    """Returns the files of a stream in the order of their names: paths, or addresses on the hub with their revision.

    Raises:
        CommandError: There are none, or the hub cannot be asked.
    """
    folder = Path(section.path or "")
    if not folder.exists():
        return _list_on_hub(str(section.path), section)
    globs = (section.files,) if section.files else FILES[section.format]
    found = [folder] if folder.is_file() else sorted({file for each in globs for file in folder.rglob(each)})
    if not found:
        raise CommandError(f"{folder}: holds no {' or '.join(globs)}; say with stream.files which files are meant.")
    return [str(file) for file in found]


def _list_on_hub(path: str, section: "StreamSection") -> list[str]:
    try:
        builder = _datasets().load_dataset_builder(path, data_files=section.files)
    except (OSError, ValueError) as error:
        raise CommandError(
            f'"{path}" is no folder here, and no data set that the hub gives ({error}); name a folder, or be online.'
        ) from error
    files = builder.config.data_files or {}
    if section.split not in files:
        raise CommandError(f'"{path}" has no split "{section.split}"; it has {", ".join(map(str, files)) or "none"}.')
    return [str(file) for file in files[section.split]]


class ShardedSource:
    """The records of several files as conversations; the files come in another order in every epoch.

    Args:
        shards: Paths, or addresses on the hub.
        reader: Of their format.
        images: Folder in which relative image paths begin.
        seed: Of the order.
    """

    def __init__(self, shards: Sequence[str], reader: Reader, images: Path, seed: int) -> None:
        self._shards, self._reader, self._images, self._seed = list(shards), reader, images, seed
        names = [shard if shard.startswith(HUB) else Path(shard).name for shard in shards]
        self._fingerprint = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        self.start(0)

    def start(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        self._epoch, self._shard = epoch, 0
        self._after: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator["Conversation | UnreadableSampleError"]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._shards)).tolist()
        while self._shard < len(order):
            shard = self._shards[order[self._shard]]
            for record in self._records(shard):
                self._after = record.after
                if record.row is not None:
                    yield self._conversation(shard, record)
            self._shard, self._after = self._shard + 1, None

    def state_dict(self) -> dict[str, Any]:
        """Returns where the source stands."""
        return {"epoch": self._epoch, "shard": self._shard, "after": self._after, "shards": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a source of the same shards stood.

        Raises:
            TrainingError: The shards are others.
        """
        if state["shards"] != self._fingerprint:
            raise TrainingError(
                f"the stream's files ({len(self._shards)} from {self._shards[0]} on) are not those that the run was "
                "saved with; continue with the same files, or start a new run"
            )
        self._epoch, self._shard, self._after = state["epoch"], state["shard"], state["after"]

    def _records(self, shard: str) -> Iterator[Numbered]:
        if self._after == END:
            return
        name = "its beginning"
        try:
            for record in self._reader(shard, self._after):
                name = f"record {record.name}"
                yield record
        except CommandError:
            raise
        except BROKEN as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            yield Numbered(f"after {name}", RecordError(f"the rest of the file cannot be read: {cause}."), END)
        except OSError as error:
            raise CommandError(f"{shard}: cannot be read after {name} ({error}).") from error

    def _conversation(self, shard: str, record: Numbered) -> "Conversation | UnreadableSampleError":
        place = f"{shard}:{record.name}"
        try:
            if isinstance(record.row, RecordError):
                raise record.row
            return as_conversation(record.row or {}, place, self._images)
        except RecordError as error:
            return UnreadableSampleError(place, error.problem.rstrip("."))
        except ImageError as error:
            return UnreadableSampleError(place, str(error).rstrip("."))


def as_conversation(row: Row, place: str, folder: Path) -> "Conversation":
    """Returns a row in LLaVA's or chat form as training takes it, its pictures as paths or bytes, none opened.

    Raises:
        RecordError: It is in no form we know.
        ImageError: An image path leads out of the folder.
    """
    record = formats.recognise(row, Path(place), 0).to_record(row, place)
    return {
        "id": place if record.id is None else record.id,
        "source": record.source,
        "messages": record.messages,
        "images": [it if isinstance(it, bytes) else str(images.locate(folder, it)) for it in record.images],
        "location": place,
    }


def read_json_lines(shard: str, after: Mapping[str, Any] | None) -> Iterator[Numbered]:
    """Yields the lines of a file of JSON Lines.

    Raises:
        CommandError: It is one JSON array.
    """
    for number, example, place in _read_with_datasets("text", shard, after):
        content = example["text"].removeprefix("\ufeff").strip()
        if number == 1 and content.startswith("["):
            raise CommandError(
                f"{shard}: is one JSON array, which cannot be read in parts; write one record a line, or name the file "
                "as records instead of stream."
            )
        row = parse(content.encode(), Path(shard), number, ended=True) if content else None
        yield Numbered(str(number), row, place)


def read_parquet(shard: str, after: Mapping[str, Any] | None) -> Iterator[Numbered]:
    """Yields the rows of a Parquet file; a column of pictures gives their bytes, or their paths."""
    for number, example, place in _read_with_datasets("parquet", shard, after):
        row = _without_nulls(example)
        for key in ("image", "images"):
            if key in row:
                cells = row[key] if isinstance(row[key], list) else [row[key]]
                row[key] = [_picture(cell) for cell in cells]
        yield Numbered(str(number), row, place)


def read_tar(shard: str, after: Mapping[str, Any] | None) -> Iterator[Numbered]:
    """Yields the samples of a WebDataset tar file: members that follow each other and share their KEY.

    KEY.json holds the record, KEY.jpg its picture, or KEY.0.jpg, KEY.1.jpg and so on; these take the place of the
    paths that the record may name.
    """
    with _opened(shard) as file:
        file.seek(after["offset"] if after else 0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            key, fields = "", dict[str, bytes]()
            for member in _members(archive):
                found = MEMBER.fullmatch(member.name)
                if found is None:
                    continue  # by WebDataset's rule a name without a dot belongs to no sample
                if fields and found[1] != key:
                    yield Numbered(key, _row_of(key, fields), {"offset": member.offset})
                    fields = {}
                key, field = found[1], found[2].lower()
                if field in fields:
                    raise ValueError(f"{key} has two members {field}")
                fields[field] = _content(archive, member)
            if fields:
                yield Numbered(key, _row_of(key, fields), {"offset": archive.offset})
            _check_end(archive, file)


READERS: Mapping[str, Reader] = {"json": read_json_lines, "parquet": read_parquet, "webdataset": read_tar}


def _read_with_datasets(
    reader: str, shard: str, after: Mapping[str, Any] | None
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yields number, content and place of every record, with pictures as they lie in the file."""
    file = shard if shard.startswith(HUB) else glob.escape(shard)
    dataset = _datasets().load_dataset(reader, data_files=[file], split="train", streaming=True)
    if dataset.features is not None:  # text has none
        dataset = dataset.decode(False)
    number = 0
    if after is not None:
        number = after["number"]
        dataset.load_state_dict(after["reader"])
    for example in dataset:
        number += 1
        yield number, example, {"number": number, "reader": dataset.state_dict()}


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise CommandError('streams need the package datasets: pip install "cambrian-model[stream]".') from error
    return datasets


def _without_nulls(value: Any) -> Any:
    """Returns a cell without the keys that Parquet adds where other rows have them."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _picture(cell: Any) -> Any:
    """Returns the bytes or the path in the struct that `datasets` keeps a picture as; anything else as it is."""
    return cell.get("bytes") or cell.get("path") if isinstance(cell, dict) else cell


def _opened(shard: str) -> BinaryIO:
    if not shard.startswith(HUB):
        return Path(shard).open("rb")
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(shard, "rb")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it would keep all of them in memory
        if member.isfile():
            yield member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a member that is no file"
    with file:
        return file.read()


def _check_end(archive: tarfile.TarFile, file: BinaryIO) -> None:
    """Refuses a file that was cut short or is damaged, which `tarfile` takes for one that ends there."""
    file.seek(archive.offset)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"no member and no end of a tar file at byte {archive.offset}")


def _row_of(key: str, fields: Mapping[str, bytes]) -> Row | RecordError:
    if "json" not in fields:
        return RecordError(f"has {', '.join(fields)} but no json, which should hold its conversation.")
    row = parse(fields["json"], Path(key), 0, ended=True)
    pictures = sorted((name for name in fields if name.rpartition(".")[2] in PICTURES), key=_natural)
    if pictures and not isinstance(row, RecordError):
        row["images" if formats.chat.KEY in row else "image"] = [fields[name] for name in pictures]
    return row


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns what sorts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
