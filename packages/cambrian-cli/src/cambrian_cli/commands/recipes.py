"""`cambrian recipes`: what can be trained, and what a recipe says once everything is resolved."""

import typer

from cambrian_cli.commands.train import AsJson, Overrides, RecipeName
from cambrian_cli.output import report

app = typer.Typer(name="recipes", help="List and show recipes.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with cambrian-model."""
    from cambrian_model import training

    with report(as_json) as out:
        found = training.list_recipes()
        out.table("Recipes", ["name", "what it trains"], found)
        out.result({"recipes": [{"name": name, "summary": summary} for name, summary in found]})


@app.command()
def show(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Print a recipe as YAML with everything resolved: what it extends, its defaults, and --set."""
    from cambrian_model import training

    with report() as out:
        out.line(training.load_recipe(recipe, overrides=overrides or ()).to_yaml().rstrip())
