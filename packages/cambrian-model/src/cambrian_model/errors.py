"""The errors that a user of this package can cause. Each says what was found, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class CambrianModelError(ValueError):
    """Base of every error that this package raises for a user's input."""


class ConfigError(CambrianModelError):
    """A model configuration whose parts do not fit together."""


class CheckpointError(CambrianModelError):
    """A folder or file that is not the checkpoint it was taken for."""


class ImageError(CambrianModelError):
    """An image that cannot be read, or that has no pixels."""


class PromptError(CambrianModelError):
    """A conversation that cannot be turned into model inputs."""


class RecipeError(CambrianModelError):
    """A recipe with an unknown key, a value out of range, or parts that contradict each other."""


class TrainingError(CambrianModelError):
    """A run that cannot start or continue: wrong output folder, wrong resume, nothing supervised."""


class RunStopped(TrainingError):  # noqa: N818 - it is no mistake of anybody
    """A run that was told to stop has saved where it was, and can be resumed.

    Attributes:
        exit_status: What a command that was ended by SIGTERM returns.
    """

    exit_status = 128 + 15


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Returns ``; did you mean "x"?`` for the known name nearest to `found`, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(names) or 'none'}"
