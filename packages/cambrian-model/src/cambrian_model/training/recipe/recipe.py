"""The whole recipe: its sections, and what must agree between them."""

from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from cambrian_model.errors import did_you_mean
from cambrian_model.training.recipe.data import MADE, SceneQuestionsSection, SourceSection
from cambrian_model.training.recipe.engine import (
    CheckpointSection,
    LossSection,
    ParallelSection,
    ProfileSection,
)
from cambrian_model.training.recipe.model import ModelSection
from cambrian_model.training.recipe.section import Count, Positive, Section, nothing
from cambrian_model.training.recipe.stage import StageSection


class CVBenchEvaluationSection(SceneQuestionsSection):
    """Questions that the trained model is asked.

    Attributes:
        modes: With their pictures, without any, and with those of other questions.
        batch_size: Questions asked at once.
        max_new_tokens: Cap on a reply's length; None for the benchmark's own.
    """

    count_per_task: Count | None = 200
    modes: Annotated[tuple[Literal["normal", "blind", "shuffled"], ...], Field(min_length=1)] = (
        "normal",
        "blind",
        "shuffled",
    )
    batch_size: Count = 16
    max_new_tokens: Count | None = None


class EvaluationSection(Section):
    """What whoever starts the run evaluates the trained model on; training itself only asks it to, now and then.

    Attributes:
        cvbench: See `CVBenchEvaluationSection`.
        every: Steps between two evaluations during training; 0 evaluates only at the end.
        limit: Questions asked during training, of every task in proportion.
    """

    cvbench: CVBenchEvaluationSection
    every: Annotated[int, Field(ge=0)] = 0
    limit: Count = 100


class Recipe(Section):
    """A whole run. `stages` run in the order in which they are written, each on the result of the one before.

    Attributes:
        name: Names the run's folder.
        summary: One line for lists.
        seed: Of initial weights, data order and dropout.
        model: See `ModelSection`.
        data: Named sources.
        stages: Named stages.
        evaluation: What the trained model is evaluated on, see `EvaluationSection`; None evaluates nothing.
        checkpoint: See `CheckpointSection`.
        parallel: See `ParallelSection`.
        loss: See `LossSection`.
        precision: "bf16" and "fp16" compute in 16 bits and keep trained weights and optimizer in float32.
        device: "auto" takes an accelerator if there is one.
        attention: Implementation in the language model, as transformers calls them; None for its own choice, which on
            a CPU then attends document by document.
        activation_checkpointing: Parts whose activations are computed again in the backward pass, to save memory.
        compile: Whether `torch.compile` makes decoder layers, encoders and connector, each by itself.
        num_workers: Processes that decode pictures; 0 decodes in the training process. Does not change the result.
        on_bad_sample: "error" stops at a record or picture that cannot be read, "skip" counts and lists it.
        max_bad_steps: Steps in a row whose loss or gradient is not finite, each skipped, after which training stops.
        trackers: Where metrics go beside `metrics.jsonl`.
        profile: See `ProfileSection`; None profiles nothing.
        peak_tflops: What one device can do at best in this precision, to tell MFU; None looks the device up.
        log_every: Steps between two reports of progress; `metrics.jsonl` always holds every step.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    summary: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: ModelSection
    data: Annotated[dict[str, SourceSection], Field(min_length=1)]
    stages: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], StageSection], Field(min_length=1)]
    evaluation: EvaluationSection | None = None
    checkpoint: CheckpointSection = CheckpointSection()
    parallel: ParallelSection = ParallelSection()
    loss: LossSection = LossSection()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    attention: Literal["eager", "sdpa", "flex_attention", "flash_attention_2"] | None = None
    activation_checkpointing: tuple[Literal["language_model", "vision_encoders"], ...] = ()
    compile: bool = False
    num_workers: Annotated[int, Field(ge=0)] = 0
    on_bad_sample: Literal["error", "skip"] = "error"
    max_bad_steps: Count = 3
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    profile: ProfileSection | None = None
    peak_tflops: Positive | None = None
    log_every: Count = 1

    @model_validator(mode="after")
    def _stages_have_data(self) -> Self:
        for name, stage in self.stages.items():
            for key, sources in (("data", tuple(stage.data)), ("validation.data", _validation_sources(stage))):
                if unknown := next((source for source in sources if source not in self.data), None):
                    raise ValueError(f'stages.{name}.{key} is "{unknown}"{did_you_mean(unknown, self.data)}')
        return self

    @model_validator(mode="after")
    def _stages_follow_stages(self) -> Self:
        for name, stage in self.stages.items():
            if stage.follows not in ("previous", "any", *self.stages):
                raise ValueError(
                    f'stages.{name}.follows is "{stage.follows}"{did_you_mean(stage.follows, self.stages)}'
                )
        return self

    def predecessor(self, name: str) -> str | None:
        """Returns the stage whose model the stage `name` starts from; None where it is the first, or takes any."""
        follows, names = self.stages[name].follows, list(self.stages)
        if follows == "previous":
            return names[names.index(name) - 1] if name != names[0] else None
        return None if follows == "any" else follows

    @model_validator(mode="after")
    def _readings_fit_the_grid(self) -> Self:
        for name, source in self.data.items():
            if source.grounding is not None and source.grounding.grid_side != self.model.grid_side:
                raise ValueError(
                    f"data.{name}.grounding.grid_side is {source.grounding.grid_side}, but model.grid_side is "
                    f"{self.model.grid_side}; a reading names every cell that the language model sees; set both alike"
                )
        return self

    @model_validator(mode="after")
    def _evaluation_is_held_out(self) -> Self:
        if self.evaluation is None:
            return self
        seed = self.evaluation.cvbench.scenes.seed
        if same := [key for key, used in self.training_seeds().items() if used == seed]:
            raise ValueError(
                f"evaluation.cvbench.scenes.seed is {seed}, and so is that of {same[0]}: the model would be asked "
                "about scenes it was trained on; choose another seed"
            )
        return self

    def training_seeds(self) -> dict[str, int]:
        """Returns the seeds of all scenes that the model has seen, by key; two seeds give unrelated scenes."""
        made = {f"data.{name}": source.made_from() for name, source in self.data.items()}
        seeds = {key: scenes.seed for key, scenes in made.items() if scenes is not None}
        return seeds | {f"model.scene_seeds.{i}": seed for i, seed in enumerate(self.model.scene_seeds)}

    def to_yaml(self) -> str:
        """Returns the recipe as YAML that `load_recipe` reads back to the same recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def unset(self) -> list[str]:
        """Returns the keys that the recipe leaves to its user and that have no value yet."""
        sources = {name: source for name, source in self.data.items() if nothing(source, "records", *MADE)}
        missing = [
            f"data.{name}.{'stream.path' if source.stream else 'records'}"
            for name, source in sources.items()
            if source.stream is None or source.stream.path is None
        ]
        if nothing(self.model.language_model, "path", "config"):
            missing.append("model.language_model.path")
        return missing


def _validation_sources(stage: StageSection) -> tuple[str, ...]:
    return stage.validation.data if stage.validation else ()
