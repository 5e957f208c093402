"""Checkpoint folders of other multimodal models in miniature: their configuration, our sizes, random weights.

They differ where a generic adapter can go wrong: a fixed number of image tokens a picture (LLaVA), pictures cut into
tiles with markers between them (Idefics 3), tokens by size and positions in three dimensions (Qwen2-VL), a prefix that
sees itself whole and no chat template (PaliGemma).
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    GenerationConfig,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaProcessor,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessorPil,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIDE, PATCH = 28, 14
END = "<end>"
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "image_size": SIDE, "patch_size": PATCH}


def tiny_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """Spells any text byte by byte; its `eos_token` is not the one at which replies end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<s>", "</s>", END, *special]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*names, *alphabet])}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(x, normalized=False) for x in names[3:]]})
    return tokenizer


def _language(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return {
        **SIZES,
        "vocab_size": len(tokenizer) + 5,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        **more,
    }


def _llava() -> tuple[Any, Any]:
    tokenizer = tiny_tokenizer("<image>")
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    config = CONFIG_MAPPING["llava"](
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config={"model_type": "llama", **_language(tokenizer)},
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
    )
    return config, processor


def _idefics3() -> tuple[Any, Any]:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    tokenizer = tiny_tokenizer(
        "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "\n\n", *places
    )
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    processor = Idefics3Processor(pictures, tokenizer, image_seq_len=1, chat_template=CHAT.replace("IMAGE", "<image>"))
    config = CONFIG_MAPPING["idefics3"](
        vision_config=VISION,
        text_config={"model_type": "llama", **_language(tokenizer)},
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return config, processor


def _qwen2_vl() -> tuple[Any, Any]:
    marks = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
    tokenizer = tiny_tokenizer(*marks)
    pictures = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112, patch_size=14, merge_size=2)
    processor = Qwen2VLProcessor(
        pictures, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT.replace("IMAGE", "".join(marks[:3]))
    )
    names = ("vision_start", "image", "vision_end", "video")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(marks)), strict=True))
    positions = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = CONFIG_MAPPING["qwen2_vl"](
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 4, "hidden_size": 32, "mlp_ratio": 2},
        text_config=_language(tokenizer, rope_parameters=positions),
        **{f"{name}_token_id": number for name, number in ids.items()},
    )
    return config, processor


def _paligemma() -> tuple[Any, Any]:
    tokenizer = tiny_tokenizer("<image>")
    pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    pictures.image_seq_length = (SIDE // PATCH) ** 2
    processor = PaliGemmaProcessor(pictures, tokenizer)
    config = CONFIG_MAPPING["paligemma"](
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        text_config={"model_type": "gemma", **_language(tokenizer, head_dim=8)},
        image_token_index=processor.image_token_id,
        projection_dim=32,
    )
    return config, processor


FAMILIES = {"llava": _llava, "idefics3": _idefics3, "qwen2_vl": _qwen2_vl, "paligemma": _paligemma}


def write_tiny_vlm(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes model and processor; weights are large enough that pictures and padding would show in what is said.

    The generation configuration asks for sampling, and for replies to end at another token than the tokenizer's own.
    """
    config, processor = FAMILIES[family]()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    end = processor.tokenizer.convert_tokens_to_ids(END)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=7, bos_token_id=1, eos_token_id=[end], pad_token_id=0
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
