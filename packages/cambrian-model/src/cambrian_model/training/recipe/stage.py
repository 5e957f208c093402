"""The `stages` section of a recipe: what is trained, on what, how fast, for how long."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cambrian_model.errors import did_you_mean
from cambrian_model.training.parts import GROUPS, NAMES, is_glob
from cambrian_model.training.recipe.section import Count, Fraction, NonNegative, Positive, Section


class GroupSection(Section):
    """What the parameters of one pattern do differently; what is not given is the stage's own.

    Attributes:
        lr: Learning rate.
        weight_decay: Of matrices.
        warmup: As the stage's: a fraction of its steps if below 1, else a number of steps.
    """

    lr: Positive | None = None
    weight_decay: NonNegative | None = None
    warmup: NonNegative | None = None


class OptimSection(Section):
    """AdamW and its schedule.

    Attributes:
        lr: Learning rate of every trained parameter that no group names.
        groups: Other values for the parameters that a pattern names: a part, or a glob over parameter names. No
            parameter may be named twice.
        weight_decay: Of matrices; vectors (norms, biases) have none.
        betas: Decay of the two running averages.
        eps: Added to the denominator.
        warmup: Linear warm-up: a fraction of the stage's steps if below 1, else a number of steps.
        schedule: What follows the warm-up; cosine and linear end at zero, so does "wsd" (warm-up, stable, decay).
        decay: Of "wsd": the last part of the stage in which the rate falls linearly, as `warmup` a fraction or steps.
        clip_norm: Largest norm of all gradients together; None does not clip.
    """

    lr: Positive
    groups: dict[str, GroupSection] = Field(default_factory=dict)
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    warmup: NonNegative = 0.03
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    decay: NonNegative = 0.1
    clip_norm: Positive | None = 1.0

    @field_validator("groups")
    @classmethod
    def _are_patterns(cls, groups: dict[str, GroupSection]) -> dict[str, GroupSection]:
        _check_patterns(groups)
        return groups


class BatchSection(Section):
    """Packed rows: one optimizer step sees `rows` of them, over all devices together.

    So the order of the data and the size of a step do not depend on how many devices there are; how often gradients
    are accumulated follows.

    Attributes:
        rows: Rows of one optimizer step.
        micro_rows: Most rows that go through the model together on one device; None for all of its share.
        row_tokens: Tokens of a row; several samples share it.
        max_images: Most pictures in a row; None for any number.
        too_long: What is done with a sample longer than a row: its text is cut, never a picture, or it is dropped.
    """

    rows: Count = 8
    micro_rows: Count | None = None
    row_tokens: Annotated[int, Field(ge=2)]
    max_images: Count | None = None
    too_long: Literal["truncate", "drop"] = "truncate"

    def micro_batches(self, ranks: int) -> int:
        """Returns how many batches every rank runs for a whole step."""
        share = -(-self.rows // ranks)
        return -(-share // (self.micro_rows or share))


class AdaptersSection(Section):
    """LoRA adapters on the language model's linear layers, whose own weights stay as they are.

    Attributes:
        rank: Inner width.
        alpha: The update counts `alpha / rank` times.
        dropout: Before the adapter.
        targets: Names of the layers, such as q_proj; None for all linear layers of the decoder.
        quantize: The language model's frozen weights in 4 or 8 bits (QLoRA); None keeps them.
    """

    rank: Count = 16
    alpha: Positive = 32
    dropout: Fraction = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    quantize: Literal["nf4", "int8"] | None = None


class EMASection(Section):
    """An exponential moving average of the trained weights, which evaluation and the stage's model then use."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class ValidationSection(Section):
    """Loss on data that no step trains on, per source.

    Attributes:
        data: Sources, of which the first `max_samples` samples each are taken.
        every: Steps between two validations; the last step always has one.
        max_samples: Of each source.
    """

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    every: Count
    max_samples: Count = 256

    @field_validator("data", mode="before")
    @classmethod
    def _one_source(cls, data: object) -> object:
        return (data,) if isinstance(data, str) else data


class StageSection(Section):
    """One stage: exactly the parameters in `train` change; it ends after `max_steps` or `epochs`, whichever is first.

    Attributes:
        data: Weight of every source, or just its name for one: how often each sample of the source occurs in an epoch.
        train: Parts of the model (vision_encoders, connector or its projector and sva, in_llm, language_model,
            adapters), or globs over parameter names.
        optim: See `OptimSection`.
        batch: See `BatchSection`.
        max_steps: Optimizer steps.
        epochs: Passes over the data.
        follows: The stage whose model this one starts from: "previous", a stage's name, or "any" for any model.
        adapters: See `AdaptersSection`; they are merged into the stage's model at its end.
        ema: See `EMASection`.
        validation: See `ValidationSection`.
        feature_cache: Whether frozen encoders run once per picture, their features being read from files after that.
    """

    data: Annotated[dict[str, Positive], Field(min_length=1)]
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    optim: OptimSection
    batch: BatchSection
    max_steps: Count | None = None
    epochs: Count | None = None
    follows: str = "previous"
    adapters: AdaptersSection | None = None
    ema: EMASection | None = None
    validation: ValidationSection | None = None
    feature_cache: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that the stage reads: to train on, then to validate on."""
        return (*self.data, *(self.validation.data if self.validation else ()))

    @field_validator("data", mode="before")
    @classmethod
    def _one_source(cls, data: object) -> object:
        return {data: 1.0} if isinstance(data, str) else data

    @field_validator("train")
    @classmethod
    def _are_patterns(cls, train: tuple[str, ...]) -> tuple[str, ...]:
        _check_patterns(train)
        if len(set(train)) < len(train):
            raise ValueError(f"names a part twice: {', '.join(train)}")
        return train

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_steps is None and self.epochs is None:
            raise ValueError("has no end; set max_steps or epochs")
        if frozen := [name for name in self.optim.groups if not self._may_train(name)]:
            raise ValueError(
                f"optim.groups names {', '.join(frozen)}, which this stage does not train; "
                f"add to train or remove from groups (train: {', '.join(self.train)})"
            )
        if (self.adapters is not None) != ("adapters" in self.train):
            raise ValueError(
                f"has train: {', '.join(self.train)}, and adapters {'set' if self.adapters else 'not set'}; "
                'give both "adapters" in train and the section adapters, or neither'
            )
        if self.adapters is not None and "language_model" in self.train:
            raise ValueError("trains language_model and adapters on it; leave language_model out of train")
        if self.feature_cache and "vision_encoders" in self.train:
            raise ValueError("has feature_cache: true, but trains vision_encoders; saved features would be stale")
        if shared := sorted(set(self.validation.data if self.validation else ()) & set(self.data)):
            raise ValueError(f"validates on {shared[0]}, which it trains on; name another source")
        return self

    def _may_train(self, pattern: str) -> bool:
        """Tells whether some trained parameter can match; globs are looked at when there is a model."""
        return is_glob(pattern) or any(is_glob(t) or set(_parts(pattern)) & set(_parts(t)) for t in self.train)


def _parts(name: str) -> tuple[str, ...]:
    return GROUPS.get(name, (name,))


def _check_patterns(patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not is_glob(pattern) and pattern not in NAMES:
            raise ValueError(f'names "{pattern}"{did_you_mean(pattern, NAMES)}; or give a glob over parameter names')
