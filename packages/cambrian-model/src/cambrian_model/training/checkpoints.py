"""Exact resume: what a run needs to continue as if it had never stopped, in safetensors and JSON, never in pickle.

Tensors are named by parameter, so that neither the order of the optimizer's groups nor DDP, FSDP or compilation matter,
and are written as each rank holds them by torch.distributed.checkpoint's planner and Hugging Face storage; any number
of ranks reads them back. A save copies what this rank will write to the CPU and leaves the rest to a thread:

    <stage>-<step>/tensors/shard-*.safetensors   weights "model/...", optimizer "optimizer/exp_avg/...", EMA "ema/..."
    <stage>-<step>/random-<rank>.safetensors     random generators of each rank
    <stage>-<step>/state.json                    progress, scalars, step counts, and a reference to the frozen parts
    <stage>-<step>/COMPLETE                      written last: size and hash of every file

Differs from `torch.distributed.checkpoint.save`: that sends its plans between ranks as pickle, and warns in a single
process. Here a rank plans alone, and ranks exchange only whether they could write.
"""

import json
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cambrian_model.errors import TrainingError
from cambrian_model.training.distributed import rank
from cambrian_model.training.files import (
    FileFacts,
    check_files,
    file_facts,
    is_complete,
    publish,
    read_marker,
    remove_folder,
    sweep_folders,
    sync,
    sync_folder,
    unfinished_path,
    write_json,
    write_marker,
)
from cambrian_model.training.manifest import Reference
from cambrian_model.training.random_state import (
    RandomState,
    capture_random_state,
    read_random_state,
    restore_random_state,
    seed_everything,
    write_random_state,
)
from cambrian_model.training.ranks import Ranks, Task
from cambrian_model.training.streaming import read_place
from cambrian_model.training.tensor_shards import Staged, StoredTensors, TensorFacts, stage_tensors, write_tensors
from cambrian_model.training.training_state import (
    Progressed,
    TrainingState,
    make_optimizer_state,
    optimizer_steps,
    tensors_of,
)

FORMAT = 2
TENSORS = "tensors"
STATE = "state.json"
BEST = "best.json"


