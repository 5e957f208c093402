"""What is known of a conversation before its pictures are decoded: enough to plan with."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A conversation in tokens, as `CambrianProcessor.encode` will make them.

    Attributes:
        length: All of them.
        picture_end: Those up to the end of the last picture; 0 without pictures.
        first_supervised: Those in front of the first one that is supervised.
    """

    length: int
    picture_end: int
    first_supervised: int
