"""Properties of the Spatial Vision Aggregator: absorbed projections, masks, grids, batches."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cambrian_model.config import CambrianConfig, SVAConfig
from cambrian_model.connectors import SVAConnector, window_attend
from cambrian_model.connectors.sva import SVABlock
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.connectors.window_attention import WindowShape
from tests.support.plain_sva import plain_block
from tests.support.tiny_model import tiny_config

ROOT = Path(__file__).parents[2]
WIDTH, QUERY_DIM, HEADS = 24, 40, 3
SIDES = (1, 2, 1, 3)
ATTENTIONS = ["joint", "separate"]


def new_block(attention: str = "joint", sides: tuple[int, ...] = SIDES, dtype: torch.dtype = torch.float32) -> SVABlock:
    torch.manual_seed(0)
    windows = [WindowShape(side, WIDTH) for side in sides]
    block = SVABlock(QUERY_DIM, WIDTH, windows, HEADS, attention)
    for name, parameter in block.named_parameters():
        if "norm" in name:  # so that the affine parts of the norms matter
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    return block.to(dtype)


def new_inputs(
    num_queries: int = 11, sides: tuple[int, ...] = SIDES, dtype: torch.dtype = torch.float32, seed: int = 1
) -> tuple[Tensor, VisualContext]:
    torch.manual_seed(seed)
    features = tuple(torch.randn(num_queries, side**2, WIDTH, dtype=dtype) * 2 + 0.5 for side in sides)
    masks = tuple(torch.rand(num_queries, side**2) > 0.4 for side in sides)
    for mask in masks:
        mask[:, 0] |= ~mask.any(-1)
    image_of_query = torch.arange(num_queries) % 3
    context = VisualContext(features, masks, torch.randn(3, WIDTH, dtype=dtype), image_of_query)
    return torch.randn(num_queries, QUERY_DIM, dtype=dtype), context


def with_grad(queries: Tensor, context: VisualContext) -> tuple[Tensor, VisualContext, list[Tensor]]:
    queries = queries.clone().requires_grad_()
    features = tuple(x.clone().requires_grad_() for x in context.features)
    summary = context.summary.clone().requires_grad_()
    return queries, context._replace(features=features, summary=summary), [queries, *features, summary]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("sides", [(1,), (3,), (1, 1), (2, 1), SIDES])
@pytest.mark.parametrize(
    # Rounding of another order of the same sums: about 20 units in the last place of numbers near 10.
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float64, 1e-13)],
)
def test_absorbed_and_plain_projections_give_the_same_output_and_gradients(attention, sides, dtype, tolerance):
    block = new_block(attention, sides, dtype)
    queries, context, leaves = with_grad(*new_inputs(sides=sides, dtype=dtype))
    direction = torch.randn(queries.shape, dtype=dtype)
    results = []
    for compute in (block, functools.partial(plain_block, block)):
        output = compute(queries, context)
        wanted = [*leaves, *block.parameters()]
        grads = torch.autograd.grad((output * direction).sum(), wanted, allow_unused=True, materialize_grads=True)
        results.append([output, *grads])
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).abs().max() <= tolerance * max(plain.abs().max().item(), 1.0)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_bfloat16_stays_as_near_to_float32_as_plain_projections_do(attention):
    exact = plain_block(new_block(attention, dtype=torch.float64), *new_inputs(num_queries=200, dtype=torch.float64))
    block = new_block(attention, dtype=torch.bfloat16)
    inputs = new_inputs(num_queries=200, dtype=torch.float64)
    queries = inputs[0].bfloat16()
    context = inputs[1]._replace(
        features=tuple(x.bfloat16() for x in inputs[1].features), summary=inputs[1].summary.bfloat16()
    )
    ours, plain = (f(queries, context).double() - exact for f in (block, functools.partial(plain_block, block)))
    size = exact.square().mean().sqrt()
    # bfloat16 keeps 8 bits: a chain of ten roundings leaves about 1 % of the output's size.
    assert ours.square().mean().sqrt() / size < 0.02
    assert ours.square().mean() <= 1.5 * plain.square().mean()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own checker looks at tensors that have none
def test_the_operator_has_the_gradients_of_its_output(monkeypatch):
    monkeypatch.setattr(window_attend, "_CHUNK_BYTES", {"cpu": 1})  # one query at a time
    torch.manual_seed(0)
    heads, dim, width = 2, 3, 5
    q, features = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, heads, dim), (4, 7, width)))
    shapes = [(heads * dim, width), (width,)] * 2
    weights = [torch.randn(*shape, dtype=torch.float64) for shape in shapes]
    position = torch.randn(7, width, dtype=torch.float64)
    mask = torch.rand(4, 7) > 0.3
    inputs = [x.requires_grad_() for x in (q, *weights, features, position)]
    operator = lambda *x: window_attend.window_attend(*x, mask)[:2]  # noqa: E731
    assert torch.autograd.gradcheck(operator, inputs)
    torch.library.opcheck(window_attend.window_attend, (*inputs, mask))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_few_queries_at_a_time_give_what_all_at_once_give(attention, monkeypatch):
    block = new_block(attention)
    results = []
    for size in (1, 3000, 1 << 30):
        monkeypatch.setattr(window_attend, "_CHUNK_BYTES", {"cpu": size})
        queries, context, leaves = with_grad(*new_inputs())
        block(queries, context).square().sum().backward()
        results.append([leaf.grad for leaf in leaves] + [parameter.grad for parameter in block.parameters()])
        block.zero_grad()
    for one, other in ((results[0], results[2]), (results[1], results[2])):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)  # sums over queries in another order


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_masked_features_do_not_matter(attention):
    sides = (2, 3)  # a separate window of one feature has no mask, as in the original
    block = new_block(attention, sides)
    queries, context = new_inputs(sides=sides)
    assert not all(mask.all() for mask in context.masks)
    garbage = tuple(
        torch.where(mask[..., None], x, 1e4) for x, mask in zip(context.features, context.masks, strict=True)
    )
    expected = block(queries, context)
    torch.testing.assert_close(block(queries, context._replace(features=garbage)), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(block(queries, context._replace(features=tuple(x + 1e4 for x in garbage))), expected)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_permuting_queries_permutes_the_output(attention):
    block = new_block(attention)
    queries, context = new_inputs()
    order = torch.randperm(len(queries))
    torch.testing.assert_close(block(queries[order], context.select(order)), block(queries, context)[order])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_queries_give_nothing_and_zero_gradients(attention):
    block = new_block(attention)
    queries, context, _ = with_grad(*new_inputs())
    nothing = torch.arange(0)
    output = block(queries[nothing], context.select(nothing))
    assert output.shape == (0, QUERY_DIM)
    output.sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_autocast_computes_in_low_precision_near_float32(attention):
    block = new_block(attention)
    queries, context, leaves = with_grad(*new_inputs())
    expected = block(queries, context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = block(queries, context)
    output.float().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    assert (output - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()  # as for bfloat16


def grid_config(attention: str, query_grid_sides: list[int], **changes: object) -> CambrianConfig:
    encoders = [
        {"library": "precomputed", "name": f"e{side}", "image_side": 0, "width": width, "grid_side": side}
        for side, width in ((6, 5), (12, 7), (18, 3))
    ]
    connector = {"width": WIDTH, "num_heads": HEADS, "query_grid_sides": query_grid_sides, "attention": attention}
    return tiny_config(vision_encoders=encoders, connector=connector | changes, grid_side=6)


def new_connector(config: CambrianConfig) -> SVAConnector:
    torch.manual_seed(2)
    spec = config.connector_config
    assert isinstance(spec, SVAConfig)
    return SVAConnector(config, spec)


def new_features(images: int) -> list[Tensor]:
    return [torch.randn(images, side**2, width) for side, width in ((6, 5), (12, 7), (18, 3))]


SIZES = [(30, 30), (10, 50), (60, 20)]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("sides", [[6], [6, 3], [2, 3, 6], [1]])
def test_every_number_of_groups_ends_on_the_final_grid(attention, sides):
    connector = new_connector(grid_config(attention, sides, depth=2))
    cells, context = connector.connect(new_features(3), SIZES)
    assert cells.shape == (3, 36, 48)
    assert context is None
    assert all(p.grad is None for p in connector.parameters())
    cells.sum().backward()
    assert all(p.grad is not None for name, p in connector.named_parameters() if name != "newline")


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_picture_is_aggregated_alike_in_any_company_and_order(attention):
    connector = new_connector(grid_config(attention, [6, 3], in_llm={"start": 0, "stride": 1, "count": 1}))
    features, order = new_features(3), torch.tensor([2, 0, 1])
    cells, context = connector.connect(features, SIZES)
    permuted, _ = connector.connect([x[order] for x in features], [SIZES[i] for i in order])
    torch.testing.assert_close(permuted, cells[order], atol=1e-6, rtol=1e-6)  # batched products, other order
    for i in range(3):
        alone, _ = connector.connect([x[i : i + 1] for x in features], SIZES[i : i + 1])
        torch.testing.assert_close(alone[0], cells[i], atol=1e-6, rtol=1e-6)
    assert context is not None
    assert [x.shape for x in context.features] == [(108, 1, WIDTH), (108, 4, WIDTH), (108, 9, WIDTH)]


def test_features_that_only_padding_shows_do_not_reach_visible_cells():
    connector = new_connector(grid_config("joint", [6]))
    features = new_features(1)
    before, _ = connector.connect(features, [(10, 50)])  # rows 2 and 3 of 6 show the picture
    # The summary is the mean of the first encoder over the whole square, as in the original: leave that one alone.
    for x, side in zip(features[1:], (12, 18), strict=True):
        grid = x.view(side, side, -1)
        grid[: side // 3] = grid[-side // 3 :] = 1e3
    after, _ = connector.connect(features, [(10, 50)])
    visible = slice(2 * 6, 4 * 6)
    torch.testing.assert_close(after[0, visible], before[0, visible], atol=1e-5, rtol=0)
    assert not torch.allclose(after[0, :12], before[0, :12])


def test_no_pictures_give_no_cells_and_zero_gradients():
    connector = new_connector(grid_config("joint", [6, 3]))
    cells, _ = connector.connect(new_features(0), [])
    assert cells.shape == (0, 36, 48)
    cells.sum().backward()
    grads = [p.grad for name, p in connector.named_parameters() if name != "newline"]
    assert all(grad is not None and not grad.any() for grad in grads)


COMPILE = """
import torch
from torch._dynamo.utils import counters
from tests.model.test_sva import new_block, new_inputs

block = new_block("ATTENTION")
compiled = torch.compile(block, fullgraph=True, dynamic=True)
for count in (5, 11, 17):
    queries, context = new_inputs(count)
    torch.testing.assert_close(compiled(queries, context), block(queries, context), atol=1e-5, rtol=1e-5)
    compiled(queries, context).sum().backward()
assert counters["stats"]["unique_graphs"] == 1, counters["stats"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_compiler_sees_one_graph_for_any_number_of_queries(attention):
    # In its own process: the shape checks of the test run are not for a compiler.
    script = COMPILE.replace("ATTENTION", attention)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
