"""Chat messages, read and flattened: a template sees strings in which every picture is one `<image>` mark.

A mark stands for a picture only where a message has an image part. The same letters typed by a person are text: they
carry `ESCAPE` through the template, so that they cannot be mistaken for a mark, and are restored behind it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cambrian_model.config import IMAGE_TOKEN
from cambrian_model.errors import PromptError, did_you_mean

ESCAPE = "\ufdd0"  # a Unicode noncharacter: it has no meaning in any text
_SOURCES = ("image", "path", "url")
_MAPPINGS = (dict, Mapping)  # to ask for the abstract class alone takes long
_TYPED_MARK = IMAGE_TOKEN[0] + ESCAPE + IMAGE_TOKEN[1:]


class Conversation(NamedTuple):
    """Messages as a text-only template takes them.

    Attributes:
        messages: The messages, with plain strings as content.
        images: One entry per mark, in reading order: the picture its part names, or None where it names none.
    """

    messages: list[dict[str, Any]]
    images: list[Any]


def read_messages(messages: Sequence[Mapping[str, Any]], joint: str, name: str) -> Conversation:
    """Flattens chat messages whose content is a string or a list of image and text parts.

    Args:
        messages: Dictionaries with "role" and "content".
        joint: What goes between a picture and an adjacent text that brings no white space of its own.
        name: What errors call this conversation.

    Raises:
        PromptError: The messages have another form; says which message.
    """
    if not messages:
        raise PromptError(f"{name}: there are no messages; give at least one")
    flat, images = [], []
    for i, message in enumerate(messages):
        if not isinstance(message, _MAPPINGS) or not isinstance(message.get("role"), str) or "content" not in message:
            raise PromptError(
                f'{name}, message {i}: expected a dictionary with "role" and "content"; found {message!r:.80}'
            )
        content = message["content"]
        if isinstance(content, str):
            text = _escape(content)
        else:
            text, found = _flatten(content, joint, name, i)
            images += found
        flat.append({**message, "content": text})
    return Conversation(flat, images)


def restore(text: str) -> str:
    """Removes the escapes that kept a typed `<image>` from being a mark."""
    return text.replace(ESCAPE, "")


def _flatten(content: object, joint: str, name: str, message: int) -> tuple[str, list[Any]]:
    """Returns the parts as one text, and the picture that each image part names."""
    if not isinstance(content, (list, tuple)):
        found = type(content).__name__
        raise PromptError(f"{name}, message {message}: content is {found}; expected a string or a list of parts")
    text, after_image, images = "", False, list[Any]()
    for part in content:
        kind = part.get("type") if isinstance(part, _MAPPINGS) else None
        is_image = kind == "image"
        if is_image:
            piece = IMAGE_TOKEN
            images.append(_source(part))
        else:
            if kind != "text" or not isinstance(part.get("text"), str):
                raise PromptError(f"{name}, message {message}: {_fault(part, kind)}")
            piece = _escape(part["text"])
        if not piece:
            continue
        edge = piece[0] if after_image else text[-1:]
        if edge and is_image != after_image and not edge.isspace():
            text += joint
        text, after_image = text + piece, is_image
    return text, images


def _source(part: Mapping[str, Any]) -> Any:
    for key in _SOURCES:
        if part.get(key) is not None:
            return part[key]
    return None


def _fault(part: Any, kind: object) -> str:
    if kind != "text":
        return f'unknown part of type "{kind}"{did_you_mean(str(kind), ("image", "text"))}'
    return f'a text part needs "text"; found {", ".join(map(str, part))}'


def _escape(text: str) -> str:
    return restore(text).replace(IMAGE_TOKEN, _TYPED_MARK)
