"""Chat templates, and the one decision about what is supervised: the assistant's turns, each with its end marker.

Templates are Jinja files in the library's own form. `{% generation %}` marks what the assistant writes; a foreign
template that does not mark it is rendered turn by turn, and what each assistant turn adds is found by comparing.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from cambrian_model.config import IMAGE_TOKEN
from cambrian_model.errors import PromptError, did_you_mean
from cambrian_model.processing.outline import Outline, Piece, Rendered, Span, placeholders

DEFAULT_TEMPLATE = "user_assistant"

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_FOLDER = resources.files("cambrian_model.processing") / "chat_templates"
# Conversations on which a template shows how it treats turns.
_TURNS = tuple({"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True))
_CAPTION = ({"role": "user", "content": IMAGE_TOKEN}, {"role": "assistant", "content": "a"})
# Of our templates, those that write contents as they are; "plain" looks for pictures in them.
_WRITING = ("chatml_direct", "llama_3", "phi3", "user_assistant", "vicuna_v1")
_MESSAGE_KEYS = {"role", "content"}
_MOST_OUTLINES = 1024
# The library keeps one tracker of generation blocks for all threads.
_TRACKER = threading.Lock()


def template_names() -> list[str]:
    """Returns the names of the templates that come with this package."""
    return sorted(file.name.removesuffix(".jinja") for file in _FOLDER.iterdir() if file.name.endswith(".jinja"))


def named_template(name: str) -> str:
    """Returns the source of a template that comes with this package.

    Raises:
        PromptError: No template has that name.
    """
    if name not in template_names():
        raise PromptError(f'unknown chat template "{name}"{did_you_mean(name, template_names())}')
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _writing_templates() -> frozenset[str]:
    return frozenset(map(named_template, _WRITING))


def choose_template(chosen: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a template's source: the chosen one (a name or Jinja), else the tokenizer's own, else our default.

    Raises:
        PromptError: The name is unknown, or the default is needed and the tokenizer has no end-of-sequence token.
    """
    if chosen is not None:
        return chosen if "{" in chosen else named_template(chosen)
    own = tokenizer.chat_template
    own = own.get("default") if isinstance(own, dict) else own
    if own is not None:
        return own
    if tokenizer.eos_token is None:
        raise PromptError(
            "the tokenizer has neither a chat template nor an end-of-sequence token, so an answer would never end; "
            "set tokenizer.eos_token, or choose a chat template"
        )
    return named_template(DEFAULT_TEMPLATE)


