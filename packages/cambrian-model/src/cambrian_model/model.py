"""The model: encode the pictures, connect, splice into the text, decode.

Reads like the paper's figure. Image tokens are found by their id, never by a fixed position; any number of pictures per
sample, each of any size; padding of a picture never reaches the language model.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import check_is_cambrian
from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.connectors import VisualContext, build_connector
from cambrian_model.connectors.sva import SVABlock, in_llm_block
from cambrian_model.errors import CheckpointError, ConfigError, PromptError
from cambrian_model.language.adapters import BLOCK, linear_layers, refuse_adapters
from cambrian_model.language.aggregation import TokenContext, add_sva_blocks, decoder_layers
from cambrian_model.language.loss import LossOptions, check_head, decode, find_targets, summed_loss, token_loss
from cambrian_model.language.placement import image_positions, share_pictures
from cambrian_model.offloading import load_whole
from cambrian_model.processing.sample import IGNORED_LABEL
from cambrian_model.vision import VisionEncoder, build_vision_encoder
from cambrian_model.vision.base import is_trained

MEMORY_ALIGNMENT = 64  # bytes; what torch's own allocator gives


class ImageFeatures(NamedTuple):
    """Encoded pictures, ready for the language model.

    Attributes:
        tokens: The image tokens of all pictures, end to end, newlines included.
        pooler_output: The same, split by picture; the name is transformers'.
        token_slots: Index of each query's token in `tokens`.
        context: What the SVA blocks inside the language model see; None without such blocks.
    """

    tokens: Float[Tensor, "tokens dim"]
    pooler_output: list[Tensor]
    token_slots: Int[Tensor, " queries"]
    context: VisualContext | None = None

    @property
    def lengths(self) -> list[int]:
        """Image tokens of each picture."""
        return [len(tokens) for tokens in self.pooler_output]


class CambrianForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that sees through several vision encoders.

    Attributes:
        loss_options: How `forward` computes the loss of `labels`; training sets it, and no checkpoint holds it.
    """

    config_class = CambrianConfig
    config: CambrianConfig
    base_model_prefix = ""
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: CambrianConfig) -> None:
        super().__init__(config)
        if not config.vision_encoders:
            raise ConfigError("the configuration names no vision encoder; set vision_encoders, at least one")
        self.vision_encoders = nn.ModuleList(build_vision_encoder(encoder) for encoder in config.encoders)
        self.connector = build_connector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.get_text_config())
        self.loss_options = LossOptions()
        self._checked_loss = "whole"  # the implementation last found to fit this language model
        self.in_llm_layers = config.in_llm_layers
        if self.in_llm_layers:
            self._add_in_llm_blocks()
        self._no_split_modules = {type(module).__name__ for module in self._whole_modules()}
        _mark_initialised(self.vision_encoders, self.connector)
        self.post_init()

    def _whole_modules(self) -> list[nn.Module]:
        """Modules that use parameters beside their children's, and so must lie on one device."""
        return [self.connector, *self.vision_encoders, *self._layers_with_blocks()]

    def _layers_with_blocks(self) -> Iterable[nn.Module]:
        return decoder_layers(self.language_model) if self.in_llm_layers else ()

    def _add_in_llm_blocks(self) -> None:
        def build_block() -> SVABlock:
            block = in_llm_block(self.config)
            # Differs from the reference: a block starts by adding nothing, so a pretrained language model starts whole.
            nn.init.zeros_(block.write_back.weight)
            _mark_initialised(block)
            return block

        add_sva_blocks(self.language_model, self.in_llm_layers, build_block)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint, strictly: every weight must be there, fit, and be ours.

        Raises:
            CheckpointError: No such folder, or it holds something else; a file is damaged; weights are missing,
                unexpected or of another shape.
        """
        check_is_cambrian(pretrained_model_name_or_path)
        wants_info = kwargs.pop("output_loading_info", False)
        options = {"ignore_mismatched_sizes": True, **kwargs, "output_loading_info": True}  # we report them, below
        with reading(pretrained_model_name_or_path, "a Cambrian checkpoint"):
            model, info = super().from_pretrained(pretrained_model_name_or_path, *args, **options)
        problems = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
        if any(problems.values()):
            found = "; ".join(f"{len(keys)} {name} ({', '.join(keys[:3])})" for name, keys in problems.items() if keys)
            raise CheckpointError(f"{pretrained_model_name_or_path}: {found}. This is not a whole Cambrian checkpoint")
        for encoder in model.encoders:
            encoder.restore_buffers()
        _align(model)
        load_whole(model._whole_modules())
        return (model, info) if wants_info else model

    @property
    def encoders(self) -> list[VisionEncoder]:
        """The vision encoders, typed."""
        return list(cast(Iterable[VisionEncoder], self.vision_encoders))

    def get_input_embeddings(self) -> nn.Module:
        """Returns the language model's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Returns the language model's head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the language model's head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """Returns the decoder of the language model."""
        return self.language_model.get_decoder()

    def lora_target_modules(self, *names: str) -> str:
        """Returns peft's `target_modules` for adapters on the language model's linear layers, and on nothing else.

        Args:
            names: Which of them, such as "q_proj"; all but the head if none is named. A plain list of names would also
                hit vision encoders and SVA blocks, whose layers share them.

        Raises:
            ConfigError: The language model has no linear layer of a name.
        """
        return linear_layers(self.language_model, self.get_output_embeddings(), names)

    def _sva_blocks(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self.connector.named_modules():
            if isinstance(module, SVABlock):
                yield f"connector.{name}", module
        for index, layer in enumerate(self._layers_with_blocks()):
            if (block := getattr(layer, BLOCK)) is not None:
                yield f"decoder layer {index}: {BLOCK}", block

    def encode_images(
        self, pixel_values: Sequence[Float[Tensor, "images 3 _side _side"]]
    ) -> list[Float[Tensor, "images _tokens _width"]]:
        """Runs every vision encoder on its own pixels; no pictures give empty features, with gradients of zero."""
        return [
            encoder(pixels) if len(pixels) else self._encode_nothing(encoder, pixels)
            for encoder, pixels in zip(self.encoders, pixel_values, strict=True)
        ]

    def _encode_nothing(self, encoder: VisionEncoder, pixels: Tensor) -> Tensor:
        if is_trained(encoder) or isinstance(encoder, FSDPModule):
            # Ranks without pictures must still reach every trainable parameter, and gather every sharded one with the
            # others; many encoders refuse an empty batch.
            return encoder(pixels.new_zeros(1, *pixels.shape[1:]))[:0]
        return pixels.new_zeros(0, encoder.config.num_tokens, encoder.config.width)

    def get_image_features(
        self,
        pixel_values: Sequence[Tensor] | None = None,
        image_sizes: Int[Tensor, "images 2"] | None = None,
        vision_features: Sequence[Tensor] | None = None,
        **kwargs: Any,
    ) -> ImageFeatures:
        """Encodes pictures into image tokens and the context of the SVA blocks inside the language model.

        Args:
            pixel_values: Prepared pixels, one (images, 3, side, side) per encoder.
            image_sizes: Original (height, width) of every picture.
            vision_features: Saved encoder features, one (images, tokens, width) per encoder, instead of pixels, which
                a processor may still bring along.
            kwargs: Ignored; transformers passes `return_dict`.

        Raises:
            PromptError: Encoders, pictures and sizes do not agree in number.
            ConfigError: An adapter of peft sits inside an SVA block.
        """
        refuse_adapters(self._sva_blocks())
        features = self._checked_features(pixel_values, image_sizes, vision_features)
        sizes = torch.as_tensor(image_sizes).tolist() if image_sizes is not None else []
        dtype = self.connector.newline.dtype
        tokens, layout, context = self.connector([x.to(dtype) for x in features], sizes)
        return ImageFeatures(tokens, split_tokens(tokens, layout.lengths), layout.slots, context)

    def _checked_features(
        self,
        pixel_values: Sequence[Tensor] | None,
        image_sizes: Tensor | None,
        vision_features: Sequence[Tensor] | None,
    ) -> list[Tensor]:
        given = vision_features if vision_features is not None else pixel_values
        if given is None:
            return self.encode_images([self._no_pixels(encoder) for encoder in self.encoders])
        if len(given) != len(self.vision_encoders):
            raise PromptError(
                f"{len(given)} image tensors for {len(self.vision_encoders)} vision encoders; give one each"
            )
        counts = {len(x) for x in given} | {0 if image_sizes is None else len(image_sizes)}
        if len(counts) > 1:
            raise PromptError(
                f"pictures differ in number: {[len(x) for x in given]} per encoder, "
                f"{0 if image_sizes is None else len(image_sizes)} in image_sizes"
            )
        for encoder, x in zip(self.encoders, given, strict=True):
            _check_shape(encoder.config, x, is_features=vision_features is not None)
        return list(given) if vision_features is not None else self.encode_images(given)

    def _no_pixels(self, encoder: VisionEncoder) -> Tensor:
        side = encoder.config.image_side
        return torch.zeros(0, 3, side, side, dtype=self.connector.newline.dtype, device=self.connector.newline.device)

    def forward(
        self,
        input_ids: Int[Tensor, "batch sequence"] | None = None,
        attention_mask: Tensor | dict[str, Tensor] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Sequence[Tensor] | None = None,
        image_sizes: Int[Tensor, "images 2"] | None = None,
        vision_features: Sequence[Tensor] | None = None,
        mm_encoder_outputs: dict[str, ImageFeatures] | None = None,
        labels: Int[Tensor, "batch sequence"] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> ModelOutput:
        """Predicts the next token of every position.

        With `labels`, the output has their loss; its `logits` are None if `loss_options` ask for a loss without them.

        Args:
            input_ids: Token ids; every image token of a picture carries `config.image_token_id`, in the order of the
                pictures, exactly as many as `image_tokens.num_image_tokens` says.
            attention_mask: 1 for tokens, 0 for padding; or what transformers makes of that for a static cache. Packed
                rows pass none: `position_ids` that restart tell the samples apart.
            position_ids: Positions, restarting with every packed sample.
            past_key_values: Cache of earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, pictures already spliced in.
            pixel_values: Prepared pixels, one (images, 3, side, side) per encoder.
            image_sizes: Original (height, width) of every picture.
            vision_features: Saved encoder features, one (images, tokens, width) per encoder, instead of pixels, which
                a processor may still bring along.
            mm_encoder_outputs: {"image": `get_image_features(...)`}; `generate` encodes once and passes this.
            labels: Ids to predict, aligned with `input_ids`; -100 is not supervised, nor are image tokens.
            num_items_in_batch: Divides the summed loss; by default the number of supervised tokens here.
            use_cache: Whether to return a cache; by default not in training nor with labels, for transformers tells
                packed samples apart only where there is none.
            logits_to_keep: As in transformers.
            kwargs: Passed to the language model.

        Raises:
            PromptError: Image tokens and pictures do not agree in number.
            ConfigError: `loss_options` ask for what this language model, or this machine, cannot do.
        """
        if use_cache is None and (self.training or labels is not None):
            use_cache = False
        images = (mm_encoder_outputs or {}).get("image")
        if inputs_embeds is not None:
            self._check_embeds_alone(input_ids, images, pixel_values, vision_features)
        elif input_ids is None:
            raise PromptError("neither input_ids nor inputs_embeds is given; pass one of them")
        else:
            if images is None and self._needs_images(pixel_values, vision_features):
                images = self.get_image_features(pixel_values, image_sizes, vision_features)
            inputs_embeds, context = self._splice(input_ids, images, _is_decoding(input_ids, past_key_values))
            if self.in_llm_layers:
                kwargs["vision_context"] = context
        inputs = {
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            **kwargs,
        }
        if labels is None:
            return self.language_model(**inputs, logits_to_keep=logits_to_keep)
        labels = labels.masked_fill(labels == self.config.image_token_id, IGNORED_LABEL)
        if self.loss_options.implementation == "whole":
            outputs = self.language_model(**inputs, logits_to_keep=logits_to_keep)
            outputs.loss = token_loss(outputs.logits, labels, num_items_in_batch)
        else:
            outputs = self._score_without_logits(inputs, labels, num_items_in_batch)
        if (balance := getattr(outputs, "aux_loss", None)) is not None:  # of experts, if the configuration asks
            outputs.loss = outputs.loss + self._weighted(balance.to(outputs.loss.device), labels, num_items_in_batch)
        return outputs

    def _score_without_logits(
        self, inputs: dict[str, Any], labels: Int[Tensor, "batch sequence"], num_items: Tensor | int | None
    ) -> ModelOutput:
        targets = find_targets(labels)
        decoded = decode(self.language_model, inputs)
        if self._checked_loss != self.loss_options.implementation:
            check_head(self.language_model, decoded, self.loss_options)
            self._checked_loss = self.loss_options.implementation
        total = summed_loss(self.language_model, decoded, targets, self.loss_options)
        outputs = decoded.outputs
        outputs.loss = total / (num_items if num_items is not None else max(len(targets.ids), 1))
        outputs.logits = None
        return outputs

    def _weighted(
        self, balance: Float[Tensor, ""], labels: Int[Tensor, "batch sequence"], num_items: Tensor | int | None
    ) -> Float[Tensor, ""]:
        """Weights the balance of experts by this batch's share of the supervised tokens, if it is a part of a step.

        So it is averaged over the parts, as the rest of the loss is, and a batch with nothing supervised adds nothing.
        """
        balance = self.config.get_text_config().router_aux_loss_coef * balance
        if num_items is None:
            return balance
        return balance * ((labels[:, 1:] != IGNORED_LABEL).sum() / num_items)

    def _needs_images(self, *given: Any) -> bool:
        # In training the connector always runs, on nothing if need be, so that every rank reduces the same gradients.
        return self.training or any(x is not None for x in given)

    def _check_embeds_alone(self, *others: Any) -> None:
        if any(x is not None for x in others):
            raise PromptError(
                "inputs_embeds come with input_ids or pictures; image tokens are found in input_ids, so pass input_ids "
                "and pictures, or inputs_embeds alone (SVA blocks inside the language model then see nothing)"
            )

    def _splice(
        self, input_ids: Tensor, images: ImageFeatures | None, is_decoding: bool
    ) -> tuple[Tensor, TokenContext | None]:
        is_image = input_ids == self.config.image_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
        if images is None and is_decoding:
            return embeds, None
        positions = image_positions(is_image, images.lengths if images is not None else [])
        if images is None:
            return embeds, None
        embeds = embeds.flatten(0, 1).index_copy(0, positions, images.tokens.to(embeds)).view_as(embeds)
        if images.context is None:
            return embeds, None
        return embeds, TokenContext(images.context, positions.index_select(0, images.token_slots.to(positions.device)))

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Encodes the pictures once per `generate`; transformers' own would overlook saved features."""
        names = ("pixel_values", "image_sizes", "vision_features")
        given = {name: model_kwargs.pop(name) for name in names if model_kwargs.get(name) is not None}
        if given:
            model_kwargs["mm_encoder_outputs"] = {"image": self.get_image_features(**given)}
        return model_kwargs

    def _prefill(
        self, input_ids: Tensor, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> ModelOutput:
        """Fills the cache with the prompt.

        Raises:
            PromptError: In chunks: transformers would cut pictures, and know nothing of what the SVA blocks see.
        """
        if generation_config.prefill_chunk_size is not None:
            raise PromptError(
                f"prefill_chunk_size is {generation_config.prefill_chunk_size}, but a prompt with pictures is filled "
                "whole; leave it out"
            )
        return super()._prefill(input_ids, generation_config, *args, **kwargs)

    def _expand_multimodal_outputs(
        self,
        input_ids: Tensor,
        mm_encoder_output: dict[str, ImageFeatures],
        expand_size: int = 1,
        inputs_embeds: Tensor | None = None,
    ) -> dict[str, ImageFeatures]:
        """Repeats every sample's pictures for beam search and several return sequences."""
        images = mm_encoder_output.get("image")
        if images is None or not images.pooler_output:
            return mm_encoder_output
        rows = share_pictures((input_ids == self.config.image_token_id).sum(-1).tolist(), images.lengths)
        order = [picture for pictures in rows for picture in list(pictures) * expand_size]
        return {**mm_encoder_output, "image": _select_images(images, order)}


def _check_shape(encoder: VisionEncoderConfig, given: Tensor, is_features: bool) -> None:
    wanted: tuple[int, ...] = (3, encoder.image_side, encoder.image_side)
    what = "pixel_values"
    if is_features:
        wanted, what = (encoder.num_tokens, encoder.width), "vision_features"
    elif encoder.library == "precomputed":
        return  # it refuses pixels of any shape
    if tuple(given.shape[1:]) != wanted:
        raise PromptError(
            f"{what} of {encoder.name} are {list(given.shape)}; expected (images, {', '.join(map(str, wanted))})"
        )


def _is_decoding(input_ids: Tensor, cache: Any) -> bool:
    """Tells a decoding step, which holds no image tokens, without asking the device how long the cache is."""
    return cache is not None and input_ids.shape[1] == 1 and cache.is_initialized


def _select_images(images: ImageFeatures, order: Sequence[int]) -> ImageFeatures:
    starts = torch.tensor(list(accumulate(images.lengths, initial=0)), device=images.token_slots.device)
    bounds = torch.searchsorted(images.token_slots, starts).tolist()  # of each picture's queries
    queries = [torch.arange(bounds[i], bounds[i + 1], device=starts.device) for i in order]
    new_starts = accumulate((images.lengths[i] for i in order), initial=0)
    slots = [images.token_slots[q] - starts[i] + start for q, i, start in zip(queries, order, new_starts, strict=False)]
    context = images.context
    if context is not None:
        owners = [torch.full_like(q, new) for new, q in enumerate(queries)]
        summary = context.summary[list(order)]
        context = context.select(torch.cat(queries))._replace(summary=summary, image_of_query=torch.cat(owners))
    tokens = [images.pooler_output[i] for i in order]
    return ImageFeatures(torch.cat(tokens), tokens, torch.cat(slots), context)


def split_tokens(tokens: Float[Tensor, "tokens dim"], lengths: Sequence[int]) -> list[Tensor]:
    """Splits image tokens by picture; no pictures give no parts."""
    return list(tokens.split(list(lengths))) if lengths else []


def _align(model: nn.Module) -> None:
    """Moves weights that lie askew in a mapped file to their own memory: a product's last bit depends on it."""
    for tensor in model.parameters():
        if tensor.device.type == "cpu" and tensor.data_ptr() % MEMORY_ALIGNMENT:
            tensor.data = tensor.data.clone()


def _mark_initialised(*roots: nn.Module) -> None:
    """Keeps transformers from drawing these weights anew; their own constructors have set them."""
    for root in roots:
        for module in root.modules():
            module._is_hf_initialized = True  # type: ignore[assignment]
