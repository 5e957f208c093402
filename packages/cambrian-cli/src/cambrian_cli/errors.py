"""The errors that a user of the command line can cause and that no library below could have seen."""


class CommandError(ValueError):
    """A command whose arguments do not fit together, or whose input is not there. The message says what to do."""
