"""What the models that run on this machine share: batches, greedy decoding, letters by one prefill, a full device.

A child says how prompts become tensors; the rest is the same for every model of transformers. Batches are padded on
the left, so that every row's reply begins in the same column. Sampling is off whatever the checkpoint asks for; its
other wishes (end tokens, repetition penalty) are followed.
"""

from __future__ import annotations

import copy
import platform
from abc import ABC, abstractmethod
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cambrian_eval.errors import ModelError, OutOfMemoryError
from cambrian_eval.models.base import Length
from cambrian_eval.models.headers import read_size
from cambrian_eval.types import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cambrian_eval.types import Prompt

# How a letter begins a reply, as byte-level and as SentencePiece vocabularies write a space.
LETTER_FORMS = ("{}", "({}", "Ġ{}", "Ġ({}", "▁{}", "▁({}")

# What sampling would use. At the library's own values it says nothing about them.
_NO_SAMPLING = {"do_sample": False, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0}
_CPU_REFUSAL = "can't allocate memory"  # in what torch raises where a CPU has no more

Work = TypeVar("Work")


class Batch(NamedTuple):
    """Prompts that go through the model together.

    Attributes:
        rows: Their places among the prompts that were prepared.
        inputs: What the model takes, on the CPU.
        image_tokens: Of each row; None where the model does not mark them.
    """

    rows: Sequence[int]
    inputs: dict[str, Any]
    image_tokens: Sequence[int | None]


class Prepared(NamedTuple):
    """Prompts as tensors.

    Attributes:
        prompts: All of them, in order.
        batches: Those that can be answered.
        failures: By place, those that cannot.
    """

    prompts: Sequence[Prompt]
    batches: list[Batch]
    failures: dict[int, Failure]


