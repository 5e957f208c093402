"""MoCo v3's published names, loaded into timm's vision transformer."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cambrian_model.errors import CheckpointError
from cambrian_model.vision import describe, load_encoder

SMALL = {"img_size": 48, "embed_dim": 24, "depth": 2, "num_heads": 3}
SPEC = {"name": "mocov3-b-224", "image_side": 48, "model_args": SMALL}


def vit(seed: int) -> Any:
    torch.manual_seed(seed)
    return timm.create_model("vit_base_patch16_224", num_classes=0, **SMALL).eval()


def published(trained: torch.nn.Module, slow: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of a published file: both encoders, each with a head of its own, and the predictor."""
    tensors: dict[str, Tensor] = {}
    for name, model in (("base_encoder", trained), ("momentum_encoder", slow)):
        tensors |= {f"module.{name}.{key}": value.clone() for key, value in model.state_dict().items()}
        tensors |= {
            f"module.{name}.head.0.weight": torch.zeros(40, 24),
            f"module.{name}.head.1.running_var": torch.ones(40),
        }
    return {**tensors, "module.predictor.0.weight": torch.zeros(40, 16)}


def test_the_trained_encoder_is_taken_whole_and_its_heads_are_left_out(tmp_path):
    trained, slow = vit(0), vit(1)
    file = tmp_path / "vit-b-300ep.safetensors"
    save_file(published(trained, slow), file)
    encoder, report = load_encoder(describe({**SPEC, "path": file}))
    pixels = torch.rand(2, 3, 48, 48)
    assert torch.equal(encoder.eval()(pixels), trained.forward_features(pixels)[:, 1:])
    assert report.loaded == len(trained.state_dict())
    assert torch.equal(load_encoder(describe({**SPEC, "path": tmp_path})).encoder.eval()(pixels), encoder(pixels))


def test_of_a_file_with_the_slow_copy_alone_that_one_is_taken(tmp_path):
    slow = vit(1)
    both = published(vit(0), slow)
    save_file({k: v for k, v in both.items() if "momentum" in k}, tmp_path / "moco.safetensors")
    encoder = load_encoder(describe({**SPEC, "path": tmp_path / "moco.safetensors"})).encoder.eval()
    pixels = torch.rand(2, 3, 48, 48)
    assert torch.equal(encoder(pixels), slow.forward_features(pixels)[:, 1:])


def test_an_incomplete_file_is_refused_by_name(tmp_path):
    tensors = published(vit(0), vit(1))
    del tensors["module.base_encoder.pos_embed"]
    save_file(tensors, tmp_path / "moco.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(pos_embed\)"):
        load_encoder(describe({**SPEC, "path": tmp_path}))


def test_weights_that_are_published_as_a_pickle_say_how_to_convert_them(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"MoCo v3 publishes a pickle, vit-b-300ep.pth.tar.*set path to that file"
    ):
        load_encoder(describe({**SPEC, "pretrained": True}))
    file = tmp_path / "vit-b-300ep.pth.tar"
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match=r"found vit-b-300ep.pth.tar, which may be a pickle and is never loaded"):
        load_encoder(describe({**SPEC, "path": file}))
    with pytest.raises(CheckpointError, match=r"found vit-b-300ep.pth.tar, which may be a pickle and is never loaded"):
        load_encoder(describe({**SPEC, "path": tmp_path}))
    with pytest.raises(CheckpointError, match="no such folder"):
        load_encoder(describe({**SPEC, "path": tmp_path / "nowhere"}))
