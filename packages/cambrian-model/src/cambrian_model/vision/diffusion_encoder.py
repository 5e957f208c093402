"""Stable Diffusion as a vision encoder: what its UNet computes while it looks at a slightly noisy picture.

The picture becomes latents (VAE), noise of one step is added, and the UNet, told the empty prompt, runs once: the
outputs of its up blocks are the feature levels. Notable: the noise is drawn once from a seed and lies in the checkpoint
beside the prompt's embedding, so that features do not depend on the batch, and no text model is needed after loading.
Needs the extra `diffusion`.

Source: `diffusion_encoder.py` of the original. Differs from the reference: it draws fresh noise at every call.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import locate
from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.vision.base import VisionEncoder, chosen_levels
from cambrian_model.vision.hf_encoder import quiet
from cambrian_model.vision.published import Published
from cambrian_model.vision.weights import LoadReport, Misfit, fetch

CARDS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "text_encoder": "text_encoder/config.json",
}
WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")
FILES = (*CARDS.values(), *WEIGHTS, "text_encoder/model.safetensors", "tokenizer/*")
TIMESTEP = 250
# What a UNet may be told beside the prompt and the time; we have nothing to say there.
CONDITIONS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim", "time_cond_proj_dim")


class DiffusionEncoder(VisionEncoder):
    """Outputs of the UNet's up blocks, which `config.feature_layer` indexes.

    `config.model_args`: `unet`, `vae`, `scheduler` (their configurations), `prompt_tokens`, `timestep`, `seed`.
    """

    prompt: Tensor
    noise: Tensor

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config)
        diffusers, args = _diffusers(), config.model_args
        self.unet: Any = diffusers.UNet2DConditionModel.from_config(args["unet"])
        self.vae: Any = diffusers.AutoencoderKL.from_config(args["vae"])
        with torch.device("cpu"):
            kept = diffusers.DDIMScheduler.from_config(args["scheduler"]).alphas_cumprod[args["timestep"]].item()
        self.scales = (kept**0.5, (1 - kept) ** 0.5)  # of the picture and of the noise
        self.timestep = int(args["timestep"])
        self.register_buffer("prompt", torch.zeros(1, args["prompt_tokens"], args["unet"]["cross_attention_dim"]))
        side = config.image_side // _latent_factor(args["vae"])
        shape = (1, args["unet"].get("in_channels", 4), side, side)
        drawn = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(args["seed"]), device="cpu")
        self.register_buffer("noise", drawn.to(self.prompt.device))
        self.prune()

    @classmethod
    def fits(cls, config: VisionEncoderConfig) -> Sequence[VisionEncoderConfig]:
        """Takes every resolution that is a whole number of latents.

        Raises:
            ConfigError: Pixels would be left over, or the UNet wants to be told more than a prompt.
        """
        factor = _latent_factor(config.model_args["vae"])
        if config.image_side % factor:
            raise ConfigError(f"{config.name}: image_side {config.image_side} is no multiple of {factor}")
        if told := [name for name in CONDITIONS if config.model_args["unet"].get(name) is not None]:
            raise ConfigError(f"{config.name}: its UNet has {told[0]}; expected one that takes a prompt alone")
        return [config]

    def prune(self) -> None:
        """Drops what makes pictures again, and the up blocks behind the chosen ones."""
        depth = len(self.unet.up_blocks)
        levels = chosen_levels(self.config)
        if outside := [level for level in levels if not -depth <= level < depth]:
            raise ConfigError(f"{self.config.name}: no up block {outside[0]}; the UNet has 0 to {depth - 1}")
        self.levels = sorted(level % depth for level in levels)
        self.num_up_blocks = depth
        self.unet.up_blocks = self.unet.up_blocks[: self.levels[-1] + 1]
        for module, names in ((self.unet, ("conv_norm_out", "conv_out")), (self.vae, ("decoder", "post_quant_conv"))):
            for name in names:
                setattr(module, name, None)

    def checkpoint_activations(self) -> None:
        """Lets diffusers do it."""
        self.unet.enable_gradient_checkpointing()
        self.vae.enable_gradient_checkpointing()

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Returns the outputs of the chosen up blocks, in their order."""
        latents = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
        of_picture, of_noise = self.scales
        noisy = of_picture * latents + of_noise * self.noise.to(latents)
        return [block.flatten(2).transpose(1, 2) for block in self._up_blocks(noisy)]

    def _up_blocks(self, sample: Float[Tensor, "images _channels _side _side"]) -> list[Tensor]:
        """Runs the UNet up to the last chosen block; its own `forward` returns none of them."""
        unet = self.unet
        prompt = self.prompt.to(sample.dtype).expand(len(sample), -1, -1)
        time = torch.full((len(sample),), self.timestep, device=sample.device)
        embedding = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=time))
        is_ragged = sample.shape[-1] % 2**unet.num_upsamplers != 0
        sample = unet.conv_in(2 * sample - 1.0 if unet.config.center_input_sample else sample)
        skips = [sample]
        for block in unet.down_blocks:
            sample, passed = block(hidden_states=sample, temb=embedding, **_told(block, prompt))
            skips += passed
        if unet.mid_block is not None:
            sample = unet.mid_block(sample, embedding, **_told(unet.mid_block, prompt))
        outputs = []
        for i, block in enumerate(unet.up_blocks):
            taken, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            size = skips[-1].shape[2:] if is_ragged and i < self.num_up_blocks - 1 else None
            sample = block(
                hidden_states=sample,
                temb=embedding,
                res_hidden_states_tuple=tuple(taken),
                upsample_size=size,
                **_told(block, prompt),
            )
            outputs.append(sample)
        return [outputs[level] for level in self.levels]


