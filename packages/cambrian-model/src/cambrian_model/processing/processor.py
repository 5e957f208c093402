"""The processor: conversations and pictures in, token ids and pixels out, by one path for training and inference.

It knows the size of every picture, so it writes as many image tokens as the picture fills. Lengths therefore need no
pixels (`count_tokens`), and nothing behind the processor ever inserts or removes a token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import MultiModalData, ProcessorMixin

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import locate
from cambrian_model.config import IMAGE_TOKEN, CambrianConfig
from cambrian_model.errors import PromptError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing.chat import ChatTemplate, choose_template
from cambrian_model.processing.image_source import ImageSource
from cambrian_model.processing.images import CambrianImageProcessor
from cambrian_model.processing.measure import Measure
from cambrian_model.processing.messages import Conversation, read_messages, restore
from cambrian_model.processing.padding import LIBRARY_OPTIONS, Padding, refuse_options
from cambrian_model.processing.pairing import attach_images, deal_images, require_match
from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.processing.text import Segment, TextEncoder

Messages = Sequence[Mapping[str, Any]]

# An answer that no template writes of itself.
_ANSWER = "a, b"


class CambrianProcessor(ProcessorMixin):
    """Prepares the inputs of `CambrianForConditionalGeneration`.

    The tokenizer gets `<image>` as a special token if it lacks one; the model needs no embedding for it.

    Args:
        image_processor: Prepares the pixels.
        tokenizer: The language model's, a fast one.
        chat_template: A Jinja template, or the name of one of ours; by default the tokenizer's own, or else
            "user_assistant".
        grid_side: Side of the grid of image tokens of a square picture, as in the model's configuration.

    Raises:
        PromptError: The tokenizer is a slow one, or no template fits it.
    """

    _SETTINGS: ClassVar[tuple[str, ...]] = ("chat_template", "grid_side")

    def __init__(
        self,
        image_processor: CambrianImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        grid_side: int = 24,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=choose_template(chat_template, tokenizer))
        if IMAGE_TOKEN not in tokenizer.get_added_vocab():
            tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False)], special_tokens=True)
        if hasattr(tokenizer, "legacy"):  # the library forgets to save it, and then text is spelled differently
            tokenizer.init_kwargs["legacy"] = tokenizer.legacy
        self.grid_side = grid_side
        self.image_token = IMAGE_TOKEN
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._encoder = TextEncoder(tokenizer)
        self._last_template: ChatTemplate | None = None

    @classmethod
    def from_config(
        cls, config: CambrianConfig, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None
    ) -> "CambrianProcessor":
        """Builds the processor of a model; the caller sets `config.image_token_id` to its `image_token_id`.

        Raises:
            PromptError: The tokenizer cannot spell the words of the chat template.
        """
        image_processor = CambrianImageProcessor.from_config(config)
        processor = cls(image_processor, tokenizer, chat_template=chat_template, grid_side=config.grid_side)
        processor._require_spellable_template()
        return processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Loads the processor of a checkpoint.

        Raises:
            CheckpointError: No such folder, or a file of the processor or tokenizer is missing or damaged.
        """
        source = locate(pretrained_model_name_or_path)
        with reading(source, "a Cambrian processor"):
            return super().from_pretrained(source, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's arguments that the processor makes."""
        return ["input_ids", "attention_mask", "pixel_values", "image_sizes"]

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end an answer: the mark that the template writes behind one, and the end of a sequence.

        Raises:
            PromptError: The mark is several tokens, so that its last one may well stand inside an answer.
        """
        rendered = self._template().render([{"role": "user", "content": IMAGE_TOKEN}, _reply(_ANSWER)])
        written = rendered.text[slice(*rendered.supervised[-1])]
        answer, _, mark = written.partition(_ANSWER)
        ids = self._encoder.encode_after(answer + _ANSWER, mark) if mark else []
        if len(ids) > 1:
            raise PromptError(
                f"the chat template ends an answer with {mark!r}, which is {len(ids)} tokens for this tokenizer, so "
                "generation could not stop there; add it to the tokenizer as one token, or choose another template"
            )
        return list(dict.fromkeys(token for token in [*ids, self.tokenizer.eos_token_id] if token is not None))

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Prepares prompts that are already text; each `<image>` in them stands for the next picture.

        Args:
            images: One picture, the pictures of all prompts in order, or one list of pictures per prompt.
            text: One prompt or several.
            padding: Whether shorter prompts are filled up, on the left, with the padding token; see `Padding`.
            return_tensors: "pt" for tensors, None for lists; pixels and image sizes are tensors always.
            max_length: Tokens that no prompt may exceed; nothing is ever cut.
            options: The library's names for what is not done here; each may be None.

        Raises:
            PromptError: Placeholders and pictures do not match, a prompt is too long, or prompts of unequal length are
                not to be padded.
            ImageError: A picture cannot be read.
        """
        refuse_options(options)
        settings = Padding(padding, max_length, return_tensors)
        prompts = [text] if isinstance(text, str) else list(text or [])
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise PromptError("text must be a string, or several; for pixels alone use the image_processor")
        segments = [self._encoder.encode(prompt) for prompt in prompts]
        counts = [_count_marks(row) for row in segments]
        return self._batch(segments, deal_images(images, counts), settings)

    def apply_chat_template(
        self,
        conversation: Messages | Sequence[Messages],
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Any:
        """Renders one conversation, or a batch of them, and prepares the model's inputs.

        A message's content is a string or a list of `{"type": "text", "text": ...}` and `{"type": "image", "image":
        path, bytes, PIL image, array or tensor}` ("path" or "url" may stand for "image"; local files only). The
        letters `<image>` inside a text are text.

        Args:
            conversation: Messages, or a list of conversations.
            chat_template: Another template than the processor's.
            add_generation_prompt: Whether the assistant's turn is opened at the end.
            continue_final_message: Not supported.
            tokenize: Whether to encode; otherwise the text is returned.
            return_dict: Whether to return all inputs; otherwise only the ids.
            return_tensors: "pt" for tensors, None for lists; pixels and image sizes are tensors always.
            padding: Whether shorter conversations are filled up, on the left; see `Padding`.
            max_length: Tokens that no conversation may exceed; nothing is ever cut.
            processor_kwargs: The library's other way to give the three above.
            variables: Further variables of the template.

        Raises:
            PromptError: A conversation has the wrong form or is too long, or a picture is missing; says which.
            ImageError: A picture cannot be read.
        """
        refuse_options({name: value for name, value in variables.items() if name in LIBRARY_OPTIONS})
        settings = Padding(padding, max_length, return_tensors).changed(processor_kwargs or {})
        if continue_final_message:
            raise PromptError("continue_final_message is not supported; end with a user message and let it answer")
        is_batch = bool(conversation) and not isinstance(conversation[0], Mapping)
        rows: Sequence[Any] = conversation if is_batch else [conversation]
        names = [f"prompt {i}" for i in range(len(rows))]
        conversations = [self._read(row, name) for row, name in zip(rows, names, strict=True)]
        template = self._template(chat_template)
        rendered = [template.render(row.messages, add_generation_prompt, **variables) for row in conversations]
        if not tokenize:
            texts = [restore(row.text) for row in rendered]
            return texts if is_batch else texts[0]
        segments = [self._encoder.encode(*row) for row in rendered]
        images = [
            attach_images(row.images, (), _count_marks(encoded), name)
            for row, encoded, name in zip(conversations, segments, names, strict=True)
        ]
        batch = self._batch(segments, images, settings)
        return batch if return_dict else batch["input_ids"]

    def encode(self, messages: Messages, images: Sequence[ImageSource] = (), name: str = "conversation") -> Sample:
        """Encodes one training conversation.

        Supervised are the assistant's turns with their end markers, but never image tokens, nor characters that the
        tokenizer cannot spell.

        Args:
            messages: The conversation; its image parts stand for `images`, in order.
            images: The pictures.
            name: What errors call this conversation.

        Raises:
            PromptError: Pictures and placeholders do not match, or nothing is supervised.
            ImageError: A picture cannot be read.
        """
        conversation = self._read(messages, name)
        segments = self._training_segments(conversation)
        sources = attach_images(conversation.images, images, _count_marks(segments), name)
        pixels = self.image_processor(sources, names=[f"{name}, image {i}" for i in range(len(sources))])
        input_ids, labels = self._expand(segments, pixels["image_sizes"].tolist())
        _require_supervised(labels, name)
        return Sample(
            torch.tensor(input_ids),
            torch.tensor(labels),
            pixels["pixel_values"],
            pixels["image_sizes"],
            picture_end=self.picture_end(input_ids),
        )

    def picture_end(self, input_ids: Sequence[int]) -> int:
        """Returns how many tokens there are up to the end of the last picture; 0 without pictures."""
        backwards = list(reversed(input_ids))
        return len(input_ids) - backwards.index(self.image_token_id) if self.image_token_id in backwards else 0

    def encode_text(
        self, messages: Messages, image_sizes: Sequence[Sequence[int]] = (), name: str = "conversation"
    ) -> tuple[list[int], list[int]]:
        """Returns ids and labels as `encode` makes them, of pictures of which only (height, width) are known.

        Raises:
            PromptError: Sizes and placeholders do not match in number, or nothing is supervised.
        """
        segments = self._training_segments(self._read(messages, name))
        require_match(_count_marks(segments), len(image_sizes), name)
        input_ids, labels = self._expand(segments, image_sizes)
        _require_supervised(labels, name)
        return input_ids, labels

    def count_tokens(
        self, messages: Messages, image_sizes: Sequence[Sequence[int]] = (), name: str = "conversation"
    ) -> int:
        """Returns how many tokens `encode` will make of a conversation with pictures of these (height, width).

        Raises:
            PromptError: Sizes and placeholders do not match in number, or nothing is supervised.
        """
        return self.measure(messages, image_sizes, name).length

    def measure(
        self, messages: Messages, image_sizes: Sequence[Sequence[int]] = (), name: str = "conversation"
    ) -> Measure:
        """Returns what `encode` will make of a conversation with pictures of these (height, width), in numbers.

        Raises:
            PromptError: Sizes and placeholders do not match in number, or nothing is supervised.
        """
        conversation = self._read(messages, name)
        stretches = self._encoder.measure(self._training_template().pieces(conversation.messages))
        require_match(sum([is_image for _, _, is_image in stretches]), len(image_sizes), name)
        sizes = iter(image_sizes)
        length, picture_end, first_supervised = 0, 0, None
        for num_tokens, first, is_image in stretches:
            if is_image:
                length += num_image_tokens(next(sizes), self.grid_side)
                picture_end = length
                continue
            if first_supervised is None and first is not None:
                first_supervised = length + first
            length += num_tokens
        if first_supervised is None:
            raise _nothing_supervised(name)
        return Measure(length, picture_end, first_supervised)

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> list[Any]:
        # The library looks the image processor up by the model's configuration; ours has only one.
        kwargs.pop("processor_dict", None)
        return [
            CambrianImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs),
        ]

    @classmethod
    def from_args_and_dict(
        cls, args: Sequence[Any], processor_dict: dict[str, Any], **kwargs: Any
    ) -> "CambrianProcessor":
        """Builds a processor from its parts and what `processor_config.json` holds; `from_pretrained` calls it."""
        settings = {key: value for key, value in (processor_dict | kwargs).items() if key in cls._SETTINGS}
        return cls(*args, **settings)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        if image_sizes is None:
            return MultiModalData()
        counts = [num_image_tokens(size, self.grid_side) for size in image_sizes]
        return MultiModalData(num_image_tokens=counts, num_image_patches=[1] * len(counts))

    def _template(self, chosen: str | None = None) -> ChatTemplate:
        source = self.chat_template if chosen is None else choose_template(chosen, self.tokenizer)
        if self._last_template is None or self._last_template.source != source:
            self._last_template = ChatTemplate(source, self.tokenizer.special_tokens_map)
        return self._last_template

    def _require_spellable_template(self) -> None:
        rendered = self._template().render([{"role": "user", "content": IMAGE_TOKEN}, _reply("a")])
        written = rendered.text.replace(IMAGE_TOKEN, "")
        for token in self.tokenizer.all_special_tokens:
            written = written.replace(token, "")
        if unknown := self._encoder.unspellable(written):
            raise PromptError(
                f"the chat template writes {', '.join(map(repr, unknown))}, which this tokenizer cannot spell; choose "
                'another template, for example "user_assistant"'
            )

    def _read(self, messages: Messages, name: str) -> Conversation:
        return read_messages(messages, self._encoder.joint, name)

    def _training_template(self) -> ChatTemplate:
        template = self._template()
        if template.marks_generation and not template.is_prefix_consistent:
            raise PromptError(
                "the chat template opens the assistant's turn differently in training and in inference; choose another"
            )
        return template

    def _training_segments(self, conversation: Conversation) -> list[Segment]:
        return self._encoder.encode(*self._training_template().render(conversation.messages))

    def _tokens(
        self, segments: Sequence[Segment], image_sizes: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Yields ids and labels of each segment, every picture spelled out."""
        sizes = iter(image_sizes)
        for segment in segments:
            if segment.is_image:
                ids = [self.image_token_id] * num_image_tokens(next(sizes), self.grid_side)
                yield ids, [IGNORED_LABEL] * len(ids)
            elif segment.supervised:
                unknown = self._encoder.is_unknown
                yield segment.ids, [IGNORED_LABEL if unknown(token) else token for token in segment.ids]
            else:
                yield segment.ids, [IGNORED_LABEL] * len(segment.ids)

    def _expand(self, segments: Sequence[Segment], image_sizes: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        input_ids: list[int] = []
        labels: list[int] = []
        for segment_ids, segment_labels in self._tokens(segments, image_sizes):
            input_ids += segment_ids
            labels += segment_labels
        return input_ids, labels

    def _batch(
        self,
        segments: Sequence[Sequence[Segment]],
        images: Sequence[Sequence[Any]],
        settings: Padding,
    ) -> BatchFeature:
        flat = [image for row in images for image in row]
        names = [f"prompt {i}, image {j}" for i, row in enumerate(images) for j in range(len(row))]
        pixels = self.image_processor(flat, names=names)
        sizes = iter(pixels["image_sizes"].tolist())
        rows = [
            self._expand(row, [next(sizes) for _ in row_images])[0]
            for row, row_images in zip(segments, images, strict=True)
        ]
        pad_ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        batch = settings.batch(rows, next(token for token in pad_ids if token is not None))
        return BatchFeature({**batch, **pixels} if flat else batch)


def _reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _require_supervised(labels: Sequence[int], name: str) -> None:
    if all(label == IGNORED_LABEL for label in labels):
        raise _nothing_supervised(name)


def _nothing_supervised(name: str) -> PromptError:
    return PromptError(f"{name}: nothing to learn from; it needs an assistant message with text")


def _count_marks(segments: Sequence[Segment]) -> int:
    return sum(segment.is_image for segment in segments)
