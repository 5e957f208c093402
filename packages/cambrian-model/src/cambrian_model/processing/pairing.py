"""Which picture goes with which placeholder; numbers that disagree are an error that names both and the prompt."""

from collections.abc import Sequence
from typing import Any

from cambrian_model.errors import PromptError


def attach_images(named: Sequence[Any], given: Sequence[Any], num_marks: int, name: str) -> list[Any]:
    """Pairs the placeholders of one conversation with pictures, in order.

    Args:
        named: One entry per image part: the picture that it names, or None.
        given: The pictures given beside the messages, for the parts that name none.
        num_marks: How many placeholders the rendered conversation holds.
        name: What errors call the conversation.

    Raises:
        PromptError: Numbers disagree.
    """
    if len(named) != num_marks:
        raise PromptError(f"{name}: the chat template shows {num_marks} of its {len(named)} images; choose another")
    require_match(sum(image is None for image in named), len(given), name)
    rest = iter(given)
    return [next(rest) if image is None else image for image in named]


def deal_images(images: Any, num_marks: Sequence[int]) -> list[list[Any]]:
    """Deals pictures to prompts: one list per prompt as it is, or one list for all in order, or a single picture.

    Args:
        images: The pictures; None for none.
        num_marks: How many placeholders each prompt holds.

    Raises:
        PromptError: Numbers disagree.
    """
    if images is None:
        images = []
    rows = list(images) if isinstance(images, (list, tuple)) else [images]
    if rows and all(isinstance(row, (list, tuple)) for row in rows):
        if len(rows) != len(num_marks):
            raise PromptError(f"{len(rows)} lists of images for {len(num_marks)} prompts; give one list for each")
        for i, (row, count) in enumerate(zip(rows, num_marks, strict=True)):
            require_match(count, len(row), f"prompt {i}")
        return [list(row) for row in rows]
    require_match(sum(num_marks), len(rows), ", ".join(f"prompt {i} ({n})" for i, n in enumerate(num_marks)))
    rest = iter(rows)
    return [[next(rest) for _ in range(count)] for count in num_marks]


def require_match(num_marks: int, num_images: int, name: str) -> None:
    """Checks that there is one picture for each placeholder.

    Raises:
        PromptError: There is not.
    """
    if num_marks != num_images:
        raise PromptError(f"{name}: {num_marks} image placeholders but {num_images} images; give one image for each")
