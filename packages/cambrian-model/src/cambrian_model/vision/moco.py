"""The published weights of MoCo v3 in timm's names: the one place that knows theirs.

They hold two encoders side by side, the trained one and its slow copy, each with a projection head for training. MoCo's
own evaluation takes the trained one. Its transformer is timm's: the position table is the fixed sin-cos one of MoCo's,
stored like any other weight, and the final normalisation is there as well; only the head differs, which is left out.

Source: https://github.com/facebookresearch/moco-v3 (`main_lincls.py`, `vits.py`).
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

ENCODERS = ("module.base_encoder.", "module.momentum_encoder.")
HEAD = "head."


def is_moco(names: Iterable[str]) -> bool:
    """Tells whether these are the names of a MoCo v3 checkpoint."""
    return any(name.startswith(ENCODERS) for name in names)


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the trained encoder's tensors under timm's names; of a file that holds the slow copy alone, that one's.

    The projection head shares timm's name for a classifier, and is something else.
    """
    prefix = next(prefix for prefix in ENCODERS if any(name.startswith(prefix) for name in tensors))
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in inner.items() if not name.startswith(HEAD)}
