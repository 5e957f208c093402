"""The recipe of a run: model, data and stages, typed, in one YAML file.

`Recipe` is what the rest of the package reads. `load_recipe` finds the file, merges what it `extends`, applies
overrides ("a.b=value"), resolves paths and checks everything; each mistake is a `RecipeError` that names its key.
"""

from cambrian_model.training.recipe.load import list_recipes, load_recipe
from cambrian_model.training.recipe.recipe import Recipe

__all__ = ["Recipe", "list_recipes", "load_recipe"]
