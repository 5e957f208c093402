"""Makes the parts, two at a time, and writes them as models that a recipe can name.

Every part is a folder that is there once it is whole, with the hash of what it was made from in its part.json: after an
interruption the same command keeps the parts that are finished, and begins the others anew. Weights are stored in half
precision.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

from cambrian_cli.errors import CommandError
from cambrian_cli.tiny_parts.recipe import LANGUAGE_MODEL, EncoderRecipe, TinyPartsRecipe

CARD = "part.json"
WEIGHTS = "model.safetensors"


class Part(NamedTuple):
    """One part that is there.

    Attributes:
        name: Of its folder.
        recipe_hash: Of what it was made from.
        sha256: Of its weights.
        num_bytes: Of its weights.
        measured: What it can do on scenes that it was not trained on, in parts of 1.
    """

    name: str
    recipe_hash: str
    sha256: str
    num_bytes: int
    measured: dict[str, float]


def build_parts(output: Path, recipe: TinyPartsRecipe, scenes_dir: Path, advance: Callable[..., None]) -> list[Part]:
    """Trains every part that `output` does not hold yet.

    Args:
        output: Made if missing.
        recipe: What to make.
        scenes_dir: The recipe's scenes, written by `write_scenes`.
        advance: Told (part, steps done, steps, loss=...).

    Raises:
        CommandError: As `missing_parts`.
    """
    lanes = [lane for lane in _lanes(missing_parts(output, recipe)) if lane]
    context = multiprocessing.get_context("spawn")
    reports: Queue[Any] = context.Queue()
    processes = [context.Process(target=make_parts, args=(lane, output, recipe, scenes_dir, reports)) for lane in lanes]
    try:
        for process in processes:
            process.start()
        _watch(processes, reports, advance)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [part for name in recipe.parts if (part := read_part(output / name)) is not None]


def missing_parts(output: Path, recipe: TinyPartsRecipe) -> list[str]:
    """Makes the folder if need be, and returns which parts it lacks.

    Raises:
        CommandError: It cannot be made, or holds a part that is damaged or was made from another recipe.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{output} cannot be the folder of the parts ({error}); choose another --output.") from error
    found = {name: read_part(output / name) for name in recipe.parts}
    for name, part in found.items():
        if part is not None and part.recipe_hash != recipe.hash_of(name):
            raise CommandError(
                f"{output / name} was made from another recipe ({part.recipe_hash[:12]}, not "
                f"{recipe.hash_of(name)[:12]}); delete it to make it again, or choose another --output."
            )
    return [name for name, part in found.items() if part is None]


def _lanes(names: Sequence[str]) -> list[list[str]]:
    """What is made at the same time: the language model, and one encoder after the other; each with one thread."""
    return [[name for name in names if name == LANGUAGE_MODEL], [name for name in names if name != LANGUAGE_MODEL]]


def read_part(folder: Path) -> Part | None:
    """Returns what is known of a part; None if it is not there.

    Raises:
        CommandError: The folder holds something else, or a damaged card or weights.
    """
    if not folder.exists():
        return None
    try:
        part = Part(**json.loads((folder / CARD).read_text(encoding="utf-8")))
        content = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{folder} holds no whole part ({error}); delete it, or choose another --output.") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise CommandError(f"{folder / WEIGHTS} is not as it was made; delete {folder}, or choose another --output.")
    return part


def make_parts(
    names: Sequence[str], output: Path, recipe: TinyPartsRecipe, scenes_dir: Path, reports: Queue[Any]
) -> None:
    """Makes parts one after another, in a process of its own; what goes wrong is handed to who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process hears it too, and ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for name in names:
            make_part(name, output, recipe, scenes_dir, partial(_report, reports, name))
    except Exception as error:  # noqa: BLE001  (raised again over there, where it came from added)
        error.add_note(traceback.format_exc())
        reports.put(error)


def _end_with_parent() -> None:
    """Waits for the process that started this one, and leaves nothing running behind it, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def make_part(
    name: str, output: Path, recipe: TinyPartsRecipe, scenes_dir: Path, progress: Callable[..., None]
) -> None:
    """Trains one part with one thread and writes its folder."""
    import torch

    torch.set_num_threads(1)
    if name == LANGUAGE_MODEL:
        _make_language_model(output / name, recipe, scenes_dir, progress)
    else:
        _make_encoder(output / name, recipe.encoder(name), recipe, scenes_dir, progress)


def _make_language_model(
    folder: Path, recipe: TinyPartsRecipe, scenes_dir: Path, progress: Callable[..., None]
) -> None:
    from cambrian_cli.tiny_parts.language_model import measure, text_processor, train_language_model
    from cambrian_data.grounding import read_inventories
    from cambrian_model.training.files import atomic_folder

    inventories = read_inventories(scenes_dir)
    processor = text_processor(recipe)
    model = train_language_model(inventories[: -recipe.held_out], processor, recipe, progress)
    measured = measure(model, inventories[-recipe.held_out :], processor, recipe)
    with atomic_folder(folder, "the part") as unfinished:
        model.config.save_pretrained(unfinished)
        weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}  # tied
        _write(unfinished, LANGUAGE_MODEL, recipe, weights, measured)


def _make_encoder(
    folder: Path, own: EncoderRecipe, recipe: TinyPartsRecipe, scenes_dir: Path, progress: Callable[..., None]
) -> None:
    from cambrian_cli.tiny_parts.encoders import MEAN, STD, Pictures, train_encoder
    from cambrian_model.training.files import atomic_folder
    from cambrian_model.vision.timm_encoder import create_timm_model

    encoder, measured = train_encoder(Pictures(scenes_dir, recipe.grid_side), own, recipe, progress)
    whole = create_timm_model(own.architecture, own.model_args)
    whole.load_state_dict(encoder.body.state_dict(), strict=False)  # layers behind the feature level stay fresh
    card = {
        "architecture": own.architecture,
        "model_args": own.model_args,
        "pretrained_cfg": {
            "input_size": [3, recipe.side, recipe.side],
            "interpolation": "bicubic",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        },
    }
    with atomic_folder(folder, "the part") as unfinished:
        (unfinished / "config.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        _write(unfinished, own.name, recipe, whole.state_dict(), measured)


def _write(
    folder: Path, name: str, recipe: TinyPartsRecipe, weights: dict[str, Any], measured: dict[str, float]
) -> None:
    """Writes the weights in half precision, and the card."""
    from safetensors.torch import save_file

    file = folder / WEIGHTS
    save_file({key: tensor.half().contiguous() for key, tensor in weights.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes for the owner alone
    content = file.read_bytes()
    part = Part(name, recipe.hash_of(name), hashlib.sha256(content).hexdigest(), len(content), measured)
    (folder / CARD).write_text(json.dumps(part._asdict(), indent=1) + "\n", encoding="utf-8")


def _report(reports: Queue[Any], name: str, done: int, total: int, **numbers: float) -> None:
    reports.put((name, done, total, numbers))


def _watch(processes: Sequence[BaseProcess], reports: Queue[Any], advance: Callable[..., None]) -> None:
    """Passes on what the processes report until all are done; the first error ends it."""
    while True:
        were_running = any(process.is_alive() for process in processes)
        try:
            report = reports.get(timeout=0.5)
        except Empty:
            if not were_running:
                break
            continue
        if isinstance(report, Exception):
            raise report
        name, done, total, numbers = report
        advance(name, done, total, **numbers)
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise CommandError(f"a process that made parts ended with status {failed[0]}; run the command again.")