class Checkpoints:
    """The checkpoints of one run, of which the last `keep` of a stage stay, and its best.

    Every rank must have one and call the same methods in the same order; all of them see the same folder. What goes
    wrong on one rank, in the background too, is raised on all of them.

    Args:
        folder: Where they lie.
        keep: How many of a stage stay.
        full: Store frozen parameters too; otherwise a reference to where they came from, with their hash.
    """

    def __init__(self, folder: Path, keep: int = 2, full: bool = False) -> None:
        self.folder = folder
        self.keep = keep
        self.full = full
        self._ranks: Ranks | None = None
        self._saving: _Saving | None = None

    def save(self, state: TrainingState, *, metric: float | None = None, wait: bool = False) -> Path:
        """Copies the state to the CPU and writes it in the background, once the save before is done.

        Args:
            state: May change as soon as this returns.
            metric: The lower, the better; None, or one that is not finite, is never the best.
            wait: Return only when it is written.

        Returns:
            Where the checkpoint will be.

        Raises:
            TrainingError: The save before failed; or, with `wait`, this one did, the disk being full for example.
                Earlier checkpoints stay.
        """
        self.finish()
        ranks = self._join_ranks()
        done = state.progressed
        path = self.folder / f"{done.stage}-{done.step:06d}"
        description = _describe(state, ranks.count, metric, self.full)
        staged = stage_tensors(tensors_of(state, self.full), ranks)
        self._saving = _Saving(partial(self._write, path, staged, description, capture_random_state(), ranks))
        if wait:
            self.finish()
        return path

    @property
    def is_saving(self) -> bool:
        """Whether a save is in the background that neither `poll` nor `finish` has seen end."""
        return self._saving is not None

    def poll(self) -> None:
        """Looks after the save in the background, if there is one; to be called after every step, on all ranks.

        All ranks see a save end, well or not, in the same call, so that none goes on into a step without the others.

        Raises:
            TrainingError: The save failed, on whichever rank.
        """
        if self._saving and self._join_ranks().all_agree(self._saving.is_over()):
            self.finish()

    def finish(self) -> None:
        """Waits until the save in the background, if there is one, is done.

        Raises:
            TrainingError: It failed, on whichever rank.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        failure = saving.wait()
        is_fine = self._join_ranks().all_agree(failure is None)
        if failure:
            raise failure
        if not is_fine:
            raise TrainingError("another rank could not write a checkpoint, see its message; continue with --resume")

    def latest(self, stage: str) -> Path | None:
        """Returns the newest whole checkpoint of a stage."""
        whole = self._whole(stage)
        return whole[-1] if whole else None

    def best(self, stage: str) -> Path | None:
        """Returns the whole checkpoint of a stage with the lowest metric, the newest of equals."""
        measured = [(metric, path) for path in self._whole(stage) if (metric := _metric(path)) is not None]
        lowest = min((metric for metric, _ in measured), default=None)
        return next((path for metric, path in reversed(measured) if metric == lowest), None)

    def best_metric(self, stage: str) -> float | None:
        """Returns the metric of `best`."""
        best = self.best(stage)
        return _metric(best) if best is not None else None

    def load(self, path: Path, state: TrainingState) -> Progressed:
        """Puts model, optimizer, averages, scalars and random generators into the state of a checkpoint.

        With as many ranks as it was saved by, all of them continue bit for bit. With another number, each generator is
        seeded anew, from the run's seed, the step and the rank.

        Raises:
            TrainingError: The checkpoint is damaged, was made by another version, belongs to another model, or the
                frozen parts are not what they were. The state is then of no use.
        """
        self.finish()
        ranks = self._join_ranks()
        names = ranks.together(_reading(path), partial(_check_whole, path, ranks))
        if len(set(names)) > 1:
            raise TrainingError(
                f"ranks would load different checkpoints of {self.folder}: {', '.join(names)}; let all machines see "
                "the same folder, then continue with --resume"
            )
        done = ranks.together(_reading(path), partial(_load, path, state, ranks))[ranks.rank]
        return Progressed(done["stage"], done["step"], read_place(done["place"]))

    def sweep(self) -> None:
        """Deletes what a killed run left half-written; one rank does, and the others must wait for it."""
        if rank() == 0:
            sweep_folders(self.folder)

    def _join_ranks(self) -> Ranks:
        if self._ranks is None:
            self._ranks = Ranks()
        return self._ranks

    def _write(
        self,
        path: Path,
        staged: Staged,
        description: Mapping[str, Any],
        random_state: RandomState,
        ranks: Ranks,
    ) -> None:
        """Writes a checkpoint, all ranks together; runs in the background."""
        unfinished = unfinished_path(path)
        task = _writing(path)
        try:
            ranks.together(task, partial(_make_folder, unfinished, ranks))
            listed = ranks.together(task, partial(_write_share, unfinished, staged, description, random_state, ranks))
            files = {name: FileFacts(*facts) for names in listed for name, facts in names.items()}
            ranks.together(task, partial(self._publish, unfinished, path, files, ranks))
        except TrainingError:
            if ranks.rank == 0:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _publish(self, unfinished: Path, path: Path, files: Mapping[str, FileFacts], ranks: Ranks) -> None:
        """Declares the checkpoint whole, gives it its name, and deletes those that are no longer wanted."""
        if ranks.rank != 0:
            return
        write_marker(unfinished, files)
        sync_folder(unfinished)
        publish(unfinished, path)
        stage = _stage_of(path)
        best = self.best(stage)
        self._record_best(stage, best)
        older = [other for other in self._of_stage(stage) if _step_of(other) < _step_of(path)]
        newest = sorted([path, *filter(is_complete, older)], key=_step_of)[-self.keep :]
        for old in set(older) - {*newest, best}:
            remove_folder(old)

    def _record_best(self, stage: str, best: Path | None) -> None:
        """Notes the best checkpoint of every stage in `best.json`, for a reader: `best` goes by the checkpoints."""
        if best is not None:
            record = self.folder / BEST
            known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
            write_json(record, known | {stage: {"checkpoint": best.name, "metric": _metric(best)}})

    def _whole(self, stage: str) -> list[Path]:
        return [path for path in self._of_stage(stage) if is_complete(path)]

    def _of_stage(self, stage: str) -> list[Path]:
        """Returns the folders of a stage, oldest first."""
        found = [path for path in self.folder.glob(f"{stage}-*") if path.name.removeprefix(f"{stage}-").isdigit()]
        return sorted(found, key=_step_of)


def _writing(path: Path) -> Task:
    return Task(
        f"could not write checkpoint {path}",
        "earlier checkpoints are untouched: free disk space, or mend that, then continue with --resume",
    )


def _reading(path: Path) -> Task:
    return Task(f"could not read checkpoint {path}", "delete it, then --resume takes the one before")


class _Saving:
    """Work in a thread of its own, and how it ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._failure: BaseException | None = None
        # Not a daemon: a process that ends while it saves still finishes the checkpoint.
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint")
        self._thread.start()

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> BaseException | None:
        self._thread.join()
        return self._failure

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `Checkpoints.finish`
            self._failure = error


def _make_folder(unfinished: Path, ranks: Ranks) -> None:
    if ranks.rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / TENSORS).mkdir(parents=True)


