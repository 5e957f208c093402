"""Every connector keeps one interface: features of all encoders in, one token per cell of the grid out."""

import copy
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.connectors import Connector, ResamplerConnector, build_connector
from cambrian_model.connectors.ldp_v2 import LDPv2Connector
from cambrian_model.connectors.resampler import ResamplerLayer, cell_positions
from cambrian_model.errors import ConfigError, RecipeError, TrainingError
from cambrian_model.image_tokens import visible_mask
from cambrian_model.training import load_recipe, train
from cambrian_model.training.metrics import read_metrics
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.trainable import select_trainable
from tests.support.recipes import SCRATCH
from tests.support.tiny_model import GRID_SIDE, IMAGE_TOKEN_ID, VOCABULARY, tiny_config, tiny_sample

CELLS, DIM = GRID_SIDE**2, 48
SPECS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp3x_gelu": {},
    "identity": {},
    "resampler": {"width": 24, "depth": 2, "num_heads": 3},
    "c_abstractor": {"width": 20, "depth": 2, "mlp_depth": 2},
    "ldp_v2": {},
    "sva": {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]},
}
GRIDS = {"resampler": (6, 5), "c_abstractor": (7, 7), "ldp_v2": (7, 7), "sva": (4, 8)}  # of the rest: (4, 4)
WIDTHS = (19, 29)
SIZES = [(20, 50), (70, 20), (33, 33)]

each = pytest.mark.parametrize("name", SPECS)
pooled = pytest.mark.parametrize("name", ["c_abstractor", "ldp_v2"])


def connector_config(name: str, **changes: Any) -> CambrianConfig:
    """A model of encoders whose features are saved, with a connector of each type."""
    encoders = [
        VisionEncoderConfig("precomputed", f"saved-{width}", image_side=0, width=width, grid_side=side)
        for width, side in zip(WIDTHS, GRIDS.get(name, (4, 4)), strict=True)
    ]
    return tiny_config(**{"vision_encoders": encoders, "connector": {"type": name, **SPECS[name]}, **changes})


def connector(name: str, **changes: Any) -> Connector:
    torch.manual_seed(0)
    return build_connector(connector_config(name, **changes))


def features(name: str, images: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = GRIDS.get(name, (4, 4))
    return [torch.randn(images, s * s, w, generator=generator) for s, w in zip(sides, WIDTHS, strict=True)]


@each
@torch.no_grad()
def test_every_picture_gives_one_token_per_cell(name):
    cells = connector(name).connect(features(name, 3), SIZES).cells
    assert cells.shape == (3, CELLS, DIM)
    assert (cells.std(dim=1) > 0).all()


@each
@torch.no_grad()
def test_a_picture_does_not_depend_on_the_others_nor_on_its_place_among_them(name):
    build, given, order = connector(name).train(), features(name, 3), [2, 0, 1]
    together = build.connect(given, SIZES).cells
    # 1e-5: the same sums, blocked otherwise for another number of rows
    permuted = build.connect([x[order] for x in given], [SIZES[i] for i in order]).cells
    torch.testing.assert_close(permuted, together[order], atol=1e-5, rtol=0)
    for i, size in enumerate(SIZES):
        alone = build.connect([x[i : i + 1] for x in given], [size]).cells
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


@each
@torch.no_grad()
def test_pictures_of_any_shape_give_finite_tokens(name):
    sizes = [(1, 5000), (5000, 1), (1, 1), (336, 337)]
    assert connector(name).connect(features(name, 4), sizes).cells.isfinite().all()


def loss(build: Connector, given: list[torch.Tensor], sizes: list[tuple[int, int]]) -> torch.Tensor:
    """A number that depends on every token that the language model would see, newlines included."""
    tokens = build(given, sizes).tokens
    return (tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))).sum()


@each
def test_gradients_reach_every_parameter(name):
    build = connector(name)
    loss(build, features(name, 3), SIZES).backward()
    assert [n for n, p in build.named_parameters() if p.grad is None or not p.grad.any()] == []


@each
def test_no_pictures_give_no_tokens_and_gradients_of_zero(name):
    build, given = connector(name), [x.requires_grad_() for x in features(name, 0)]
    assert build.connect(given, []).cells.shape == (0, CELLS, DIM)
    loss(build, given, []).backward()
    assert [n for n, p in build.named_parameters() if p.grad is None or p.grad.any()] == []
    assert all(x.grad is not None for x in given)