class ChatTemplate:
    """Renders conversations with one Jinja template.

    Args:
        source: The template.
        special_tokens: Variables such as `bos_token` that the template may use.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens)
        self.marks_generation = _GENERATION.search(source) is not None
        self._writes_contents = source in _writing_templates()
        self._outlines: dict[Any, Outline] = {}

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False, **variables: Any
    ) -> Rendered:
        """Renders messages whose content is plain text, and finds what the assistant writes in them.

        Raises:
            PromptError: The template refuses the messages, or it writes a conversation differently once it goes on,
                so that no part of it can be told to be the answer.
        """
        text, spans = self._render(messages, add_generation_prompt, variables)
        if not self.marks_generation:
            spans = self._spans_by_prefix(messages, text, variables)
        return Rendered(text, spans)

    def pieces(self, messages: Sequence[Mapping[str, Any]]) -> list[Piece]:
        """Renders messages as `render` does, cut where the assistant begins and ends to write.

        Raises:
            PromptError: As `render`.
        """
        outline = self._outline_of(messages, False) if self.marks_generation else None
        if outline is None:
            return list(self.render(messages).pieces())
        return outline.pieces([message["content"] for message in messages])

    @cached_property
    def is_prefix_consistent(self) -> bool:
        """Whether what the model sees before an answer is the same in training and in inference."""
        try:
            return self._agrees_on(_TURNS)
        except PromptError:  # a template for one picture and its caption takes nothing else
            return self._agrees_on(_CAPTION)

    def _agrees_on(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        text, spans = self.render(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        prompts = [self._render(messages[:i], True, {})[0] for i in answers]
        return [text[:start] for start, _ in spans] == prompts

    def _render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, variables: Mapping[str, Any]
    ) -> tuple[str, list[Span]]:
        text, spans = self._write(messages, add_generation_prompt, variables)
        closing = "" if self.marks_generation or add_generation_prompt else self._closing
        return text.removesuffix(closing), spans

    def _write(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, variables: Mapping[str, Any]
    ) -> Rendered:
        outline = None if variables else self._outline_of(messages, add_generation_prompt)
        if outline is None:
            return self._run(messages, add_generation_prompt, variables)
        return outline.fill([message["content"] for message in messages])

    def _outline_of(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> Outline | None:
        """Returns the outline of conversations of this shape; None where the template or a message is not plain."""
        if not self._writes_contents:
            return None
        shape: list[Any] = [add_generation_prompt]
        for message in messages:
            if message.keys() != _MESSAGE_KEYS:
                return None
            shape += (message["role"], bool(message["content"]))
        key = tuple(shape)
        if (outline := self._outlines.get(key)) is None:
            outline = self._make_outline(messages, add_generation_prompt)
            self._outlines = {} if len(self._outlines) >= _MOST_OUTLINES else self._outlines
            self._outlines[key] = outline
        return outline

    def _make_outline(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> Outline:
        marks = placeholders([message["content"] for message in messages])
        empty = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
        return Outline.of(self._run(empty, add_generation_prompt, {}))

    def _run(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, variables: Mapping[str, Any]
    ) -> Rendered:
        try:
            with _TRACKER:
                texts, spans = render_jinja_template(
                    conversations=[list(messages)],
                    chat_template=self.source,
                    return_assistant_tokens_mask=self.marks_generation,
                    add_generation_prompt=add_generation_prompt,
                    **{**self.special_tokens, **variables},
                )
        except (jinja2.TemplateError, TypeError) as error:
            raise PromptError(f"the chat template refuses this conversation: {error}") from error
        return Rendered(texts[0], [(start, end) for start, end in spans[0]] if spans else [])

    @cached_property
    def _closing(self) -> str:
        """The end of text that a foreign template writes behind a whole conversation, and behind no turn inside it.

        Phi-3's and others do. It belongs to no answer, so it is left out: generation stops at the turn's own end mark.
        """
        eos = self.special_tokens.get("eos_token") or ""
        try:
            part, whole = (self._write(_TURNS[:count], False, {})[0] for count in (2, 4))
        except PromptError:  # a template for one picture and its caption takes nothing else
            return ""
        is_closing = eos and part.endswith(eos) and not whole.startswith(part)
        return eos if is_closing and whole.startswith(part.removesuffix(eos)) else ""

    def _spans_by_prefix(
        self, messages: Sequence[Mapping[str, Any]], text: str, variables: Mapping[str, Any]
    ) -> list[Span]:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, _ = self._render(messages[:i], True, variables)
            after, _ = self._render(messages[: i + 1], False, variables)
            if not (after.startswith(before) and text.startswith(after)):
                raise PromptError(
                    f"the chat template writes the conversation up to message {i} differently once it goes on, so its "
                    "answer cannot be found; choose another template, or mark answers in it with {% generation %}"
                )
            spans.append((len(before), len(before) + _turn_length(after[len(before) :], message["content"])))
        return spans


def _turn_length(turn: str, answer: str) -> int:
    """Returns how much of `turn` is the answer and its end marker, without white space behind the marker."""
    answer = answer.strip()
    answer_end = turn.find(answer) + len(answer) if answer in turn else 0
    marker = turn[answer_end:].rstrip()
    return answer_end + len(marker) if marker else len(turn)
