"""The errors a user can cause. Every message says what was found, what was expected and what to do."""


class EvalError(Exception):
    """Base of every error that this package raises for a user's mistake."""


class UnknownNameError(EvalError):
    """A task or model name that is not registered."""


class DataError(EvalError):
    """A benchmark's data is missing, incomplete or not what its task reads."""


class ModelError(EvalError):
    """A model broke the protocol: wrong number or kind of answers, or no answer at all."""


class RunMismatchError(EvalError):
    """The output folder holds another run than the one asked for."""


class OutOfMemoryError(EvalError):
    """The device's memory does not hold a batch; the runner halves it and goes on."""