@each
@torch.no_grad()
def test_half_precision_gives_the_same_tokens_roughly(name):
    build, given = connector(name), features(name, 3)
    exact = build.connect(given, SIZES).cells
    half = copy.deepcopy(build).bfloat16().connect([x.bfloat16() for x in given], SIZES).cells
    assert half.dtype == torch.bfloat16
    # 3 %: bfloat16 keeps eight bits, and at most a dozen products follow each other
    assert (half.float() - exact).square().mean().sqrt() < 0.03 * exact.std()


@each
@torch.no_grad()
def test_a_fresh_connector_speaks_at_the_size_asked_for(name):
    build = connector(name)
    build.match_size(0.3)
    torch.testing.assert_close(build.newline.square().mean().sqrt().item(), 0.3)
    cells = build.connect(features(name, 8), [(33, 33)] * 8).cells
    size = cells.std(dim=(0, 1)).square().mean().sqrt().item()
    # a fifth: it was measured on four other random pictures
    assert size == pytest.approx(1.0 if build.output_layer is None else 0.3, rel=0.2)


@each
def test_a_connector_has_no_state_but_its_parameters(name):
    with torch.device("meta"):
        shell = connector(name)
    assert list(shell.buffers()) == []
    shell = shell.to_empty(device="cpu")
    shell.load_state_dict(connector(name).state_dict())
    given = features(name, 3)
    assert torch.equal(shell.connect(given, SIZES).cells, connector(name).connect(given, SIZES).cells)


# --- padding


