"""`cambrian encoders`."""

import json


def test_all_backbones_are_listed(cambrian):
    outcome = cambrian("encoders", "list")
    assert outcome.status == 0
    (line,) = [line for line in outcome.stdout.splitlines() if " siglip-so400m-384 " in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells[2:] == ["384", "14", "27 x 27", "729", "1152", "413 M", "apache-2.0"]


def test_the_list_is_also_for_machines(cambrian):
    encoders = json.loads(cambrian("encoders", "list", "--json").stdout)["encoders"]
    assert len(encoders) == 25
    (moco,) = [encoder for encoder in encoders if encoder["name"] == "mocov3-b-224"]
    assert moco == {
        "name": "mocov3-b-224",
        "group": "self-supervised",
        "image_side": 224,
        "patch": 16,
        "grid_side": 14,
        "tokens": 196,
        "width": 768,
        "parameters": 85_798_656,
        "licence": "cc-by-nc-4.0",
        "checkpoint": None,
    }


def test_a_backbone_is_shown_with_the_papers_row(cambrian):
    shown = cambrian("encoders", "show", "clip-l-336").stdout
    assert "24 x 24 = 576 tokens" in shown
    assert "290,909,184" in shown
    assert "mean 0.481455 0.457827 0.408211" in shown
    assert "OpenAI CLIP ViT-L/14@336 (language-supervised)" in shown
    assert "52.90 (1.2M, unfrozen)" in shown
    shown = cambrian("encoders", "show", "clip-convnext-l-512").stdout
    assert "24 x 24 = 576 tokens, interpolated from 16 x 16" in shown


def test_any_model_of_a_library_is_shown(cambrian, tmp_path):
    shown = cambrian("encoders", "show", "timm:test_vit").stdout
    assert "10 x 10 = 100 tokens" in shown
    assert "paper" not in shown
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 28, "patch_size": 7, **sizes}))
    facts = json.loads(cambrian("encoders", "show", f"hf:{folder}", "--json").stdout)
    assert facts["config"]["width"] == 24
    assert (facts["tokens"], facts["native_grid_side"]) == (16, 4)
    assert facts["paper"] is None
    assert facts["licence"] is None
    assert facts["parameters"] > 0


def test_names_that_are_not_known_are_refused(refused, monkeypatch, tmp_path):
    assert 'did you mean "siglip-so400m-384"?' in refused("encoders", "show", "siglip-so400m")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "run `hf download facebook/dinov2-small`" in refused("encoders", "show", "hf:facebook/dinov2-small")
