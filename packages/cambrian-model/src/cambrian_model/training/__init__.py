"""Training: one typed recipe, its stages one after another, each a short linear loop that resumes exactly.

`load_recipe` reads what is to be done, `train` does it. Needs the extra `cambrian-model[train]`.
"""

from cambrian_model.training.index import Dataset
from cambrian_model.training.metrics import StageSummary
from cambrian_model.training.progress import Progress
from cambrian_model.training.recipe import Recipe, list_recipes, load_recipe
from cambrian_model.training.run import train
from cambrian_model.training.run_folder import TrainResult
from cambrian_model.training.snapshot import export_checkpoint

__all__ = [
    "Dataset",
    "Progress",
    "Recipe",
    "StageSummary",
    "TrainResult",
    "export_checkpoint",
    "list_recipes",
    "load_recipe",
    "train",
]
