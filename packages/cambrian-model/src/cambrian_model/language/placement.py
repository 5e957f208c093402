"""Which positions of a batch each picture fills: pictures come in order, and each fills one run of image tokens.

Everything is checked at once on the device, one number comes back, and what is wrong is looked for only then.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cambrian_model.errors import PromptError

ADVICE = "let the processor expand <image>, and pass every picture once, in order"


def image_positions(is_image: Bool[Tensor, "batch sequence"], lengths: Sequence[int]) -> Int[Tensor, " tokens"]:
    """Returns where the image tokens of pictures with `lengths` tokens each stand in the flattened batch.

    Their number is known beforehand, so that shapes depend on no data and all of it compiles. Only the check waits for
    the device, for one number; a compiled graph cannot raise and leaves it out.

    Raises:
        PromptError: Image tokens and pictures do not agree; says in which row, and both numbers.
    """
    positions = torch.nonzero_static(is_image.flatten(), size=sum(lengths)).squeeze(1)
    if not torch.compiler.is_compiling() and not _fits(is_image, positions, lengths):
        rows = share_pictures(is_image.sum(-1).tolist(), lengths)
        raise PromptError(_interruption(is_image, rows, lengths))
    return positions


def share_pictures(tokens_in_rows: Sequence[int], lengths: Sequence[int]) -> list[range]:
    """Returns the pictures of each row, of pictures that come in order and fill `lengths` tokens each.

    Raises:
        PromptError: A row's image tokens are not filled by whole pictures, or pictures are left over.
    """
    rows, first = [], 0
    for row, wanted in enumerate(tokens_in_rows):
        last, filled = first, 0
        while filled < wanted and last < len(lengths):
            filled += lengths[last]
            last += 1
        if filled != wanted:
            found = _name(range(first, last), len(lengths))
            raise PromptError(f"row {row} has {wanted} image tokens, but {found} {filled} (counted from 0); {ADVICE}")
        rows.append(range(first, last))
        first = last
    if first < len(lengths):
        raise PromptError(
            f"{len(lengths)} pictures fill {sum(lengths)} tokens, but the rows have {list(tokens_in_rows)} image "
            f"tokens, which the first {first} pictures fill; {ADVICE}"
        )
    return rows


def _name(pictures: range, count: int) -> str:
    if not pictures:
        return f"none of the {count} pictures is left for it, which makes"
    if len(pictures) == 1:
        return f"its picture, {pictures[0]} of {count}, fills"
    return f"its pictures, {pictures[0]} to {pictures[-1]} of {count}, fill"


def _fits(is_image: Tensor, positions: Tensor, lengths: Sequence[int]) -> bool:
    if not lengths:
        return not is_image.any()
    ends = torch.tensor(lengths, device=is_image.device).cumsum(0)
    last = positions[ends - 1]
    first = positions[torch.nn.functional.pad(ends[:-1], (1, 0))]
    sequence = is_image.shape[1]
    is_one_run = (last - first == ends.diff(prepend=ends.new_zeros(1)) - 1) & (last // sequence == first // sequence)
    return bool(is_one_run.all() & (is_image.sum() == ends[-1]))


def _interruption(is_image: Tensor, rows: Sequence[range], lengths: Sequence[int]) -> str:
    for row, pictures in enumerate(rows):
        places, start = is_image[row].nonzero().squeeze(1).tolist(), 0
        for picture in pictures:
            run = places[start : start + lengths[picture]]
            if run[-1] - run[0] != lengths[picture] - 1:
                return (
                    f"row {row}: picture {picture} fills {lengths[picture]} image tokens in one run, but those from "
                    f"position {run[0]} on are interrupted; {ADVICE}"
                )
            start += lengths[picture]
    raise AssertionError("positions that do not fit, and nothing wrong with them")
