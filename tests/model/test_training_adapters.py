"""LoRA and QLoRA: what is adapted, what trains, and what leaves a run: a plain checkpoint, or an adapter of peft."""

import sys
import warnings
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.errors import ConfigError, TrainingError
from cambrian_model.language.adapters import linear_layers
from cambrian_model.training.adapters import (
    add_adapters,
    check_shardable,
    is_adapter,
    merge_adapters,
    plain_weights,
    quantize_language_model,
    save_adapters,
)
from cambrian_model.training.distributed import shard, whole
from cambrian_model.training.ema import EMA
from cambrian_model.training.parts import part_of
from cambrian_model.training.recipe.stage import AdaptersSection, BatchSection, OptimSection, StageSection
from cambrian_model.training.trainable import select_trainable
from tests.support.gloo import run_ranks
from tests.support.tiny_model import tiny_config, tiny_model, tiny_sample

OPTIONS = AdaptersSection(rank=5, alpha=10)  # odd: two ranks hold unequal shards
STAGE = StageSection(
    data={"some": 1.0}, train=("adapters", "connector"), optim=OptimSection(lr=1e-2), batch=BatchSection(row_tokens=64),
    max_steps=1, adapters=OPTIONS,
)  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def wide_model() -> CambrianForConditionalGeneration:
    """nf4 needs multiples of 64."""
    text: Any = tiny_config().text_config
    text.hidden_size, text.intermediate_size, text.head_dim, text.attention_bias = 64, 128, 16, True
    return tiny_model(text_config=text)


def adapted_model(kind: Any = None, stage: StageSection = STAGE) -> CambrianForConditionalGeneration:
    """Adapters and connector are trainable; the adapters do nothing yet."""
    model = wide_model() if kind else tiny_model()
    if kind:
        quantize_language_model(model, kind, torch.float32)
    add_adapters(model, OPTIONS)
    select_trainable(model, stage)
    return model.train()


def shake_adapters(model: nn.Module) -> None:
    """Gives every adapter an effect, as training does."""
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            nn.init.normal_(parameter, std=0.1)


def sample(seed: int = 0) -> dict[str, Any]:
    inputs = tiny_sample(seed, [(50, 64)])
    return {**inputs, "labels": inputs["input_ids"]}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(**tiny_sample(3, [(64, 40), (50, 64)])).logits


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def trained_names(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    model.train()(**sample()).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def train(model: nn.Module, steps: int) -> list[float]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-2, weight_decay=0.1)
    losses = []
    for _ in range(steps):
        loss = model(**sample()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# --- where adapters sit


@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj")])
def test_adapters_sit_on_the_decoders_own_layers_and_on_nothing_that_shares_their_names(targets):
    model = tiny_model()
    before = tensors(model)
    add_adapters(model, AdaptersSection(rank=5, targets=targets))
    assert type(model) is CambrianForConditionalGeneration
    found = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if is_adapter(name)}
    same_names = {
        name.removesuffix(".weight") for name in before if name.split(".")[-2:][0] in (targets or PROJECTIONS)
    }
    own = {name for name in same_names if name.startswith("language_model.model.layers") and ".sva." not in name}
    assert found == own < same_names
    after = {name.replace(".base_layer", ""): p for name, p in model.named_parameters() if not is_adapter(name)}
    assert after.keys() == before.keys()
    assert all(torch.equal(p, before[name]) for name, p in after.items())


def test_the_language_model_is_frozen_and_all_else_stays_as_trainable_as_it_was():
    model = tiny_model()
    model.vision_encoders.requires_grad_(False)
    add_adapters(model, OPTIONS)
    trained = {part_of(name) for name in trained_names(model)}
    assert trained == {"projector", "sva", "in_llm", "adapters"}
    assert all(p.requires_grad for name, p in model.named_parameters() if part_of(name) in trained)


def test_a_fresh_adapter_changes_nothing():
    # Bit by bit: what it adds is zero.
    assert torch.equal(logits(adapted_model()), logits(tiny_model()))


def test_adapters_of_a_half_precision_model_are_float32():
    model = tiny_model().bfloat16()
    add_adapters(model, OPTIONS)
    dtypes = {(is_adapter(name), p.dtype) for name, p in model.named_parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_a_model_without_weights_can_be_planned_with():
    with torch.device("meta"):
        model = CambrianForConditionalGeneration(tiny_config())
    add_adapters(model, OPTIONS)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in adapted_model().named_parameters()]


def test_a_layer_that_is_not_there_is_named_with_the_nearest_one():
    with pytest.raises(ConfigError, match='no linear layer "q_prj"; did you mean "q_proj"'):
        add_adapters(tiny_model(), AdaptersSection(targets=("q_prj",)))


def test_a_language_model_without_linear_layers_is_refused():
    with pytest.raises(ConfigError, match="no linear layer"):
        linear_layers(nn.Sequential(nn.Conv1d(2, 3, 1)), None)


# --- training


