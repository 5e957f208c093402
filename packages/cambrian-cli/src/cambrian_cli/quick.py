"""What keeps a command that takes no values quick: typer imports pydantic for every option that has no value yet.

`--help` is such an option of every command. With a default of its own it is a plain flag, and pydantic stays out.
"""

QUICK = {"default_map": {"help": False}}
"""Context settings of the app and of commands that must be quick."""
