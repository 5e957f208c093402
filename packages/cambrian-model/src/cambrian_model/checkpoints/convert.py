"""From a released checkpoint to ours and back: tensors keep their bytes, names and configuration are translated.

Everything is checked from headers before the first byte is copied: that the weights are those of the configuration,
that encoders and projections agree, that the disk has room. An interrupted conversion is continued by the same call.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import CONNECTOR_FILE, MODEL_TYPE
from cambrian_model.checkpoints.plan import Options, Plan, read_config
from cambrian_model.checkpoints.released import PROJECTOR_FILES, check_released_config
from cambrian_model.checkpoints.shards import has_weights
from cambrian_model.checkpoints.to_native import plan_connector, plan_native
from cambrian_model.checkpoints.to_released import plan_released, plan_released_connector
from cambrian_model.checkpoints.transfer import check_space, transfer
from cambrian_model.checkpoints.unfinished import check_free, unfinished_folder
from cambrian_model.errors import CheckpointError, did_you_mean
from cambrian_model.processing.chat import named_template

FORMATS = ("native", "released")


class Conversion(NamedTuple):
    """What a conversion made.

    Attributes:
        kind: What lies in the folder now.
        folder: The folder.
        num_tensors: Its tensors.
        num_bytes: Their size.
        hashes: xxh3_128 of the tensors of every file of weights, the same in source and copy.
        kept: Files that an interrupted run had finished.
        notes: What the user should know.
        seconds: How long it took.
    """

    kind: str
    folder: Path
    num_tensors: int
    num_bytes: int
    hashes: dict[str, str]
    kept: list[str]
    notes: list[str]
    seconds: float


def convert(
    source: str | Path,
    destination: str | Path,
    options: Options | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Conversion:
    """Converts a released checkpoint or stage-1 projector to ours, or ours to the released form.

    `destination` appears when it is whole and verified, and not before.

    Args:
        source: The folder to convert, or the file of a stage-1 projector.
        destination: A folder that does not exist yet, or is empty.
        options: What to make; ours, by default.
        progress: Called with the number of bytes done, and of all.

    Raises:
        CambrianModelError: The source is no such checkpoint, or is damaged; weights and configuration disagree; the
            place is taken, or too small.
    """
    begin = time.perf_counter()
    source, destination, options = Path(source), Path(destination).resolve(), options or Options()
    _check_places(source, destination)
    _check_options(source, options)
    with reading(source, "a checkpoint"):  # every library has its own complaints about files that are none
        plan = _plan(source, options)
    with unfinished_folder(destination, _arguments(source, options)) as folder:
        check_space(plan.shards, folder)
        plan.write_files(folder.path)
        kept = transfer(plan.shards, folder, lambda done: progress(done, plan.num_bytes))
    return Conversion(
        plan.kind,
        destination,
        sum(len(shard.tensors) for shard in plan.shards.values()),
        plan.num_bytes,
        folder.hashes,
        kept,
        plan.notes,
        time.perf_counter() - begin,
    )


def _check_places(source: Path, destination: Path) -> None:
    if not source.exists():
        raise CheckpointError(
            f"{source}: no such folder; expected a checkpoint on this machine (`hf download ID --local-dir DIR` "
            "fetches one from the hub)"
        )
    if destination.exists() and source.samefile(destination):
        raise CheckpointError(f"{destination}: is the source itself; choose another folder")
    check_free(destination)


def _check_options(source: Path, options: Options) -> None:
    """Refuses options that would change nothing.

    Raises:
        CheckpointError: Names the option, and why.
        PromptError: No template has that name.
    """
    if options.to not in FORMATS:
        raise CheckpointError(f'unknown format "{options.to}"{did_you_mean(options.to, FORMATS)}')
    if options.chat_template is not None:
        named_template(options.chat_template)
    given = {
        "--precomputed-encoders": options.precomputed_encoders is not None,
        "--encoder": bool(options.encoder_folders),
        "--chat-template": options.chat_template is not None,
    }
    if options.to == "released":
        useless, why = list(given), "the released form keeps its own"
    elif _projector_file(source):
        useless, why = ["--encoder", "--chat-template"], "a stage-1 projector holds neither encoders nor a template"
    else:
        useless, why = ["--encoder"] if given["--precomputed-encoders"] else [], "the encoders are precomputed"
    if wrong := [name for name in useless if given[name]]:
        raise CheckpointError(f"{', '.join(wrong)} would change nothing: {why}; leave it out")


def _arguments(source: Path, options: Options) -> dict[str, Any]:
    """Returns what decides the result; a conversion is only continued with the same."""
    folder = source if source.is_dir() else source.parent
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    state = [(name, status.st_size, status.st_mtime_ns) for name, status in files]
    return {
        "source": str(source.resolve()),
        "to": options.to,
        "precomputed_encoders": list(options.precomputed_encoders or ()),
        "encoder_folders": {name: str(path.resolve()) for name, path in sorted(options.encoder_folders.items())},
        "chat_template": options.chat_template,
        "state_of_source": xxhash.xxh3_64_hexdigest(repr(state).encode()),
    }


def _plan(source: Path, options: Options) -> Plan:
    projector = _projector_file(source)
    folder = projector.parent if projector else source
    config = read_config(folder)
    model_type = config.get("model_type")
    if options.to == "released":
        if model_type != MODEL_TYPE:
            raise CheckpointError(
                f'{source}: model_type is "{model_type}", expected "{MODEL_TYPE}"; it is none of ours'
            )
        return plan_released_connector(folder) if (folder / CONNECTOR_FILE).is_file() else plan_released(folder)
    if model_type == MODEL_TYPE:
        raise CheckpointError(f"{source}: is a checkpoint of ours already; --to released makes the original's of it")
    check_released_config(config, folder / "config.json")
    return plan_connector(projector, config, options) if projector else plan_native(folder, config, options)


def _projector_file(source: Path) -> Path | None:
    """Returns the file of a stage-1 projector, if that is what is to be converted."""
    if source.is_file():
        return source
    files = [source / name for name in PROJECTOR_FILES if (source / name).is_file()]
    return files[0] if files and not has_weights(source) else None