def _write_share(
    unfinished: Path, staged: Staged, description: Mapping[str, Any], random_state: RandomState, ranks: Ranks
) -> dict[str, FileFacts]:
    """Writes this rank's files and returns them."""
    if not unfinished.is_dir():
        raise TrainingError(
            f"rank {ranks.rank} does not see {unfinished}, which rank 0 made; choose an --output that all machines see"
        )
    random_file = unfinished / _random_file(ranks.rank)
    write_random_state(random_state, random_file)
    sync(random_file)
    written = [random_file, *write_tensors(unfinished / TENSORS, staged, ranks)]
    if ranks.rank == 0:
        write_json(unfinished / STATE, description)
        written.append(unfinished / STATE)
    return {file.relative_to(unfinished).as_posix(): file_facts(file) for file in written}


def _describe(state: TrainingState, num_ranks: int, metric: float | None, full: bool) -> dict[str, Any]:
    """Returns what is not a tensor, as JSON.

    Raises:
        TrainingError: A scalar is not JSON.
    """
    description = {
        "format": FORMAT,
        **asdict(state.progressed),
        "ranks": num_ranks,
        "seed": state.seed,
        "metric": metric if metric is not None and math.isfinite(metric) else None,
        "full": full,
        "frozen": asdict(state.frozen) if state.frozen and not full else None,
        "scalars": state.scalars,
        "optimizer_steps": optimizer_steps(state),
    }
    try:
        return json.loads(json.dumps(description))
    except TypeError as error:
        raise TrainingError(f"the scalars of a checkpoint must be JSON: {error}; give plain numbers") from error


def _check_whole(path: Path, ranks: Ranks) -> str:
    """Reads this rank's share of a checkpoint's files, to see whether they are what was written; returns its name."""
    files = read_marker(path)
    if not files:
        raise _damaged(path, "its marker COMPLETE is missing or damaged")
    share = dict(sorted(files.items())[ranks.rank :: ranks.count])
    try:
        check_files(path, share)
    except OSError as error:
        raise _damaged(path, str(error)) from error
    return path.name


def _damaged(path: Path, what: str) -> TrainingError:
    return TrainingError(f"checkpoint {path} is damaged: {what}; delete it, then --resume takes the one before")


def _load(path: Path, state: TrainingState, ranks: Ranks) -> dict[str, Any]:
    """Puts this rank into the state of a checkpoint; returns how far that is, as JSON."""
    found = json.loads((path / STATE).read_text(encoding="utf-8"))
    if found.get("format") != FORMAT:
        raise TrainingError(
            f"checkpoint {path} has format {found.get('format')}, expected {FORMAT}; continue with the version that "
            "wrote it, or start a new run in another folder"
        )
    _check_frozen(path, found, state)
    stored = StoredTensors(path / TENSORS)
    make_optimizer_state(state, found["optimizer_steps"], stored.facts)
    targets = tensors_of(state, found["full"])
    _check_same(path, {name: TensorFacts.of(tensor) for name, tensor in targets.items()}, stored.facts)
    stored.read_into(targets)
    state.scalars.clear()
    state.scalars.update(found["scalars"])
    # First all generators from a seed, for the checkpoint may lack that of an accelerator.
    seed_everything(found["seed"], found["stage"], found["step"], ranks.rank)
    if found["ranks"] == ranks.count:
        restore_random_state(read_random_state(path / _random_file(ranks.rank)))
    return {key: found[key] for key in ("stage", "step", "place")}


def _check_frozen(path: Path, found: Mapping[str, Any], state: TrainingState) -> None:
    if found["full"]:
        return
    saved = Reference(**found["frozen"]) if found["frozen"] else None
    if (saved and saved.hash) != (state.frozen and state.frozen.hash):
        raise TrainingError(
            f"the frozen parts of the model are not those that checkpoint {path} was trained with: "
            f"found {_shown(state.frozen)}, expected {_shown(saved)}; put those weights back, or start a new run in "
            "another folder"
        )


def _shown(reference: Reference | None) -> str:
    return f"hash {reference.hash} from {reference.path}" if reference else "none"


def _check_same(path: Path, wanted: Mapping[str, TensorFacts], found: Mapping[str, TensorFacts]) -> None:
    """Refuses a checkpoint whose tensors have other names, shapes or types than the run's."""
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise TrainingError(
                f"checkpoint {path} belongs to another model or stage: it has {name} as {found.get(name, 'nothing')}, "
                f"the run as {wanted.get(name, 'nothing')}; continue with the recipe that it was made by, or start a "
                "new run in another folder"
            )


def _random_file(rank: int) -> str:
    return f"random-{rank}.safetensors"


def _metric(path: Path) -> float | None:
    try:
        return json.loads((path / STATE).read_text(encoding="utf-8"))["metric"]
    except FileNotFoundError:  # deleted while one looks
        return None


def _stage_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
