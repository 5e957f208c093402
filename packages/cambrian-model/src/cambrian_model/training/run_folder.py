"""The folder of a run: what is where, what may be written, and what the run remembers of itself.

It holds `recipe.yaml` (resolved), `run.json` (versions, data, hardware), `metrics.jsonl`, `curve.png`,
`checkpoints/<stage>-<step>`, `stages/<stage>`, `checkpoint` and `result.json`; where there is need, `index` (for the
other ranks), `features`, `bad_samples.jsonl`, `profile`, `trackers`. The first rank writes, all read.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cambrian_model.errors import TrainingError
from cambrian_model.training.curve import draw_curve
from cambrian_model.training.files import UNFINISHED, atomic_folder, sweep_folders, write_json, write_text
from cambrian_model.training.metrics import StageSummary, read_metrics, summarise
from cambrian_model.training.provenance import describe_machine
from cambrian_model.training.recipe import Recipe, load_recipe
from cambrian_model.training.trainable import TrainableRow

# What a run may be resumed with another value of: how it is spread, watched and saved, and what it does about bad data.
FREE = (
    *("num_workers", "parallel", "activation_checkpointing", "peak_tflops", "profile", "trackers", "log_every"),
    *("checkpoint.every", "checkpoint.keep", "on_bad_sample", "max_bad_steps", "summary"),
    *("stages.*.batch.micro_rows", "device"),
    *("data.*.records", "data.*.images"),  # moved, it may be: what it holds is compared by its fingerprint
)


def has_begun(folder: Path) -> bool:
    """Tells whether a run in this folder has taken a step; one that has not holds nothing worth keeping."""
    metrics = folder / "metrics.jsonl"
    return (metrics.is_file() and metrics.stat().st_size > 0) or any(
        (folder / name).is_dir() and any((folder / name).iterdir()) for name in ("checkpoints", "stages", "checkpoint")
    )


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        run_dir: Its folder.
        checkpoint: The trained model and processor, for `from_pretrained`.
        seconds: Time taken by all steps, restarts included.
        stages: A summary of each stage.
        dropped: Per stage, how many samples were left out of every epoch, by reason; `run.json` names them.
        bad: Samples that could not be read and were left out; `bad_samples.jsonl` names them.
    """

    run_dir: Path
    checkpoint: Path
    seconds: float
    stages: dict[str, StageSummary]
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    bad: int = 0


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: what is where, and whether it may be written into."""

    path: Path
    recipe: Recipe
    stages: Sequence[str]
    start_from: Path | None

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """Loss and learning rate of all steps as a picture."""
        return self.path / "curve.png"

    @property
    def checkpoint(self) -> Path:
        """The trained model and processor."""
        return self.path / "checkpoint"

    @property
    def checkpoints(self) -> Path:
        """What the run can be continued from."""
        return self.path / "checkpoints"

    @property
    def bad_samples(self) -> Path:
        """Samples that could not be read, one JSON object each."""
        return self.path / "bad_samples.jsonl"

    def stage(self, name: str) -> Path:
        """Returns where a stage's model lies once the stage is done."""
        return self.path / "stages" / name

    def unfinished(self) -> list[str]:
        """Returns the stages still to train."""
        return [name for name in self.stages if not self.stage(name).is_dir()]

    def source(self, name: str) -> Path | None:
        """Returns the model folder that a stage starts from; None builds the model from the recipe."""
        position = list(self.stages).index(name)
        return self.stage(self.stages[position - 1]) if position else self.start_from

    def is_finished(self, resume: bool) -> bool:
        """Tells whether the run is finished already, after a look at what the folder holds; writes nothing.

        A run without a single step, as a mistake leaves it, is no obstacle to the corrected one.

        Raises:
            TrainingError: The folder holds another run, or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} cannot be the output folder: it is a file; choose another --output")
        entries = self.path.iterdir() if self.path.is_dir() else ()
        content = sorted(entry.name for entry in entries if not entry.name.startswith(UNFINISHED))
        if not content:
            return False
        if "recipe.yaml" not in content:
            raise TrainingError(
                f"{self.path} is no run folder: it holds {', '.join(content[:5])}; choose an empty or new --output"
            )
        if not has_begun(self.path):
            return False
        other = load_recipe(self.path / "recipe.yaml")
        if not resume:
            raise TrainingError(
                f'{self.path} holds a run of recipe "{other.name}"; to continue it add --resume, '
                f'to start a new run of "{self.recipe.name}" choose another --output'
            )
        if changes := _differences(other, self.recipe):
            raise TrainingError(
                f'{self.path} holds a run of recipe "{other.name}" with other values: {"; ".join(changes)}; '
                "resume with the recipe it was started with, or choose another --output"
            )
        self._check_same("stages", list(self.stages))
        self._check_same("start_from", str(self.start_from) if self.start_from else None)
        return (self.path / "result.json").is_file()

    def sweep(self) -> None:
        """Deletes what a killed run left half-written."""
        for folder in (self.path, self.path / "stages", self.checkpoints):
            sweep_folders(folder)

    def claim(self) -> None:
        """Makes the folder, so that others can write into it.

        Raises:
            TrainingError: It cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be the output folder: {error}; choose another --output") from error

    def describe(self, data: Mapping[str, Mapping[str, Any]], packing: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `recipe.yaml` and `run.json`, or checks that the data is what it was when the run began.

        Args:
            data: Of every source: fingerprint, samples, tokens, images.
            packing: Of every stage: rows, fill, what was left out.

        Raises:
            TrainingError: The data has changed.
        """
        known = self._known().get("data", {}) if has_begun(self.path) else {}
        for name, facts in data.items():
            if name in known and known[name]["fingerprint"] != facts["fingerprint"]:
                raise TrainingError(
                    f'data "{name}" has changed since {self.path} was started ({known[name]["samples"]} samples then, '
                    f"{facts['samples']} now); put it back, or start a new run"
                )
        if known:
            return
        facts = {
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "stages": list(self.stages),
            "start_from": str(self.start_from) if self.start_from else None,
            "data": {name: dict(facts) for name, facts in data.items()},
            "packing": {name: dict(facts) for name, facts in packing.items()},
            **describe_machine(),
        }
        write_text(self.path / "recipe.yaml", self.recipe.to_yaml())
        write_json(self.path / "run.json", facts)

    def describe_stage(self, name: str, table: Sequence[TrainableRow]) -> None:
        """Notes in `run.json` what a stage trains: parameters and learning rate of every part, null where frozen."""
        known = self._known()
        known["parts"] = {**known.get("parts", {}), name: [row._asdict() for row in table]}
        write_json(self.path / "run.json", known)

    def note_dropped(self, name: str, counts: Mapping[str, int]) -> None:
        """Notes in `run.json` how many samples of a stage's stream were left out, by reason."""
        known = self._known()
        known["packing"][name]["dropped"] = dict(counts)
        write_json(self.path / "run.json", known)

    def finish(self, seconds: float) -> None:
        """Publishes the last stage's model as the run's checkpoint, and marks the run finished.

        Raises:
            TrainingError: The disk is full.
        """
        with atomic_folder(self.checkpoint, "checkpoint") as folder:
            shutil.copytree(self.stage(self.stages[-1]), folder, copy_function=_link_or_copy, dirs_exist_ok=True)
        lines = read_metrics(self.metrics)
        if lines and not self.curve.is_file():
            draw_curve(lines, self.curve, self.recipe.name)
        summaries = summarise(lines)
        stages = {name: asdict(summary) for name, summary in summaries.items()}
        write_json(self.path / "result.json", {"seconds": round(seconds, 3), "stages": stages})

    def result(self) -> TrainResult:
        """Returns the result of a finished run."""
        result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        stages = {name: StageSummary(**summary) for name, summary in result["stages"].items()}
        dropped = {
            name: {reason: _count(left_out) for reason, left_out in packing.get("dropped", {}).items()}
            for name, packing in self._known().get("packing", {}).items()
        }
        bad = len(self.bad_samples.read_text(encoding="utf-8").splitlines()) if self.bad_samples.is_file() else 0
        return TrainResult(self.path, self.checkpoint, result["seconds"], stages, dropped, bad)

    def _known(self) -> dict[str, Any]:
        file = self.path / "run.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _check_same(self, key: str, value: Any) -> None:
        known = self._known()
        if known and known.get(key) != value:
            raise TrainingError(
                f"{self.path} holds a run with {key} {known.get(key)}, not {value}; "
                "resume it as it was started, or choose another --output"
            )


def _differences(old: Recipe, new: Recipe) -> list[str]:
    """Names every key whose value differs and may not, with both values."""
    before, after = dict(_leaves(old.model_dump(mode="json"))), dict(_leaves(new.model_dump(mode="json")))
    return [
        f"{key} was {before.get(key, 'absent')!r}, now {after.get(key, 'absent')!r}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, "absent") != after.get(key, "absent") and not _is_free(key)
    ]


def _is_free(key: str) -> bool:
    return any(fnmatchcase(key, pattern) or key.startswith(f"{pattern}.") for pattern in FREE)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else name)


def _link_or_copy(source: str, target: str) -> None:
    """Gives a file a second name where the file system can, for models are large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _count(left_out: Sequence[str] | int) -> int:
    """Returns how many samples were left out: of a stream only their number is known."""
    return left_out if isinstance(left_out, int) else len(left_out)