class LocalModel(ABC):
    """A model of transformers on a device of this machine.

    Decoding is greedy, so the same prompts in the same batches give the same replies. A prompt that leaves no room for
    a reply in the language model's context, or that the processor refuses, gets a Failure.

    Attributes:
        name: What reports call it.
        hardware: The device, for reports.

    Args:
        name: What reports call it.
        model: On its device.
        processor: Goes with it.
        stop_ids: Tokens that end a reply.
        image_token_id: Marks the image tokens among a prompt's ids; None if nothing does.
        refusals: Errors by which the processor refuses a prompt.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        processor: Any,
        *,
        stop_ids: Iterable[int],
        image_token_id: int | None,
        refusals: tuple[type[Exception], ...],
    ) -> None:
        self.name = name
        self.hardware = describe(model.device)
        self._model, self._processor, self._refusals = model, processor, refusals
        # Its own copy to read replies with: a fast tokenizer refuses to be used while another thread sets its padding.
        self._reader = copy.deepcopy(processor.tokenizer)
        self._vocabulary: dict[str, int] = self._reader.get_vocab()
        self._stop_ids = list(dict.fromkeys(stop_ids))
        self._image_token_id = image_token_id
        self._context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """One reply for each prompt, in order.

        Raises:
            DataError: A picture cannot be decoded.
            OutOfMemoryError: The device does not hold the batch.
        """
        return self.answer_prepared(self.prepare(prompts))

    def prepare(self, prompts: Sequence[Prompt]) -> Prepared:
        """The prompts as padded tensors on the CPU; every picture is decoded once.

        Raises:
            DataError: A picture cannot be decoded.
        """
        pictures: dict[str, Any] = {}
        for picture in (picture for prompt in prompts for picture in prompt.pictures):
            if picture.sha256 not in pictures:
                pictures[picture.sha256] = picture.open()
        prepared = Prepared(prompts, [], {})
        messages = [_messages(prompt, pictures) for prompt in prompts]
        for rows in self._groups(prompts):
            self._prepare_batch(prepared, rows, messages)
        return prepared

    def answer_prepared(self, prepared: Prepared) -> list[Answer | Failure]:
        """One reply for each prompt that was prepared, in order.

        Raises:
            OutOfMemoryError: The device does not hold a batch.
        """
        answers: dict[int, Answer | Failure] = dict(prepared.failures)
        for batch in prepared.batches:
            budgets = [self._budget(prepared.prompts[row], batch, place) for place, row in enumerate(batch.rows)]
            replies = self._on_device(self._decode, batch, budgets)
            for place, row in enumerate(batch.rows):
                answers[row] = self._read(replies[place][: budgets[place]], batch.image_tokens[place])
        return [answers[place] for place in range(len(prepared.prompts))]

    def choose(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """The likeliest letter of each prompt, by one prefill.

        A letter's probability is that of all tokens with which a reply can begin with it: "A", " A", "(A", " (A", as
        far as each is one token for all of the letters that are offered. They exclude each other, so theirs are summed.
        Of equally likely letters the first is taken.

        Raises:
            ModelError: A prompt offers no choices, or the tokenizer has no form that all of its letters share.
            DataError: A picture cannot be decoded.
            OutOfMemoryError: The device does not hold the batch.
        """
        letters = [self._letters(prompt) for prompt in prompts]
        prepared = self.prepare(prompts)
        answers: dict[int, Answer | Failure] = dict(prepared.failures)
        for batch in prepared.batches:
            forms = [letters[row] for row in batch.rows]
            scores = self._on_device(self._weigh, batch, forms)
            for row, of_row, image_tokens in zip(batch.rows, scores, batch.image_tokens, strict=True):
                best = ascii_uppercase[max(range(len(of_row)), key=of_row.__getitem__)]
                answers[row] = Answer(best, image_tokens=image_tokens, option_scores=tuple(of_row))
        return [answers[place] for place in range(len(prompts))]

    def length(self, prompt: Prompt) -> Length:
        """Image tokens and text tokens of the prompt, from the headers of its pictures.

        Raises:
            DataError: A picture's header cannot be read.
            ModelError: The processor refuses the prompt.
        """
        try:
            return self._measure(prompt, [read_size(picture) for picture in prompt.pictures])
        except self._refusals as error:
            raise ModelError(f"{self.name}: question {prompt.id} cannot be measured: {_one_line(error)}") from error

    def _groups(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Places of the prompts that may share a batch."""
        return [list(range(len(prompts)))] if prompts else []

    @abstractmethod
    def _encode(self, messages: Sequence[Any]) -> dict[str, Any]:
        """Conversations as one batch, padded on the left, on the CPU."""

    @abstractmethod
    def _measure(self, prompt: Prompt, sizes: Sequence[tuple[int, int]]) -> Length:
        """What a prompt with pictures of these sizes costs."""

    def _on_model(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What `_encode` made, on the model's device and in its precision."""
        return {key: moved(value, self._model) for key, value in inputs.items()}

    def _prepare_batch(self, prepared: Prepared, rows: list[int], messages: Sequence[Any]) -> None:
        """Encodes some prompts together; those that do not work out get a Failure, and the others a batch of theirs."""
        try:
            inputs = self._encode([messages[row] for row in rows])
        except self._refusals as error:
            if len(rows) == 1:
                prepared.failures[rows[0]] = Failure(f"the processor refuses the prompt: {_one_line(error)}")
                return
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                self._prepare_batch(prepared, half, messages)
            return
        lengths = inputs["attention_mask"].sum(-1).tolist()
        full = [self._context is not None and length >= self._context for length in lengths]
        if not any(full):
            counts = self._count_image_tokens([messages[row] for row in rows], inputs)
            prepared.batches.append(Batch(rows, inputs, counts))
            return
        for row, length, is_full in zip(rows, lengths, full, strict=True):
            if is_full:
                reason = f"the prompt has {length} tokens; the language model's context holds {self._context}"
                prepared.failures[row] = Failure(reason)
        if rest := [row for row in rows if row not in prepared.failures]:
            self._prepare_batch(prepared, rest, messages)

    def _count_image_tokens(self, messages: Sequence[Any], inputs: dict[str, Any]) -> Sequence[int | None]:
        """What the pictures of each conversation cost."""
        if self._image_token_id is None:
            return [None] * len(inputs["input_ids"])
        return (inputs["input_ids"] == self._image_token_id).sum(-1).tolist()

    def _budget(self, prompt: Prompt, batch: Batch, place: int) -> int:
        if self._context is None:
            return prompt.max_new_tokens
        return min(prompt.max_new_tokens, self._context - int(batch.inputs["attention_mask"][place].sum()))

    def _decode(self, batch: Batch, budgets: Sequence[int]) -> list[list[int]]:
        """Ids of each row's reply; what follows its end or its budget is of no meaning."""
        import torch

        with torch.inference_mode():
            inputs = self._on_model(batch.inputs)
            width = inputs["input_ids"].shape[1]
            # A budget for each row, so that a batch of several tasks ends as soon as every row has ended.
            limits = torch.tensor(budgets, device=inputs["input_ids"].device) + width
            tokens = self._model.generate(
                **inputs, **self._decoding(max(budgets)), stopping_criteria=[lambda ids, _: ids.shape[1] >= limits]
            )
        if not torch.equal(tokens[:, :width], inputs["input_ids"]):
            raise ModelError(
                f"{self.name}: a {type(self._model).__name__} does not continue its prompt, and where its reply begins "
                "is not known; expected a decoder. Serve the model yourself and write openai:URL#MODEL."
            )
        return tokens[:, width:].tolist()

    def _weigh(self, batch: Batch, letters: Sequence[list[list[int]]]) -> list[list[float]]:
        """Log-probability of each letter of each row at the place where its reply begins."""
        import torch

        with torch.inference_mode():
            first = self._model.generate(
                **self._on_model(batch.inputs), **self._decoding(1), output_logits=True, return_dict_in_generate=True
            ).logits[0]
            scores = first.float().log_softmax(-1).cpu()
            return [
                [float(row[forms].logsumexp(0)) for forms in of_row]
                for row, of_row in zip(scores, letters, strict=True)
            ]

    def _decoding(self, max_new_tokens: int) -> dict[str, Any]:
        stops = self._stop_ids
        ends = {"eos_token_id": stops, "pad_token_id": stops[0]} if stops else {}
        return {**_NO_SAMPLING, **ends, "max_new_tokens": max_new_tokens, "use_cache": True}

    def _read(self, ids: Sequence[int], image_tokens: int | None) -> Answer:
        end = next((place for place, token in enumerate(ids) if token in self._stop_ids), None)
        text = self._reader.decode(ids[:end], skip_special_tokens=True).strip()
        return Answer(text, end is None, image_tokens, len(ids) if end is None else end)

    def _letters(self, prompt: Prompt) -> list[list[int]]:
        """Of each offered letter, the tokens with which a reply can begin with it."""
        if not prompt.choices:
            raise ModelError(
                f"{self.name}: question {prompt.id} offers no choices to choose from; generate a reply instead."
            )
        if len(prompt.choices) > len(ascii_uppercase):
            raise ModelError(
                f"{self.name}: question {prompt.id} offers {len(prompt.choices)} choices; there are only "
                f"{len(ascii_uppercase)} letters. Generate a reply instead."
            )
        tokens = letter_tokens(self._vocabulary, ascii_uppercase[: len(prompt.choices)])
        if not tokens[0]:
            raise ModelError(
                f"{self.name}: the tokenizer has no form in which each of the {len(prompt.choices)} letters of "
                f"question {prompt.id} is one token, so they cannot be compared; generate a reply instead."
            )
        return tokens

    def _on_device(self, work: Callable[[Batch, Any], Work], batch: Batch, with_what: Any) -> Work:
        """Does the work; where the device's memory does not hold it, says so in a way that the runner understands."""
        import torch

        try:
            return work(batch, with_what)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and _CPU_REFUSAL not in str(error):
                raise
            reason = _one_line(error)
        # Outside of the clause above: the error holds the frames, and the frames hold the tensors that did not fit.
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        raise OutOfMemoryError(
            f"{self.name}: {self.hardware} does not hold a batch of {len(batch.rows)} prompts ({reason})."
        )


def letter_tokens(vocabulary: Mapping[str, int], letters: str) -> list[list[int]]:
    """For each letter, the tokens with which a reply can begin with it, in the forms that all of the letters have.

    A form that is one token for some letters and two for others, as "(A" often is, would favour the former.
    """
    forms = [form for form in LETTER_FORMS if all(form.format(letter) in vocabulary for letter in letters)]
    return [[vocabulary[form.format(letter)] for form in forms] for letter in letters]


def moved(value: Any, model: Any) -> Any:
    """Tensors, and lists of them, on the model's device; numbers with a point in its precision."""
    if isinstance(value, list | tuple):
        return [moved(one, model) for one in value]
    if not hasattr(value, "is_floating_point"):
        return value
    return value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)


def end_ids(model: Any) -> list[int]:
    """The tokens at which a checkpoint says that generation ends."""
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def num_image_tokens(processor: Any, sizes: Sequence[tuple[int, int]]) -> int:
    """What pictures of these heights and widths cost, by the interface that transformers has for serving engines."""
    return sum(processor._get_num_multimodal_tokens(image_sizes=list(sizes)).num_image_tokens) if sizes else 0


def describe(device: Any) -> str:
    """What reports call a device: a GPU's name, or the kind of CPU."""
    if device.type == "cuda":
        from torch import cuda

        return cuda.get_device_name(device)
    return f"{device.type.upper()} ({platform.machine()})"


def _messages(prompt: Prompt, pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompt in the Hugging Face chat form; the same picture is the same object."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": pictures[part.sha256]}
        for part in prompt.content
    ]
    return [{"role": "user", "content": content}]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
