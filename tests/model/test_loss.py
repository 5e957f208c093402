"""The loss without all logits: the same numbers as with them, and never the memory."""

import importlib.util
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.errors import ConfigError
from cambrian_model.language.loss import LossOptions, token_loss
from cambrian_model.model import CambrianForConditionalGeneration
from tests.support.tiny_model import IMAGE_TOKEN_ID, VOCABULARY, pack, tiny_config, tiny_model, tiny_sample

CHUNKED = LossOptions("chunked", chunk_tokens=7)  # supervised tokens below are no multiple of it
# What a family does to its logits, strong enough to show.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "phi3": {},
    "cohere2": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 256},
}


def new_model(family: str, **changes: Any) -> CambrianForConditionalGeneration:
    common = {} if family == "gpt2" else tiny_config().get_text_config().to_diff_dict()
    common = {key: value for key, value in common.items() if key not in ("model_type", "transformers_version")}
    values = {**common, "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = tiny_model(text_config=CONFIG_MAPPING[family](**{**values, **FAMILIES[family], **changes}))
    head = cast(nn.Linear, model.get_output_embeddings())
    nn.init.normal_(head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return model


def batch() -> dict[str, Any]:
    """A packed row with one picture, none and two; every third token is not supervised."""
    samples = [tiny_sample(1, [(20, 50)], 5), tiny_sample(2, [], 7), tiny_sample(3, [(70, 20), (33, 33)], 3)]
    inputs = pack(samples)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE_TOKEN_ID, -100)
    labels[:, ::3] = -100
    return {**inputs, "labels": labels}


def loss_and_gradients(
    model: CambrianForConditionalGeneration, options: LossOptions, **inputs: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    model.loss_options = options
    model.zero_grad()
    found = model(**inputs).loss
    found.backward()
    return found.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    """Compares to 1e-6 of the number, or of the largest in its tensor: float32 sums in another order."""
    torch.testing.assert_close(found[0], expected[0], atol=0, rtol=1e-6)
    assert found[1].keys() == expected[1].keys()
    largest = max(gradient.abs().max() for gradient in expected[1].values()).item()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6 * largest, rtol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_in_chunks_is_that_of_all_logits_with_its_gradients(family):
    model, inputs = new_model(family), batch()
    chunked = loss_and_gradients(model, CHUNKED, **inputs)
    assert_same(chunked, loss_and_gradients(model, LossOptions(), **inputs))
    logits = model(**inputs).logits
    balance = 0.001 * model(**inputs).aux_loss if family == "mixtral" else 0.0
    torch.testing.assert_close(
        chunked[0], token_loss(logits, inputs["labels"]) + balance, atol=0, rtol=1e-6
    )  # as above
    if FAMILIES[family].keys() & {"final_logit_softcapping", "logit_scale", "logits_scaling"}:
        plain = new_model(family, **dict.fromkeys(FAMILIES[family], 1.0 if "gemma" not in family else None))
        assert abs(loss_and_gradients(plain, CHUNKED, **inputs)[0] - chunked[0]) > 1e-2


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_size_of_chunks_changes_nothing(size):
    model, inputs = new_model("llama"), batch()
    expected = loss_and_gradients(model, LossOptions(), **inputs)
    assert_same(loss_and_gradients(model, LossOptions("chunked", size), **inputs), expected)


@pytest.mark.parametrize("number", [50, torch.tensor(50)])
def test_the_sum_is_divided_by_the_given_number_of_tokens(number):
    model, inputs = new_model("mixtral"), batch()
    supervised = (inputs["labels"][:, 1:] != -100).sum().item()
    mean = loss_and_gradients(model, CHUNKED, **inputs)
    part = loss_and_gradients(model, CHUNKED, **inputs, num_items_in_batch=number)
    assert_same(part, loss_and_gradients(model, LossOptions(), **inputs, num_items_in_batch=number))
    # float32 rounding: the balance of experts is weighted alike, so a step's parts sum to the whole.
    torch.testing.assert_close(part[0] * 50 / supervised, mean[0], atol=0, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_nothing_supervised_is_a_loss_of_zero_whose_gradients_reach_everything(family):
    model = new_model(family).train()
    ids = torch.randint(3, VOCABULARY, (2, 9))
    found, gradients = loss_and_gradients(
        model, CHUNKED, input_ids=ids, labels=torch.full_like(ids, -100), num_items_in_batch=11
    )
    assert found == 0
    assert gradients.keys() == dict(model.named_parameters()).keys()
    assert not any(gradient.any() for gradient in gradients.values())


def test_without_options_a_model_returns_all_logits_and_their_loss():
    model, inputs = new_model("llama"), batch()
    outputs = model(**inputs)
    assert torch.equal(outputs.loss, token_loss(outputs.logits, inputs["labels"]))
    model.loss_options = CHUNKED
    assert model(**inputs).logits is None
    assert model(**{**inputs, "labels": None}).logits.shape == (*inputs["input_ids"].shape, VOCABULARY)


def test_rounded_losses_agree_under_autocast():
    model, inputs = new_model("gemma2"), batch()
    with torch.autocast("cpu", torch.bfloat16):
        chunked = loss_and_gradients(model, CHUNKED, **inputs)
        whole = loss_and_gradients(model, LossOptions(), **inputs)
    # 2^-8, bfloat16's precision: the same logits are rounded, from sums that may be rounded otherwise
    torch.testing.assert_close(chunked[0], whole[0], atol=0, rtol=2**-8)
    head = "language_model.model.embed_tokens.weight"  # tied
    torch.testing.assert_close(chunked[1][head], whole[1][head], atol=2**-8 * whole[1][head].abs().max().item(), rtol=0)


def test_evaluation_without_gradients_gives_the_same_loss():
    model, inputs = new_model("gemma2"), batch()
    expected = model(**inputs).loss
    model.loss_options = CHUNKED
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).loss, expected, atol=0, rtol=1e-6)  # as above


class Largest(TorchDispatchMode):
    """Notes the most rows of logits that any result has."""

    rows = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        is_logits = isinstance(result, Tensor) and result.ndim > 1 and result.shape[-1] == VOCABULARY
        if is_logits and result.shape[0] != 48:  # the head's weight, transposed
            self.rows = max(self.rows, result.numel() // VOCABULARY)
        return result


def test_no_more_logits_than_a_chunk_ever_exist():
    model, inputs = new_model("gemma2"), batch()
    tokens = inputs["input_ids"].numel()
    for options, most in ((LossOptions(), tokens), (CHUNKED, CHUNKED.chunk_tokens)):
        model.loss_options = options
        with Largest() as seen:
            model(**inputs).loss.backward()
        assert seen.rows == most


def saved_bytes(model: CambrianForConditionalGeneration, inputs: dict[str, Any], options: LossOptions) -> int:
    """Bytes kept for the backward pass, parameters left out."""
    model.loss_options = options
    kept = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(**inputs)  # keeps what is noted alive, so that no two lie at one address
    assert "loss" in output or "logits" in output
    return sum(size for pointer, size in found.items() if pointer not in kept)


def test_logits_are_not_kept_for_the_backward_pass():
    model = new_model("gemma2", vocab_size=2003)
    ids = torch.randint(3, 2003, (1, 61))
    inputs = {"input_ids": ids, "labels": ids}
    whole, chunked = (saved_bytes(model, inputs, options) for options in (LossOptions(), CHUNKED))
    decoder = saved_bytes(model, {"input_ids": ids, "logits_to_keep": 1}, LossOptions())
    logits = ids.numel() * 2003 * 4
    assert whole - decoder > 1.9 * logits  # the capped ones and the softmax, of all tokens but the last
    assert chunked - decoder < 0.05 * logits  # two copies of 48 numbers for 2003


class Shifted(LlamaForCausalLM):
    """A language model whose logits are not made of its last hidden states alone."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits + kwargs["inputs_embeds"].sum()
        return outputs


class Complete(LlamaForCausalLM):
    """A language model that makes all logits whatever is asked."""

    def forward(self, *args: Any, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Shifted, "do not follow from its last hidden states"), (Complete, "makes all logits anyway")]
)
def test_a_language_model_that_cannot_is_refused(kind, reason):
    model, inputs = new_model("llama"), batch()
    model.language_model.__class__ = kind
    model.loss_options = CHUNKED
    with pytest.raises(ConfigError, match=rf'{kind.__name__} cannot .* chunks: .*{reason}; set the loss to "whole"'):
        model(**inputs)
    model.loss_options = LossOptions()
    assert model(**inputs).loss > 0


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="liger-kernel is installed")
def test_liger_without_its_package_is_an_error_that_names_it():
    model, inputs = new_model("llama"), batch()
    model.loss_options = LossOptions("liger")
    with pytest.raises(ConfigError, match=r"pip install liger-kernel"):
        model(**inputs)


def test_liger_on_a_cpu_is_an_error_that_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "liger_kernel"  # only found, never run
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "transformers.py").write_text("class LigerFusedLinearCrossEntropyLoss: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model, inputs = new_model("llama"), batch()
    model.loss_options = LossOptions("liger")
    with pytest.raises(ConfigError, match=r'CUDA kernel, but the model is on cpu; set it to "chunked"'):
        model(**inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_liger_gives_the_same_loss(family):
    pytest.importorskip("liger_kernel")
    model = new_model(family).cuda()
    inputs = {name: [x.cuda() for x in v] if isinstance(v, list) else v.cuda() for name, v in batch().items()}
    found = loss_and_gradients(model, LossOptions("liger"), **inputs)
    expected = loss_and_gradients(model, LossOptions(), **inputs)
    # 1e-3: the kernel's products may use TF32
    torch.testing.assert_close(found[0], expected[0], atol=0, rtol=1e-3)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-3 * gradient.abs().max().item() + 1e-6, rtol=0)


@pytest.mark.gpu
def test_liger_refuses_logits_that_it_would_not_compute():
    pytest.importorskip("liger_kernel")
    model = new_model("granite").cuda()
    inputs = {name: [x.cuda() for x in v] if isinstance(v, list) else v.cuda() for name, v in batch().items()}
    model.loss_options = LossOptions("liger")
    with pytest.raises(ConfigError, match=r"Granite.* computes other logits"):
        model(**inputs)
