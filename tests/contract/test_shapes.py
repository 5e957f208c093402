"""The test run itself checks shapes: a tensor with a wrong axis does not pass unnoticed."""

from dataclasses import dataclass
from typing import Self

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from tests.support.shapes import checked


@jaxtyped(typechecker=checked)
def pair(left: Float[Tensor, "rows dim"], right: Float[Tensor, "dim"] | None = None) -> Float[Tensor, "rows"]:
    return left.sum(1) if right is None else left @ right


def test_axes_of_one_name_have_one_size():
    assert pair(torch.ones(2, 3), torch.ones(3)).shape == (2,)
    assert pair(torch.ones(2, 3)).shape == (2,)
    with pytest.raises(TypeCheckError):
        pair(torch.ones(2, 3), torch.ones(2))


def test_dataclasses_are_checked_when_they_are_made():
    @jaxtyped(typechecker=checked)
    @dataclass
    class Features:
        values: Float[Tensor, "tokens dim"]
        weights: Float[Tensor, "tokens"]

        def copied(self) -> Self:
            return self

    Features(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(TypeCheckError):
        Features(torch.ones(2, 3), torch.ones(3))


def test_the_hook_is_in_place():
    from cambrian_model.connectors.sva import SVAConnector

    with pytest.raises(TypeCheckError):
        SVAConnector.connect(None, [torch.ones(2)], [[1, 1]])  # type: ignore[arg-type]