def test_training_changes_adapters_and_connector_and_not_one_bit_of_anything_else():
    model = adapted_model()
    before = tensors(model)
    losses = train(model, 12)
    assert losses[-1] < 0.9 * losses[0]
    for name, tensor in tensors(model).items():
        assert torch.equal(tensor, before[name]) == (part_of(name) not in {"adapters", "projector", "sva"}), name


def test_a_resumed_model_trains_on_bit_by_bit_under_the_same_names():
    model = adapted_model()
    train(model, 2)
    resumed = adapted_model()
    shake_adapters(resumed)
    assert trained_names(resumed) == trained_names(model)
    with torch.no_grad():
        for mine, other in zip(resumed.parameters(), model.parameters(), strict=True):
            if mine.requires_grad:
                mine.copy_(other)
    assert train(resumed, 3) == train(model, 3)


def test_gradients_are_the_same_with_activation_checkpointing():
    plain, checkpointed = adapted_model(), adapted_model()
    for model in (plain, checkpointed):
        torch.manual_seed(1)
        shake_adapters(model)
    checkpointed.activation_checkpointing_enable()
    expected, found = gradients(plain), gradients(checkpointed)
    assert list(expected) == list(found) == trained_names(plain)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_a_compiled_layer_with_adapters_is_one_graph_and_computes_the_same():
    model, compiled = adapted_model(), adapted_model()
    for each in (model, compiled):
        torch.manual_seed(1)
        shake_adapters(each)
    mlp = compiled.language_model.model.layers[1].mlp
    mlp.compile(backend="eager", fullgraph=True)
    assert torch.equal(logits(compiled), logits(model))
    assert trained_names(compiled) == trained_names(model)


# --- what leaves a run


def test_a_merged_model_is_a_plain_checkpoint_that_computes_the_same(tmp_path):
    model = adapted_model()
    train(model, 3)
    adapted = logits(model)
    assert not torch.allclose(adapted, logits(tiny_model()), atol=1e-2)
    merge_adapters(model)
    model.save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path)
    # (W + BA) x and Wx + B(Ax) round differently, 3 layers deep, at logits of about 1.
    assert torch.allclose(logits(loaded), adapted, atol=1e-5)
    assert list(model.state_dict()) == list(tiny_model().state_dict())