def with_garbage(given: list[torch.Tensor], sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Replaces every feature that shows only padding."""
    masks = [visible_mask(sizes, round(x.shape[1] ** 0.5)).flatten(1)[..., None] for x in given]
    return [torch.where(mask, x, 1e4 * torch.randn_like(x)) for x, mask in zip(given, masks, strict=True)]


@torch.no_grad()
def test_a_resampler_does_not_see_padding():
    build, given = connector("resampler"), features("resampler", 3)
    tokens = build.connect(given, SIZES).cells
    # 1e-5: nothing but the order of sums may differ
    torch.testing.assert_close(build.connect(with_garbage(given, SIZES), SIZES).cells, tokens, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_resampler_layer_equals_attention_over_what_is_visible_alone():
    torch.manual_seed(3)
    layer, queries, seen = ResamplerLayer(24, 3), torch.randn(2, 6, 24), torch.randn(2, 11, 24)
    shows, asks = torch.rand(2, 11) < 0.5, torch.rand(2, 6) < 0.7
    together = layer(queries, seen, torch.cat([shows, asks], dim=1))
    for i in range(2):
        few, feature = queries[i, asks[i]][None], seen[i, shows[i]][None]
        alone = layer(few, feature, torch.ones(1, feature.shape[1] + few.shape[1], dtype=torch.bool))
        # 1e-5: shorter sums
        torch.testing.assert_close(together[i, asks[i]], alone[0], atol=1e-5, rtol=0)


@pooled
@torch.no_grad()
def test_pooling_connectors_see_padding_as_their_originals_do(name):
    build, given = connector(name), features(name, 3)
    tokens = build.connect(given, SIZES).cells
    changed = build.connect(with_garbage(given, SIZES), SIZES).cells - tokens
    visible = visible_mask(SIZES, GRID_SIDE).flatten(1)
    assert changed[visible].abs().max() > tokens.std()
    torch.testing.assert_close(changed[2], torch.zeros(CELLS, DIM))  # a square picture has no padding


# --- what each one computes


def test_positions_of_all_grids_agree_on_where_a_thing_is():
    coarse = cell_positions(4, 4, 24).unflatten(0, (4, 4))
    fine = cell_positions(12, 4, 24).unflatten(0, (12, 12))
    # 1e-6: the middle of three cells has the centre of the coarse one, by another division
    torch.testing.assert_close(fine[1::3, 1::3], coarse, atol=1e-6, rtol=0)
    assert torch.cdist(fine.flatten(0, 1), fine.flatten(0, 1)).fill_diagonal_(1).min() > 0.1
    rows, columns = coarse.split(12, dim=-1)
    assert torch.equal(rows[:, :1].expand(4, 4, 12), rows)
    assert torch.equal(columns, rows.transpose(0, 1))


@torch.no_grad()
def test_a_resampler_tells_encoders_and_places_apart():
    build = connector("resampler")
    assert isinstance(build, ResamplerConnector)
    given = features("resampler", 1)
    moved = [given[0].roll(7, dims=1), given[1]]
    assert not torch.allclose(build.connect(given, [(33, 33)]).cells, build.connect(moved, [(33, 33)]).cells, atol=1e-3)
    before = build.connect(given, [(33, 33)]).cells
    build.encoder_embeddings.mul_(-50)
    assert not torch.allclose(build.connect(given, [(33, 33)]).cells, before, atol=1e-3)


@torch.no_grad()
def test_ldp_averages_what_falls_into_a_cell_and_adds_a_convolution_per_channel():
    encoders = [VisionEncoderConfig("precomputed", "saved", image_side=0, width=width, grid_side=8) for width in WIDTHS]
    build = connector("ldp_v2", vision_encoders=encoders)
    assert isinstance(build, LDPv2Connector)
    given = [torch.randn(2, 64, width) for width in WIDTHS]
    projected = build.output(torch.cat(given, dim=-1)).reshape(2, 4, 2, 4, 2, DIM)
    averages = functional.pad(projected.mean(dim=(2, 4)), (0, 0, 1, 1, 1, 1))  # a border of zeros
    kernel = build.position.weight[:, 0]  # channel, 3, 3
    assert build.position.bias is not None
    expected = averages[:, 1:5, 1:5] + build.position.bias
    for row in range(3):
        for column in range(3):
            expected = expected + averages[:, row : row + 4, column : column + 4] * kernel[:, row, column]
    # 1e-5: the same sums in another order
    torch.testing.assert_close(build.connect(given, SIZES[:2]).cells, expected.flatten(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_c_abstractor_knows_places_and_keeps_them():
    build = connector("c_abstractor")
    alike = [x[:, :1].expand(-1, 49, -1) for x in features("c_abstractor", 1)]
    assert (
        build.connect(alike, [(33, 33)]).cells.std(dim=1).max() > 1e-3
    )  # positions and borders differ, if nothing else does
    changed = [x.clone() for x in alike]
    changed[0][:, 0] += 5  # the upper left corner
    difference = (
        (build.connect(changed, [(33, 33)]).cells - build.connect(alike, [(33, 33)]).cells).norm(dim=-1).reshape(4, 4)
    )
    assert difference[0, 0] == difference.max() > 2 * difference[3, 3]


@pytest.mark.parametrize(("name", "depth"), [("identity", 0), ("linear", 1), ("mlp1x_gelu", 1), ("mlp5x_gelu", 5)])
@torch.no_grad()
def test_projectors_have_as_many_layers_as_their_name_says(name, depth):
    build = connector("linear", connector={"type": name})
    layers = [module for module in build.modules() if isinstance(module, nn.Linear)]
    assert [layer.out_features for layer in layers] == [DIM] * depth
    x = torch.cat(given := features("linear", 2), dim=-1)
    for i, layer in enumerate(layers):
        x = layer(functional.gelu(x) if i else x)
    torch.testing.assert_close(build.connect(given, SIZES[:2]).cells, x)


# --- whole models


def whole_model(name: str) -> CambrianForConditionalGeneration:
    """A model of timm encoders on the grids that the connector takes; the identity has one encoder of DIM channels."""
    convnext = {"library": "timm", "name": "test_convnext", "image_side": 64}
    encoders: list[dict[str, Any]] = [
        {"library": "timm", "name": "test_vit", "image_side": 64, "width": 64, "model_args": {"img_size": 64}},
        {**convnext, "width": 32, "feature_layer": 1},
    ]
    if name == "identity":
        encoders = [{**convnext, "width": DIM, "feature_layer": 2}]
    for encoder, side in zip(encoders, GRIDS.get(name, (4, 4)), strict=False):
        encoder["grid_side"] = side
    torch.manual_seed(0)
    config = tiny_config(vision_encoders=encoders, connector={"type": name, **SPECS[name]})
    return CambrianForConditionalGeneration(config).eval()


def inputs(model: CambrianForConditionalGeneration, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    sample = tiny_sample(4, sizes)
    return {**sample, "pixel_values": sample["pixel_values"][: len(model.encoders)]}


@each
def test_a_whole_model_learns_from_pictures_and_text_answers_and_reloads(name, tmp_path):
    model = whole_model(name)
    sample = inputs(model, SIZES)
    labels = sample["input_ids"].masked_fill(sample["input_ids"] == IMAGE_TOKEN_ID, -100)
    model(**sample, labels=labels, use_cache=False).loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert [n for n, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []

    model.save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(**sample).logits
        assert torch.equal(loaded(**sample).logits, logits)
        other = {**sample, "pixel_values": [x.flip(0) for x in sample["pixel_values"]]}
        assert not torch.equal(model(**other).logits, logits)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    ids, again = model.generate(**sample, **options), loaded.generate(**sample, **options)
    assert ids.shape[1] == sample["input_ids"].shape[1] + 4
    assert torch.equal(ids, again)


@each
@pytest.mark.parametrize("frozen", [[], ["vision_encoders", "language_model"]])
def test_a_batch_without_pictures_reaches_every_trainable_parameter(name, frozen):
    model = whole_model(name)
    for part in frozen:
        getattr(model, part).requires_grad_(False)
    ids = torch.randint(3, VOCABULARY, (2, 9))
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [n for n, p in model.connector.named_parameters() if p.grad is None or p.grad.any()] == []


# --- what does not fit


def precomputed(*sides: int) -> list[VisionEncoderConfig]:
    return [VisionEncoderConfig("precomputed", f"saved-{i}", 0, 24, side) for i, side in enumerate(sides)]


@pytest.mark.parametrize(
    ("spec", "sides", "message"),
    [
        ({"type": "rezampler"}, (4,), 'connector.type is "rezampler"; did you mean "resampler"'),
        ({"type": "c-abstractor"}, (4,), 'connector.type is "c-abstractor"; did you mean "c_abstractor"'),
        ({"type": "mlp0x_gelu"}, (4,), 'connector.type is "mlp0x_gelu"; did you mean "mlp2x_gelu"'),
        ({"type": "ldp_v2", "width": 4}, (4,), 'connector: unknown key "width"; known: type'),
        ({"type": "resampler", "heads": 4}, (4,), 'connector: unknown key "heads"'),
        ({"type": "resampler", "width": 30, "num_heads": 4}, (4,), "width 30 is not a multiple of connector.num_heads"),
        ({"type": "resampler", "width": 30, "num_heads": 3}, (4,), "connector.width 30 is not a multiple of 4"),
        ({"type": "resampler", "depth": 0}, (4,), "connector.depth is 0; expected a whole number above 0"),
        ({"type": "c_abstractor", "width": "wide"}, (4,), "connector.width is 'wide'; expected a whole number above 0"),
        ({"type": "sva", "num_heads": 0}, (4,), "connector.num_heads is 0; expected a whole number above 0"),
        ({"type": "sva", "query_grid_sides": []}, (4,), r"connector.query_grid_sides is \(\); expected"),
        ({"type": "c_abstractor"}, (8, 7), r"\[1\] \(saved-1\): its grid side is 7, that of the first is 8, .* alike"),
        ({"type": "ldp_v2"}, (3, 3), r"\[0\] \(saved-0\): its grid side is 3, less than that of the image tokens, 4"),
        ({"type": "identity"}, (4, 8), r"\[1\] \(saved-1\): its grid side is 8, .* grid side of the image tokens, 4"),
        *(
            (
                {"type": name, "in_llm": {"start": 0, "stride": 1, "count": 1}},
                (4,),
                rf'a connector of type "{name}" has no blocks inside the language model; remove connector.in_llm',
            )
            for name in SPECS
            if name != "sva"
        ),
    ],
)
def test_a_connector_that_does_not_fit_says_why(spec, sides, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(vision_encoders=precomputed(*sides), connector=spec)


def test_no_blocks_inside_the_language_model_may_be_said():
    assert tiny_config(vision_encoders=precomputed(4), connector={"type": "linear", "in_llm": None}).in_llm_layers == []


def test_an_identity_of_another_width_than_the_language_model_s_is_refused():
    with pytest.raises(ConfigError, match="hands the encoders' 24 channels to a language model of width 48"):
        build_connector(tiny_config(vision_encoders=precomputed(4), connector={"type": "identity"}))


# --- recipes

SETTINGS = {
    "linear": "{type: linear}",
    "mlp2x_gelu": "{type: mlp2x_gelu}",
    "identity": "{type: identity}",
    "resampler": "{type: resampler, width: 24, depth: 1, num_heads: 3}",
    "c_abstractor": "{type: c_abstractor, width: 16, depth: 1}",
    "ldp_v2": "{type: ldp_v2}",
    "sva": "{type: sva, width: 16, depth: 1, num_heads: 4, query_grid_sides: [4], attention: separate}",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_takes_every_connector_and_prints_it(name, tmp_path):
    recipe = load_recipe(SCRATCH, [f"model.connector={SETTINGS[name]}"])
    assert recipe.model.spec()["connector"]["type"] == name
    assert ("attention" in recipe.model.spec()["connector"]) == (name == "sva")
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "mine.yaml") == recipe


def test_another_type_of_connector_starts_from_its_own_defaults(tmp_path):
    by_type = load_recipe(SCRATCH, ["model.connector.type=resampler", "model.connector.depth=2"])
    assert by_type.model.spec()["connector"] == {"type": "resampler", "width": 1536, "depth": 2, "num_heads": 16}
    same = load_recipe(SCRATCH, ["model.connector.type=sva", "model.connector.depth=2"])
    assert (same.model.spec()["connector"]["width"], same.model.spec()["connector"]["depth"]) == (96, 2)
    child = f"extends: {SCRATCH}\nname: child\nmodel: {{connector: {{type: linear}}}}\n"
    (tmp_path / "child.yaml").write_text(child)
    assert load_recipe(tmp_path / "child.yaml").model.spec()["connector"] == {"type": "linear"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{type: c_abstracter}", r'model.connector.type is "c_abstracter"; did you mean "c_abstractor"'),
        ("{type: mlp_gelu}", r'model.connector.type is "mlp_gelu"; did you mean "mlp2x_gelu"'),
        ("{type: c_abstractor, dept: 2}", r'unknown key "model.connector.dept"; did you mean "depth"'),
        ("{type: ldp_v2, width: 2}", r'unknown key "model.connector.width"; known: type'),
        ("{type: sva, attention: jont}", r"model.connector.attention is 'jont': input should be 'joint' or 'separate'"),
        ("{type: resampler, num_heads: 0}", r"model.connector.num_heads is 0: input should be greater than or equal"),
        ("{type: linear, in_llm: {start: 0, stride: 1, count: 1}}", r'of type "linear" has no blocks inside'),
        ("resampler", r"model.connector is 'resampler': input should be a valid dictionary"),
    ],
)
def test_a_bad_connector_in_a_recipe_is_named(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(SCRATCH, [f"model.connector={override}"])


def small_recipe(name: str, *overrides: str) -> Recipe:
    small = [
        f"model.connector={SETTINGS[name]}",
        "model.vision_encoders.1.grid_side=4",  # 64 and 32 channels, together the language model's 96
        "model.language_model.config.num_hidden_layers=1",
        "stages.align.train=[connector, language_model]",
        "stages.align.batch={rows: 1, row_tokens: 96}",
        "stages.align.max_steps=2",
        *("checkpoint.every=0", "device=cpu"),
    ]
    return load_recipe(SCRATCH, [*small, *overrides])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (40, 60), "red").save(path)
    question = [{"type": "image"}, {"type": "text", "text": "Which color?"}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "It is red."}]},
    ]
    return {"scenes": [{"id": str(i), "source": "test", "messages": messages, "images": [str(path)]} for i in range(3)]}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_trains_every_connector(name, datasets, tmp_path):
    recipe = small_recipe(name, f"precision={'bf16' if name in ('resampler', 'c_abstractor') else 'fp32'}")
    result = train(recipe, datasets=datasets, output=tmp_path / "run", stages=["align"])
    lines = read_metrics(result.run_dir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["grad_norm"] > 0 for line in lines)
    built = CambrianForConditionalGeneration.from_pretrained(result.checkpoint)
    assert built.config.connector_config.type == name


def test_a_checkpoint_with_another_connector_is_no_start(datasets, tmp_path):
    first = train(small_recipe("resampler"), datasets=datasets, output=tmp_path / "a", stages=["align"])
    options: dict[str, Any] = {"datasets": datasets, "stages": ["align"], "start_from": first.checkpoint}
    for recipe, message in [
        (small_recipe("ldp_v2"), "model.connector.type is ldp_v2 in the recipe, but resampler in the checkpoint"),
        (small_recipe("resampler", "model.connector.depth=2"), "model.connector.depth is 2 in the recipe, but 1"),
    ]:
        with pytest.raises(TrainingError, match=message):
            train(recipe, output=tmp_path / "b", **options)
    again = train(small_recipe("resampler"), output=tmp_path / "b", **options)
    begun, begun_before = again.stages["align"].first_loss, first.stages["align"].first_loss
    assert begun is not None
    assert begun_before is not None
    assert begun < begun_before


def test_a_model_without_blocks_trains_what_it_has():
    model, stage = whole_model("linear"), small_recipe("linear").stages["align"]
    rows = {row.part: (row.tensors, row.lr) for row in select_trainable(model, stage).table}
    assert rows["projector"] == (3, stage.optim.lr)
    assert rows["vision_encoders"][1] is None
    assert not {"sva", "in_llm"} & rows.keys()
    asked = small_recipe("linear", "stages.align.train=[connector, in_llm]").stages["align"]
    there = "vision_encoders, projector, language_model"
    with pytest.raises(RecipeError, match=f'train: "in_llm" names nothing that is there; there are {there}$'):
        select_trainable(model, asked)
