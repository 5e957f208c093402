"""`cambrian cvbench`: build a benchmark from annotations, review it, and audit it. One module a command."""

import typer

from cambrian_cli.commands.cvbench.audit import audit
from cambrian_cli.commands.cvbench.build import build, rules
from cambrian_cli.commands.cvbench.review import review

app = typer.Typer(
    name="cvbench",
    help="Build a CV-Bench from annotations, review it, and audit it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(build)
app.command()(rules)
app.command()(review)
app.command()(audit)


@app.callback()
def options() -> None:
    """Build a CV-Bench from annotations, review it, and audit it."""
