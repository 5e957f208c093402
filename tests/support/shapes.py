"""The checker that the test run puts on `cambrian_model`: a tensor has the shape that the signature states."""

from collections.abc import Callable
from typing import Any, Self, get_args

from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import AbstractArray

# jaxtyping decorates methods one by one, and there beartype refuses Self, which it only knows in whole classes.
_check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its arguments and result checked, or as it is if its signature states no shape."""
    return _check(function) if any(map(_states_shape, function.__annotations__.values())) else function


def _states_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_states_shape, get_args(hint)))
