"""Why a rule gives no answer."""


class AbstainError(Exception):
    """Raised by a rule that has seen enough to know that no single answer was given; the message says why."""
