"""A checkpoint folder of a real model in miniature, with a processor that spells any text byte by byte."""

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cambrian_model.assemble import assemble

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
CONNECTOR = {"width": 32, "num_heads": 4, "query_grid_sides": [4], "in_llm": {"start": 0, "stride": 2, "count": 2}}


def write_tiny_checkpoint(folder: Path, seed: int = 0, context: int = 1024) -> Path:
    """Writes model and processor; the weights are random and large enough for pictures to change what is said."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    language = {
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": 48,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as parts:
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(parts)
        model, processor = assemble(
            {
                "language_model": {"config": language},
                "tokenizer": parts,
                "vision_encoders": [
                    {"name": "timm:test_vit", "image_side": 64, "model_args": {"img_size": 64}},
                    {"name": "timm:test_convnext", "image_side": 64, "feature_layer": 1},
                ],
                "connector": CONNECTOR,
                "grid_side": 4,
            }
        )
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and not name.startswith("vision_encoders"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