def test_plain_weights_are_those_of_the_merged_model_and_leave_the_model_as_it_is():
    model = adapted_model()
    shake_adapters(model)
    before = tensors(model)
    weights = dict(plain_weights(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())
    merge_adapters(model)
    merged = model.state_dict()
    assert list(weights) == [name for name in [*dict(model.named_parameters()), *dict(model.named_buffers())]
                             if name in merged]  # fmt: skip
    assert all(torch.equal(merged[name], tensor) for name, tensor in weights.items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_peft_loads_saved_adapters_and_the_connector_trained_beside_them(tmp_path):
    stage = STAGE.model_copy(update={"train": ("adapters", "connector", "in_llm")})
    model = adapted_model(stage=stage)
    train(model, 3)
    save_adapters(model, tmp_path, base="some/model")
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    loaded = PeftModel.from_pretrained(tiny_model(), str(tmp_path))
    assert loaded.peft_config["default"].base_model_name_or_path == "some/model"
    assert torch.equal(logits(loaded), logits(model))  # the same products in the same order


def test_trained_parts_that_an_adapter_of_peft_cannot_hold_are_not_left_out_in_silence(tmp_path):
    model = adapted_model(stage=STAGE.model_copy(update={"train": ("adapters", "vision_encoders")}))
    with pytest.raises(TrainingError, match="vision_encoders is trained beside the adapters"):
        save_adapters(model, tmp_path)


# --- QLoRA


@pytest.mark.parametrize(("kind", "dtype"), [("nf4", torch.uint8), ("int8", torch.int8)])
def test_only_the_decoder_layers_own_projections_are_quantized(kind, dtype):
    model, plain = wide_model(), tensors(wide_model())
    quantize_language_model(model, kind, torch.float32)
    for name, parameter in model.named_parameters():
        is_own = name.startswith("language_model.model.layers") and name.split(".")[-2] in PROJECTIONS
        assert (parameter.dtype == dtype) == (is_own and ".sva." not in name and name.endswith("weight")), name
        assert parameter.dtype == dtype or torch.equal(parameter, plain[name])


@pytest.mark.parametrize(("kind", "error"), [("nf4", 0.2), ("int8", 0.02)])
def test_a_quantized_model_trains_its_adapters_and_merges_into_a_plain_one(kind, error, tmp_path):
    model = adapted_model(kind)
    # Weights are off by up to a tenth in 4 bits and 1/254 of the largest in 8; largest logits are about 0.4.
    assert (logits(model) - logits(wide_model())).abs().max() < error * 0.4
    before = tensors(model)
    losses = train(model.train(), 12)  # after an evaluation, which must not disturb training
    assert losses[-1] < 0.9 * losses[0]
    after = tensors(model)
    assert {part_of(name) for name in after if not torch.equal(after[name], before[name])} == {
        "adapters", "projector", "sva",
    }  # fmt: skip
    adapted, weights = logits(model), dict(plain_weights(model))
    merge_adapters(model)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    # nf4 as above for merging; int8 also rounds activations to 8 bits in evaluation, and not after merging.
    assert torch.allclose(logits(loaded), adapted, atol={"nf4": 1e-5, "int8": 2e-2}[kind])


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_layers_without_adapters_and_biases_survive_quantization_and_merging(kind):
    model = wide_model()
    for name, parameter in model.named_parameters():
        if name.endswith("q_proj.bias"):
            nn.init.normal_(parameter)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantize_language_model(model, kind, torch.float32)
    add_adapters(model, AdaptersSection(targets=("down_proj",)))
    logits(model)
    merge_adapters(model)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # nf4's steps are up to 0.28 of a block's largest weight wide, so that it is off by half of that,
        # and scales in 8 bits add a little.
        assert torch.allclose(found[name], tensor, atol=0.17 * tensor.abs().max().item()), name
        assert tensor.ndim > 1 or torch.equal(found[name], tensor), name


def test_quantizing_twice_gives_the_same_bits():
    first, second = adapted_model("nf4"), adapted_model("nf4")
    assert all(torch.equal(mine, other) for mine, other in zip(first.parameters(), second.parameters(), strict=True))


def test_a_width_that_nf4_cannot_cut_into_blocks_is_refused_and_int8_takes_it():
    with pytest.raises(TrainingError, match=r"layers\.0\.self_attn\.q_proj takes 48 features.*multiple of 64"):
        quantize_language_model(tiny_model(), "nf4", torch.float32)
    quantize_language_model(tiny_model(), "int8", torch.float32)


def test_8_bit_weights_are_refused_for_sharding():
    check_shardable(adapted_model("nf4"))
    with pytest.raises(TrainingError, match=r"q_proj.*is quantized to int8, which cannot be sharded"):
        check_shardable(adapted_model("int8"))


def test_a_missing_bitsandbytes_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match=r'need the package bitsandbytes.*pip install "cambrian-model\[qlora\]"'):
        quantize_language_model(wide_model(), "nf4", torch.float32)


def test_a_device_that_bitsandbytes_does_not_know_is_an_error():
    with pytest.raises(TrainingError, match=r"cannot quantize to nf4 on vulkan.*set adapters.quantize=null"):
        quantize_language_model(wide_model(), "nf4", torch.float32, torch.device("vulkan"))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantized_model_trains_on_a_gpu_in_bfloat16(kind):
    device = torch.device("cuda")
    model = wide_model()
    quantize_language_model(model, kind, torch.bfloat16, device)
    add_adapters(model, OPTIONS)
    select_trainable(model, STAGE)
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    inputs = {k: [x.to(device) for x in v] if isinstance(v, list) else v.to(device) for k, v in sample().items()}
    losses = []
    for _ in range(12):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    weights = dict(plain_weights(model))
    merge_adapters(model)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


# --- two processes


class Trained(NamedTuple):
    """What a step comes to: gradients, then the weights of a checkpoint, of the model itself and of its averages."""

    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    averages: dict[str, Tensor]


def step(model: nn.Module, plain: CambrianForConditionalGeneration, samples: list[dict[str, Any]]) -> Trained:
    """One step on this rank's samples, of 2 in all."""
    ema = EMA(model, 0.9)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model(**each).loss / len(samples) for each in samples).backward()
    found = {name: whole(p.grad).clone() for name, p in plain.named_parameters() if p.grad is not None}
    optimizer.step()
    ema.update(model)
    weights = {name: tensor.clone() for name, tensor in plain_weights(plain)}
    with ema.swapped(model):
        return Trained(found, weights, {name: tensor.clone() for name, tensor in plain_weights(plain)})


def shaken_model(kind: Any) -> CambrianForConditionalGeneration:
    model = adapted_model(kind)
    torch.manual_seed(1)
    shake_adapters(model)
    return model


def train_one_of_two() -> None:
    """What a rank does: its sample of a step of two, replicated and sharded, must come to a step on both."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing works on it in place
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("shard",))
    for kind in (None, "nf4"):
        expected = step(alone := shaken_model(kind), alone, [sample(0), sample(1)])
        replicated = DistributedDataParallel(shaken_model(kind), gradient_as_bucket_view=True)
        sharded = shaken_model(kind)
        shard(sharded, mesh, torch.float32, False, torch.device("cpu"))
        for model, plain in ((replicated, replicated.module), (sharded, sharded)):
            check_same(step(model, plain, [sample(dist.get_rank())]), expected)


def check_same(found: Trained, expected: Trained) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert list(mine) == list(other)
        for name, tensor in other.items():
            # Two samples are added up in another order, in float32; gradients are below 1.
            assert torch.allclose(mine[name], tensor, rtol=1e-4, atol=1e-6), name


def test_two_ranks_average_their_gradients_replicated_and_sharded_and_so_do_quantized_ones():
    run_ranks(train_one_of_two, 2)