def known_args(config: VisionEncoderConfig) -> set[str]:
    """Returns what `model_args` may say."""
    return set(config.model_args)


def _told(block: nn.Module, prompt: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": prompt} if getattr(block, "has_cross_attention", False) else {}


def _latent_factor(vae: Mapping[str, Any]) -> int:
    """Returns how many pixels per side become one latent."""
    return 2 ** (len(vae.get("block_out_channels", (0,))) - 1)


def _diffusers() -> ModuleType:
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError(
            'Stable Diffusion as a vision encoder needs diffusers: pip install "cambrian-model[diffusion]"'
        ) from error
    return diffusers


def published_diffusion(name: str, folder: Path | None) -> Published:
    """Reads what is published of a Stable Diffusion: from a folder in diffusers' layout, or from the hub or its cache.

    Raises:
        CheckpointError: No such model, or it is damaged or of another kind.
    """
    root = folder or fetch(locate(name), tuple(CARDS.values()))
    cards = {part: _read_card(root / file) for part, file in CARDS.items()}
    args: dict[str, Any] = {part: cards[part] for part in ("unet", "vae", "scheduler")}
    args |= {"prompt_tokens": cards["text_encoder"]["max_position_embeddings"], "timestep": TIMESTEP, "seed": 0}
    config = VisionEncoderConfig(
        "diffusers",
        name,
        image_side=cards["unet"]["sample_size"] * _latent_factor(cards["vae"]),
        width=0,
        grid_side=0,
        feature_layer=tuple(range(len(cards["unet"]["up_block_types"]))),
        model_args=args,
    )
    return Published(config, hub_id=None if folder else name, elsewhere=str(folder or ""))


def _read_card(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; expected a folder in diffusers' layout ({', '.join(CARDS)})")
    with reading(file, "a configuration of diffusers"):
        values = json.loads(file.read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if not key.startswith("_")}


def load_diffusion_encoder(config: VisionEncoderConfig, source: Path) -> tuple[DiffusionEncoder, LoadReport]:
    """Builds the encoder with the weights of a folder in diffusers' layout, and embeds the empty prompt.

    Raises:
        CheckpointError: The weights are missing, unreadable, or another model's.
    """
    diffusers, encoder = _diffusers(), DiffusionEncoder(config)
    for file in WEIGHTS:
        if not (source / file).is_file():
            raise CheckpointError(f"{source / file}: missing; expected the model's weights as safetensors")
    left_out: list[str] = []
    parts = {}
    for part, kind in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        with reading(source / part, f"weights of a {kind.__name__}"):
            parts[part], info = kind.from_pretrained(
                source / part,
                torch_dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
        Misfit(sorted(info["missing_keys"]), sorted(info["unexpected_keys"])).refuse(source / part)
        left_out += [f"{part}.{name}" for name in parts[part].state_dict()]
    encoder.unet, encoder.vae = parts["unet"], parts["vae"]
    encoder.prune()
    encoder.prompt = embed_empty_prompt(source, encoder.prompt)
    kept = encoder.state_dict().keys()
    return encoder, LoadReport(str(source), len(kept), tuple(name for name in left_out if name not in kept))


def check_same_diffusion(config: VisionEncoderConfig, source: Path) -> None:
    """Refuses a folder whose UNet or VAE is not the one that `config` describes.

    Raises:
        CheckpointError: Names the first difference, with both values.
    """
    for part in ("unet", "vae"):
        found = _read_card(source / CARDS[part])
        for key, expected in config.model_args[part].items():
            if key in found and found[key] != expected:
                raise CheckpointError(
                    f"{source / part}: its {key} is {found[key]}, but {config.name} has {expected}; it is another model"
                )


@torch.no_grad()
def embed_empty_prompt(source: Path, expected: Float[Tensor, "1 tokens dim"]) -> Float[Tensor, "1 tokens dim"]:
    """Returns what a folder's text model makes of the empty prompt, padded to its full length.

    Raises:
        CheckpointError: Tokenizer or text model are missing, damaged, or do not fit the UNet.
    """
    with reading(source / "tokenizer", "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source / "tokenizer", local_files_only=True)
        ids = tokenizer("", padding="max_length", max_length=expected.shape[1], truncation=True, return_tensors="pt")
    with reading(source / "text_encoder", "a text model"), quiet():
        model, info = CLIPTextModel.from_pretrained(
            source / "text_encoder",
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    Misfit(sorted(info["missing_keys"]), sorted(info["unexpected_keys"])).refuse(source / "text_encoder")
    prompt = model.eval()(ids["input_ids"]).last_hidden_state
    if prompt.shape != expected.shape:
        raise CheckpointError(
            f"{source}: its text model gives {tuple(prompt.shape[1:])} (tokens, width), but the UNet expects "
            f"{tuple(expected.shape[1:])}"
        )
    return prompt
