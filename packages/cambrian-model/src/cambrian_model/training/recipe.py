"""The recipe of a run: model, data and stages, typed, in one YAML file.

`Recipe` is what the rest of the package reads. `load_recipe` finds the file, merges what it `extends`, applies
overrides ("a.b=value"), resolves paths and checks everything; each mistake is a `RecipeError` that names its key.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from cambrian_model.connector_config import (
    CAbstractorConfig,
    LDPv2Config,
    ProjectorConfig,
    ResamplerConfig,
    SVAConfig,
    find_connector_config,
    unknown_type,
    without_blocks,
)
from cambrian_model.errors import RecipeError, did_you_mean
from cambrian_model.training import yaml_files

Part = Literal["vision_encoders", "connector", "in_llm", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LanguageModelSection(Section):
    """Where the language model comes from: a checkpoint, or a configuration with random weights."""

    path: str | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        _at_most_one(self, "path", "config")
        return self


class VisionEncoderSection(Section):
    """One vision encoder, see `cambrian_model.vision.source.describe`.

    Attributes:
        name: One of the paper's ("siglip-so400m-384"), "timm:mobilenetv2_100", "hf:facebook/dinov2-small",
            "precomputed:mine", for example.
        path: Folder with its weights.
        pretrained: Whether published weights are fetched where no `path` is given; else they are random.
        image_side: Pixels per side of the picture that it receives.
        feature_layer: Feature level, as the library counts them; of several, the features are concatenated.
        grid_side: Side of the token grid handed to the connector.
        width: Channels of the saved features of a precomputed encoder that is not known by name.
        mean: Mean of each RGB channel.
        std: Standard deviation of each RGB channel.
        interpolation: Resampling filter.
        pad_color: RGB of the padding.
        model_args: Further arguments of the library's constructor.
    """

    name: str
    path: str | None = None
    pretrained: bool = False
    image_side: Count | None = None
    feature_layer: int | Annotated[tuple[int, ...], Field(min_length=2)] | None = None
    grid_side: Count | None = None
    width: Count | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    pad_color: tuple[int, int, int] | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)


class InLLMSection(Section):
    """Which decoder layers are followed by an SVA block: `count` of them, from `start`, every `stride`."""

    start: Annotated[int, Field(ge=0)]
    stride: Count
    count: Count


class ConnectorSection(Section):
    """What turns visual features into image tokens; `type` decides which other keys there are."""

    type: str

    @model_validator(mode="before")
    @classmethod
    def _has_blocks(cls, values: Any) -> Any:
        if "in_llm" not in cls.model_fields and isinstance(values, Mapping) and values.get("in_llm") is not None:
            raise ValueError(without_blocks(str(values["type"])))
        return values


class SVASection(ConnectorSection):
    """See `SVAConfig`."""

    type: Literal["sva"] = "sva"
    attention: Literal["joint", "separate"] = "joint"
    width: Count = SVAConfig.width
    depth: Count = SVAConfig.depth
    num_heads: Count = SVAConfig.num_heads
    query_grid_sides: Annotated[tuple[Count, ...], Field(min_length=1)] = SVAConfig.query_grid_sides
    in_llm: InLLMSection | None = None


class ProjectorSection(ConnectorSection):
    """See `ProjectorConfig`: linear, mlp2x_gelu and so on, identity."""


class ResamplerSection(ConnectorSection):
    """See `ResamplerConfig`."""

    width: Count = ResamplerConfig.width
    depth: Count = ResamplerConfig.depth
    num_heads: Count = ResamplerConfig.num_heads


class CAbstractorSection(ConnectorSection):
    """See `CAbstractorConfig`."""

    width: Count = CAbstractorConfig.width
    depth: Count = CAbstractorConfig.depth
    mlp_depth: Count = CAbstractorConfig.mlp_depth


class LDPv2Section(ConnectorSection):
    """See `LDPv2Config`."""


def _connector_tag(values: Any) -> str | None:
    """Returns the tag of the section that describes a connector: the name of its class; None for an unknown type."""
    given = values.get("type", "sva") if isinstance(values, Mapping) else getattr(values, "type", "sva")
    found = find_connector_config(str(given))
    return found.__name__ if found else None


CONNECTOR_SECTIONS: dict[str, type[ConnectorSection]] = {
    SVAConfig.__name__: SVASection,
    ProjectorConfig.__name__: ProjectorSection,
    ResamplerConfig.__name__: ResamplerSection,
    CAbstractorConfig.__name__: CAbstractorSection,
    LDPv2Config.__name__: LDPv2Section,
}
AnyConnectorSection = Annotated[
    Annotated[SVASection, Tag(SVAConfig.__name__)]
    | Annotated[ProjectorSection, Tag(ProjectorConfig.__name__)]
    | Annotated[ResamplerSection, Tag(ResamplerConfig.__name__)]
    | Annotated[CAbstractorSection, Tag(CAbstractorConfig.__name__)]
    | Annotated[LDPv2Section, Tag(LDPv2Config.__name__)],
    Discriminator(_connector_tag),
]


class ModelSection(Section):
    """The model's parts; `assemble` builds the model and its processor from them.

    `connector_weights` is a folder that holds a trained connector, as `cambrian convert` makes of a stage-1 projector.
    `scene_seeds` are those of rendered scenes that pretrained parts were made from: no evaluation may ask about them.
    """

    language_model: LanguageModelSection
    tokenizer: str | None = None
    chat_template: str | None = None
    vision_encoders: Annotated[tuple[VisionEncoderSection, ...], Field(min_length=1)]
    connector: AnyConnectorSection = SVASection()
    connector_weights: str | None = None
    grid_side: Count = 24
    scene_seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()

    def spec(self) -> dict[str, Any]:
        """Returns the plain mapping that `cambrian_model.assemble.assemble` takes; what is not set is left out."""
        spec = self.model_dump(mode="json", exclude_none=True, exclude={"scene_seeds"})
        for encoder in spec["vision_encoders"]:
            encoder["pretrained"] = encoder["pretrained"] and "path" not in encoder
        return spec


class ScenesSection(Section):
    """Synthetic scenes, made by whoever starts the run (the command line makes them with `cambrian_data.scenes`)."""

    count: Count
    seed: Annotated[int, Field(ge=0)] = 0
    side: Annotated[int, Field(ge=16, strict=True)] = 64


class SceneQuestionsSection(Section):
    """Questions of a benchmark's kinds about scenes, likewise made by whoever starts the run.

    Attributes:
        scenes: What they are about.
        count_per_task: Questions of each task; None for as many as can be balanced.
        seed: Decides which questions are asked, and how.
    """

    scenes: ScenesSection
    count_per_task: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class TrainingQuestionsSection(SceneQuestionsSection):
    """Questions with their answers.

    Attributes:
        format_prompt: Whether questions end as the evaluation's do, asking for a letter.
        reasoning: Whether answers say where the things are before they name the letter.
    """

    format_prompt: bool = True
    reasoning: bool = False


class QuestionsSection(Section):
    """The benchmark whose kinds of questions are asked."""

    cvbench: TrainingQuestionsSection


MADE = ("scenes", "grounding", "questions")  # sources that are made by whoever starts the run


class GroundingSection(Section):
    """Descriptions of scenes, and readings of their cells, with exact places: for alignment.

    Attributes:
        scenes: What they are about.
        grid_side: Cells along either side of the grid that is read: the model's.
        readings_per_picture: Attributes of which every cell is read, beside the description.
        seed: Of the boxes drawn and the attributes read.
    """

    scenes: ScenesSection
    grid_side: Count
    readings_per_picture: Annotated[int, Field(ge=0, le=6)] = 2
    seed: Annotated[int, Field(ge=0)] = 0


class SourceSection(Section):
    """One source of training data: records in a file with their image folder, or what is made from scenes."""

    records: str | None = None
    images: str | None = None
    scenes: ScenesSection | None = None
    grounding: GroundingSection | None = None
    questions: QuestionsSection | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        _at_most_one(self, "records", *MADE)
        if _nothing(self, *MADE) and "records" not in self.model_fields_set:
            raise ValueError("give records (and images), scenes, grounding, or questions")
        return self

    def made_from(self) -> ScenesSection | None:
        """Returns the scenes that the source is made from, if it is."""
        if self.questions is not None:
            return self.questions.cvbench.scenes
        return self.grounding.scenes if self.grounding is not None else self.scenes


class OptimSection(Section):
    """AdamW and its schedule.

    Attributes:
        lr: Learning rate of every trained part that `part_lr` does not name.
        part_lr: Learning rate of single parts.
        weight_decay: Of matrices; vectors (norms, biases) have none.
        betas: Decay of the two running averages.
        eps: Added to the denominator.
        warmup: Linear warm-up: a fraction of the stage's steps if below 1, else a number of steps.
        schedule: What follows the warm-up; cosine and linear end at zero.
        clip_norm: Largest norm of all gradients together; None does not clip.
    """

    lr: Positive
    part_lr: dict[Part, Positive] = Field(default_factory=dict)
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: Positive | None = 1.0


class BatchSection(Section):
    """Packed rows: one optimizer step sees `rows` x `accumulation` of them, `rows` at a time.

    Attributes:
        rows: Rows that go through the model together.
        row_tokens: Tokens of a row; several samples share it.
        max_images: Most pictures in a row; None for any number.
        accumulation: How often `rows` are taken before a step.
    """

    rows: Count = 8
    row_tokens: Annotated[int, Field(ge=2)]
    max_images: Count | None = None
    accumulation: Count = 1

    @property
    def step_rows(self) -> int:
        """Rows of one optimizer step."""
        return self.rows * self.accumulation


class StageSection(Section):
    """One stage: exactly the parts in `train` change; it ends after `max_steps` or `epochs`, whichever is first."""

    data: str
    train: Annotated[tuple[Part, ...], Field(min_length=1)]
    optim: OptimSection
    batch: BatchSection
    max_steps: Count | None = None
    epochs: Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_steps is None and self.epochs is None:
            raise ValueError("has no end; set max_steps or epochs")
        if len(set(self.train)) < len(self.train):
            raise ValueError(f"train names a part twice: {', '.join(self.train)}")
        if frozen := [part for part in self.optim.part_lr if part not in self.train]:
            raise ValueError(
                f"optim.part_lr names {', '.join(frozen)}, which this stage does not train; "
                f"add to train or remove from part_lr (train: {', '.join(self.train)})"
            )
        return self


class CheckpointSection(Section):
    """How often a run can be continued from: every `every` steps (0: only between stages), the last `keep` stay."""

    every: Annotated[int, Field(ge=0)] = 0
    keep: Count = 2


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
    """What whoever starts the run evaluates the trained model on; training itself reads none of it."""

    cvbench: CVBenchEvaluationSection


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
        precision: "bf16" computes in bfloat16 and keeps weights and optimizer in float32.
        device: "auto" takes an accelerator if there is one.
        num_workers: Processes that decode pictures; 0 decodes in the training process. Does not change the result.
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
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_workers: Annotated[int, Field(ge=0)] = 0
    log_every: Count = 1

    @model_validator(mode="after")
    def _stages_have_data(self) -> Self:
        for name, stage in self.stages.items():
            if stage.data not in self.data:
                raise ValueError(f'stages.{name}.data is "{stage.data}"{did_you_mean(stage.data, self.data)}')
        return self

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
        missing = [f"data.{name}.records" for name, source in self.data.items() if _nothing(source, "records", *MADE)]
        if _nothing(self.model.language_model, "path", "config"):
            missing.append("model.language_model.path")
        return missing


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe by its name or file.

    Relative paths in a file are meant from that file's folder, those in `overrides` from the working directory.

    Args:
        name_or_path: A name that `list_recipes` knows, or a YAML file.
        overrides: "key=value" with a dotted key (list items by their number) and a YAML value.

    Raises:
        RecipeError: Unknown recipe or key, a value out of range, parts that contradict each other.
    """
    path = _find(name_or_path, base=Path())
    values = _merged(path, ())
    for override in overrides:
        values = _overridden(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explained(error, path)) from None


