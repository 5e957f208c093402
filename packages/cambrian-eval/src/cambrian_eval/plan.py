"""What is asked together, and in which order: a pure function of prompts, lengths and batch size.

Equal requests are asked once. The longest come first, so that a batch that does not fit shows at once, and what stands
in one batch is of nearly the same length, so that little is padded. Questions about one picture are neighbours: a model
that keeps what it saw need not look again. Neither workers nor what a log holds already change the plan.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian_eval.picture import Picture
    from cambrian_eval.types import Prompt

MIN_FILL = 0.5  # a prompt shorter than this part of its batch's longest one begins another batch
GRAINS = 8  # lengths of one bucket differ by at most one in so many
PIXELS_PER_TOKEN = 28 * 28  # and
CHARACTERS_PER_TOKEN = 4  # where the model does not tell: only the order depends on them


@dataclass(frozen=True)
class Plan:
    """The batches of a run.

    Attributes:
        batches: Requests that are asked together, no two of them equal.
        served: Ids of the questions that a request answers, by the request's own id, which comes first.
    """

    batches: tuple[tuple[Prompt, ...], ...]
    served: Mapping[str, tuple[str, ...]]


def make_plan(requests: Mapping[str, Sequence[Prompt]], lengths: Sequence[tuple[int, int]], batch_size: int) -> Plan:
    """Put requests into batches.

    Args:
        requests: From `unique_requests`.
        lengths: Image tokens and text tokens of each.
        batch_size: The most prompts of a batch.
    """
    firsts = [prompts[0] for prompts in requests.values()]
    served = {
        first.id: tuple(one.id for one in prompts) for first, prompts in zip(firsts, requests.values(), strict=True)
    }
    return Plan(tuple(_cut(_order(firsts, lengths), batch_size)), served)


def unique_requests(prompts: Sequence[Prompt], answers_by_id: bool = False) -> dict[str, list[Prompt]]:
    """Prompts by the id of the first one that is equal to them: same pictures, texts, choices and budget.

    Args:
        prompts: Of all questions.
        answers_by_id: The model may answer equal prompts differently: none are merged.
    """
    firsts: dict[object, str] = {}
    requests: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        key = prompt.id if answers_by_id else _key(prompt)
        requests.setdefault(firsts.setdefault(key, prompt.id), []).append(prompt)
    return requests


def estimate_lengths(prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
    """Rough image and text tokens, from the size of the pictures and the number of characters.

    Only the order of the batches hangs on it. A picture whose size cannot be read counts nothing: the model that opens
    it says what is wrong with it.
    """
    pixels: dict[str, int] = {}
    for prompt in prompts:
        for picture in prompt.pictures:
            if picture.sha256 not in pixels:
                pixels[picture.sha256] = _num_pixels(picture)
    return [
        (
            sum(pixels[picture.sha256] for picture in prompt.pictures) // PIXELS_PER_TOKEN,
            len(prompt.text) // CHARACTERS_PER_TOKEN,
        )
        for prompt in prompts
    ]


class _Request(NamedTuple):
    prompt: Prompt
    length: int


def _order(prompts: Sequence[Prompt], lengths: Sequence[tuple[int, int]]) -> list[_Request]:
    places: dict[tuple[str, ...], int] = {}
    keyed = []
    for index, (prompt, (image, text)) in enumerate(zip(prompts, lengths, strict=True)):
        shown = places.setdefault(tuple(picture.sha256 for picture in prompt.pictures), index)
        bucket = (-prompt.max_new_tokens, -_round_up(image + text), -_round_up(image))
        keyed.append((bucket, shown, index, _Request(prompt, image + text)))
    return [request for *_, request in sorted(keyed, key=lambda entry: entry[:3])]


def _cut(requests: Sequence[_Request], batch_size: int) -> list[tuple[Prompt, ...]]:
    batches: list[list[_Request]] = []
    for request in requests:
        if not batches or not _fits(request, batches[-1], batch_size):
            batches.append([])
        batches[-1].append(request)
    return [tuple(request.prompt for request in batch) for batch in batches]


def _fits(request: _Request, batch: Sequence[_Request], batch_size: int) -> bool:
    longest = max(one.length for one in batch)
    return (
        len(batch) < batch_size
        and request.prompt.max_new_tokens == batch[0].prompt.max_new_tokens
        and request.length >= MIN_FILL * longest
    )


def _round_up(length: int) -> int:
    """The length, rounded up to a multiple of an eighth of the power of two below it."""
    grain = max(1, (1 << max(length, 1).bit_length() - 1) // GRAINS)
    return -(-length // grain) * grain


def _key(prompt: Prompt) -> object:
    content = tuple(part if isinstance(part, str) else (part.sha256,) for part in prompt.content)
    return (content, prompt.choices, prompt.max_new_tokens)


def _num_pixels(picture: Picture) -> int:
    from PIL import Image

    source = io.BytesIO(picture.data) if picture.data is not None else picture.path
    assert source is not None
    try:
        with Image.open(source) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0
