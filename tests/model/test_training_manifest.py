import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from cambrian_model.errors import TrainingError
from cambrian_model.training.manifest import (
    Facts,
    Reference,
    check_manifest,
    fingerprint,
    hash_weights,
    plain_name,
    read_manifest,
    refer_to_frozen,
    write_manifest,
)
from tests.support.gloo import run_ranks


def tensors():
    torch.manual_seed(0)
    return {
        "b": torch.rand(7, 3),
        "a": torch.rand(2, 5).bfloat16(),
        "flag": torch.tensor([True, False]),
        "step": torch.tensor(3),
        "none": torch.zeros(0, 4),
    }


def test_a_fingerprint_is_that_of_values_not_of_how_they_lie():
    expected = fingerprint(tensors())
    assert fingerprint(dict(reversed(tensors().items()))) == expected
    assert fingerprint(tensors() | {"b": tensors()["b"].T.contiguous().T}) == expected
    assert fingerprint(tensors() | {"b": nn.Parameter(tensors()["b"])}) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"b": torch.zeros(7, 3)},
        {"b": tensors()["b"].reshape(3, 7)},
        {"step": torch.tensor(3, dtype=torch.int32)},
        {"c": torch.zeros(1)},
        {"none": torch.zeros(4, 0)},
    ],
    ids=["values", "shape", "type", "names", "shape of nothing"],
)
def test_a_fingerprint_tells_apart(changed):
    assert fingerprint(tensors() | changed) != fingerprint(tensors())


def fingerprint_sharded():
    mesh = init_device_mesh("cpu", (2,))
    whole = tensors()
    return fingerprint(whole | {name: distribute_tensor(whole[name], mesh, [Shard(0)]) for name in ("a", "b")})


def test_a_fingerprint_does_not_depend_on_sharding():
    assert run_ranks(fingerprint_sharded, 2) == [fingerprint(tensors())] * 2


def test_a_reference_to_frozen_parts_is_of_these_alone():
    first, second = nn.Linear(3, 5), nn.Linear(5, 2)
    model = nn.Sequential(first, second)
    assert refer_to_frozen(model, "weights") is None
    first.requires_grad_(False)
    reference = refer_to_frozen(model, "weights")
    nn.init.zeros_(second.weight)
    assert refer_to_frozen(model, "weights") == reference
    nn.init.zeros_(first.weight)
    assert refer_to_frozen(model, "weights") != reference


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.a.weight", "a.weight"),
        ("_orig_mod.a._checkpoint_wrapped_module.b._orig_mod.weight", "a.b.weight"),
        ("a.module.weight", "a.module.weight"),
    ],
)
def test_names_are_those_of_the_plain_model(name, expected):
    assert plain_name(name) == expected


FACTS = Facts("tiny", "finetune", Reference("stages/align", "abc"), ["connector", "language_model"])


def model_folder(path):
    path.mkdir()
    for i in (1, 2):
        save_file({f"w{i}": torch.full((3,), float(i))}, path / f"model-0000{i}-of-00002.safetensors")
    return path


def test_a_manifest_says_where_a_model_comes_from(tmp_path):
    folder = model_folder(tmp_path / "model")
    manifest = write_manifest(folder, FACTS)

    assert read_manifest(folder) == check_manifest(folder) == manifest
    assert (manifest.recipe, manifest.stage, manifest.input, manifest.trained) == tuple(vars(FACTS).values())
    assert sorted(manifest.weights) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert manifest.hash == hash_weights(folder)


def test_a_model_that_no_stage_exported_has_a_hash_and_no_manifest(tmp_path):
    folder = model_folder(tmp_path / "model")
    assert read_manifest(folder) is None
    assert check_manifest(folder) is None
    same = model_folder(tmp_path / "copy")
    assert hash_weights(same) == hash_weights(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty holds no weights \(\*\.safetensors\); give the folder of a model"):
        hash_weights(tmp_path / "empty")


def change(folder, how):
    first = folder / "model-00001-of-00002.safetensors"
    match how:
        case "changed":
            first.write_bytes(first.read_bytes()[:-1] + b"\1")
        case "deleted":
            first.unlink()
        case "added":
            save_file({"w3": torch.zeros(1)}, folder / "added.safetensors")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "changed",
            r"model-00001-of-00002\.safetensors is not what stage \"finetune\" exported: found SHA-256 \w+, exp",
        ),
        (
            "deleted",
            r"model-00001-of-00002\.safetensors is not .*: found no such file, expected SHA-256 \w+; train that",
        ),
        (
            "added",
            r"added\.safetensors is not .*: found SHA-256 \w+, expected no such file; train that stage again, or",
        ),
    ],
)
def test_weights_that_changed_since_they_were_exported_are_an_error(tmp_path, how, message):
    folder = model_folder(tmp_path / "model")
    write_manifest(folder, FACTS)
    change(folder, how)
    with pytest.raises(TrainingError, match=message):
        check_manifest(folder)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"recipe": "tiny"}), json.dumps({"input": None, "odd": 1})])
def test_a_damaged_manifest_is_an_error(tmp_path, content):
    folder = model_folder(tmp_path / "model")
    (folder / "training.json").write_text(content)
    with pytest.raises(TrainingError, match=r"training\.json is no record of a stage: .*; train the stage again, or"):
        read_manifest(folder)