def list_recipes() -> list[tuple[str, str]]:
    """Returns name and summary of every recipe in the package."""
    return [(path.stem, str(yaml_files.read(path).get("summary", ""))) for path in sorted(_folder().glob("*.yaml"))]


def _folder() -> Path:
    return Path(str(resources.files("cambrian_model") / "recipes"))


def _find(name_or_path: str | Path, base: Path) -> Path:
    """Returns the file of a recipe: a name is looked up in the package, anything else is a path from `base`."""
    text = str(name_or_path)
    if "/" not in text and not text.endswith((".yaml", ".yml")):
        path = _folder() / f"{text}.yaml"
        if not path.is_file():
            raise RecipeError(f'unknown recipe "{text}"{did_you_mean(text, (name for name, _ in list_recipes()))}')
        return path
    path = base / text
    if not path.is_file():
        raise RecipeError(
            f"{path}: no such recipe file; give a file or a name: {', '.join(n for n, _ in list_recipes())}"
        )
    return path


def _merged(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """Reads a recipe file on top of the one that it extends, paths made absolute file by file."""
    if (path := path.resolve()) in children:
        circle = " -> ".join(p.stem for p in (*children, path))
        raise RecipeError(f"{path}: recipes extend each other in a circle: {circle}")
    values = yaml_files.read(path)
    parent = values.pop("extends", None)
    values = _with_absolute_paths(values, path.parent)
    if parent is None:
        return values
    return _deep_merge(_merged(_find(str(parent), base=path.parent), (*children, path)), values)


def _deep_merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        if both and key == "connector":
            merged[key] = _of_same_type(merged[key], value)
        merged[key] = _deep_merge(merged[key], value) if both else value
    return merged


def _of_same_type(base: Mapping[str, Any], top: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what stays of a connector under `top`: nothing if that is of another type, whose keys are others."""
    return {} if "type" in top and top["type"] != base.get("type", "sva") else base


def _overridden(values: Any, override: str) -> dict[str, Any]:
    """Returns `values` with one "a.b=value" applied; unknown fields are left to the typed check.

    Raises:
        RecipeError: No "=", or a name that the recipe does not have where names are the recipe's own.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(names := key.strip().split(".")):
        raise RecipeError(f'override "{override}" is not KEY=VALUE; write for example stages.align.max_steps=10')
    value = yaml_files.parse(text, f'override "{override}"')
    return _replaced(values, names, _with_absolute_paths(value, Path.cwd(), names), ())


def _replaced(node: Any, names: Sequence[str], value: Any, above: tuple[str, ...]) -> Any:
    name, rest = names[0], names[1:]
    where = ".".join((*above, name))
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise RecipeError(f"{where}: {'.'.join(above)} is a list; name an item by its number, 0 to {len(node) - 1}")
        item = _replaced(node[int(name)], rest, value, (*above, name)) if rest else value
        return [*node[: int(name)], item, *node[int(name) + 1 :]]
    if node is not None and not isinstance(node, Mapping):
        raise RecipeError(f"{where}: {'.'.join(above)} is {node!r} and has no keys")
    fields = dict(node or {})
    if above in (("stages",), ("data",)) and name not in fields:
        raise RecipeError(f'unknown key "{where}"{did_you_mean(name, fields)}')
    new = {name: _replaced(fields.get(name), rest, value, (*above, name)) if rest else value}
    kept = _of_same_type(fields, new) if above == ("model", "connector") else fields
    return {**kept, **new}


FILE_KEYS = (("data", "*", "records"), ("data", "*", "images"), ("model", "connector_weights"))
FILE_OR_HUB_KEYS = (
    ("model", "language_model", "path"),
    ("model", "tokenizer"),
    ("model", "vision_encoders", "*", "path"),
)


def _with_absolute_paths(value: Any, folder: Path, above: Sequence[str] = ()) -> Any:
    """Makes the paths in a recipe absolute, or in the value of its key `above`."""
    for keys in FILE_KEYS + FILE_OR_HUB_KEYS:
        if len(above) <= len(keys) and all(k in ("*", name) for k, name in zip(keys, above, strict=False)):
            value = _with_absolute_path(value, keys[len(above) :], folder, may_be_on_hub=keys in FILE_OR_HUB_KEYS)
    return value


def _with_absolute_path(node: Any, keys: Sequence[str], folder: Path, may_be_on_hub: bool) -> Any:
    if not keys:
        return _absolute(node, folder, may_be_on_hub) if isinstance(node, str) else node
    if keys[0] == "*" and isinstance(node, list):
        return [_with_absolute_path(item, keys[1:], folder, may_be_on_hub) for item in node]
    if not isinstance(node, Mapping):
        return node
    chosen = set(node) if keys[0] == "*" else {keys[0]}
    return {k: _with_absolute_path(v, keys[1:], folder, may_be_on_hub) if k in chosen else v for k, v in node.items()}


def _absolute(text: str, folder: Path, may_be_on_hub: bool) -> str:
    """Makes a path absolute; a text that may be a name on the Hub and is no existing path stays as it is."""
    path = folder / Path(text).expanduser()
    return text if may_be_on_hub and not path.exists() else str(path.resolve())


def _at_most_one(section: Section, *names: str) -> None:
    if len(given := [name for name in names if getattr(section, name) is not None]) > 1:
        raise ValueError(f"both {' and '.join(given)} are given; set all but one to null")


def _nothing(section: Section, *names: str) -> bool:
    return all(getattr(section, name) is None for name in names)


def _explained(error: ValidationError, path: Path) -> str:
    lines = [_explained_line(dict(item)) for item in error.errors(include_url=False)]
    return f"{path.name}: " + "; ".join(lines)


def _explained_line(item: dict[str, Any]) -> str:
    where = [str(name) for name in item["loc"] if name != "[key]"]
    key = ".".join(name for name in where if name not in CONNECTOR_SECTIONS)
    if item["type"] == "union_tag_not_found":
        return f"{key}.{unknown_type(str(item['input']['type']))}"
    if item["type"] == "extra_forbidden":
        return f'unknown key "{key}"{did_you_mean(where[-1], _field_names(where[:-1]))}'
    if item["type"] == "missing":
        return f"{key} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key} {reason}" if key else reason
    return f"{key} is {item['input']!r}: {reason[0].lower()}{reason[1:]}"


def _field_names(where: Sequence[str]) -> list[str]:
    """Returns the names of the section that lies at a dotted key."""
    annotation: Any = Recipe
    for name in where:
        section = _section_in(annotation)
        if name in CONNECTOR_SECTIONS:
            annotation = CONNECTOR_SECTIONS[name]
        else:
            annotation = section.model_fields[name].annotation if section else _item_of(annotation)
    section = _section_in(annotation)
    return list(section.model_fields) if section else []


def _section_in(annotation: Any) -> type[Section] | None:
    options = [annotation, *get_args(annotation)] if get_origin(annotation) not in (dict, tuple) else []
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _item_of(annotation: Any) -> Any:
    """Returns what a mapping or tuple holds."""
    args = get_args(annotation)
    return args[1] if get_origin(annotation) is dict else args[0]
