"""Everything that decides the tiny parts, and its hash: the parts in the package carry the hash they were made with."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from cambrian_data.cvbench.scenes import FORMAT_VERSION as QUESTIONS_VERSION
from cambrian_data.grounding.records import FORMAT_VERSION as GROUNDING_VERSION
from cambrian_data.scenes import FORMAT_VERSION as SCENES_VERSION
from cambrian_model.recipes.tiny_tokenizer import build_tokenizer

LANGUAGE_MODEL = "language_model"
TRAINING_VERSION = 1  # raised whenever the code of this folder makes other weights from the same values


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe:
    """The language model: a Llama of four layers.

    Attributes:
        layers, width, mlp_width, heads: Its sizes; finding the place of a named thing needs four layers.
        initializer_range: Standard deviation of fresh weights.
        steps: Optimizer steps.
        rows: Texts a step; half as many where cells are read one by one.
        lr: Peak learning rate.
        letter_weight: How much the letter of an answer counts; it is one token of forty and learned last.
        reading_share: Part of the steps that read cells one by one.
        whole_share: Part of the other steps whose rows keep all empty cells, before `whole_from`.
        whole_from: From this part of the steps on, all rows keep all cells.
        empty_share: Part of the empty cells that the other rows keep.
        blur_share: Part of the words that are mixed with a word they may be taken for.
        noise: Of a cell's vector, relative to its size.
    """

    layers: int = 4
    width: int = 64
    mlp_width: int = 256
    heads: int = 4
    initializer_range: float = 0.1
    steps: int = 9000
    rows: int = 24
    lr: float = 3e-3
    letter_weight: float = 4.0
    reading_share: float = 0.2
    whole_share: float = 0.2
    whole_from: float = 0.7
    empty_share: float = 0.1
    blur_share: float = 0.2
    noise: float = 0.15


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """One vision encoder.

    Attributes:
        name: Folder of the part.
        architecture: timm's name.
        feature_layer: The feature level used, as timm counts.
        model_args: Arguments of timm's constructor.
        layer_scale: Initial scale of residual branches, where the architecture has one; timm's default is 1e-6.
        steps: Optimizer steps.
        rows: Pictures a step.
        lr: Peak learning rate.
    """

    name: str
    architecture: str
    feature_layer: int
    model_args: dict[str, object]
    layer_scale: float | None = None
    steps: int
    rows: int = 48
    lr: float = 2e-3


CONVNEXT = EncoderRecipe(
    name="convnext",
    architecture="test_convnext",
    feature_layer=1,
    model_args={"depths": [2, 4, 1, 1], "dims": [48, 80, 8, 8], "num_classes": 0},
    layer_scale=0.3,
    steps=6000,
)
VIT = EncoderRecipe(
    name="vit",
    architecture="test_vit",
    feature_layer=-1,
    model_args={
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 64,
        "depth": 3,
        "num_heads": 4,
        "mlp_ratio": 2,
        "num_classes": 0,
        "class_token": False,
        "global_pool": "avg",
    },
    steps=3000,
)


@dataclass(frozen=True, kw_only=True)
class TinyPartsRecipe:
    """The parts of the recipe `tiny`: what real runs download, and how ours came to be.

    Attributes:
        seed: Of weights, texts and batches.
        scene_seed: Of the scenes, which no training and no evaluation of a recipe may share.
        scene_count: Scenes.
        held_out: How many of them the parts are measured on instead of trained.
        side: Pixels per side of their pictures.
        grid_side: Cells along either side of the grid: that of the model's image tokens.
        language_model: See `LanguageModelRecipe`.
        encoders: See `EncoderRecipe`.
    """

    seed: int = 0
    scene_seed: int = 101
    scene_count: int = 8000
    held_out: int = 400
    side: int = 64
    grid_side: int = 8
    language_model: LanguageModelRecipe = LanguageModelRecipe()
    encoders: tuple[EncoderRecipe, ...] = (CONVNEXT, VIT)

    @property
    def parts(self) -> list[str]:
        """Names of all parts, the one that takes longest first."""
        return [LANGUAGE_MODEL, *(encoder.name for encoder in self.encoders)]

    def encoder(self, name: str) -> EncoderRecipe:
        """Returns the recipe of one encoder."""
        return next(encoder for encoder in self.encoders if encoder.name == name)

    def hash_of(self, part: str) -> str:
        """Returns the SHA-256 over the recipe's values for a part, the versions of code and data, and the tokenizer."""
        values = asdict(self)
        encoders, language_model = values.pop("encoders"), values.pop("language_model")
        own = language_model if part == LANGUAGE_MODEL else encoders[self.parts.index(part) - 1]
        versions = {"scenes": SCENES_VERSION, "grounding": GROUNDING_VERSION, "questions": QUESTIONS_VERSION}
        made_with = versions | {"training": TRAINING_VERSION, "tokenizer": build_tokenizer().backend_tokenizer.to_str()}
        return hashlib.sha256(json.dumps([values, own, made_with], sort_keys=True).encode()).hexdigest()


def learning_rate_factor(step: int, steps: int, warmup: int = 100) -> float:
    """Returns the share of the peak rate at `step` (from 0): linear warm-up, then a cosine down to 3 percent."""
    return min(1.0, (step + 1) / warmup) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
