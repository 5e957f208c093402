"""What every section of a recipe is, and the kinds of values that several of them hold."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def at_most_one(section: Section, *names: str) -> None:
    """Refuses a section that gives several of what exclude each other.

    Raises:
        ValueError: Names what is given.
    """
    if len(given := [name for name in names if getattr(section, name) is not None]) > 1:
        raise ValueError(f"both {' and '.join(given)} are given; set all but one to null")


def nothing(section: Section, *names: str) -> bool:
    """Tells whether none of these keys has a value."""
    return all(getattr(section, name) is None for name in names)
