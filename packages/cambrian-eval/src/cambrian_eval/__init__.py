"""Honest evaluation of multimodal language models.

`evaluate("cvbench", model, data=folder, output=run)` asks a model every question of a benchmark, reads the replies with
rules that abstain rather than invent, and returns scores with intervals, chance and best-constant levels, in percent. A
model is anything with a name, a fingerprint and `answer(prompts)`; `load_model("random")` and friends come along. Torch
is not imported here.
"""

from cambrian_eval.errors import DataError, EvalError, ModelError, RunMismatchError, UnknownNameError
from cambrian_eval.models import MODELS, load_model
from cambrian_eval.models.base import Model
from cambrian_eval.runner import evaluate
from cambrian_eval.task import Task
from cambrian_eval.tasks import TASKS
from cambrian_eval.types import Answer, Failure, Mode, Prompt, Question, Result, Score

__all__ = [
    "MODELS",
    "TASKS",
    "Answer",
    "DataError",
    "EvalError",
    "Failure",
    "Mode",
    "Model",
    "ModelError",
    "Prompt",
    "Question",
    "Result",
    "RunMismatchError",
    "Score",
    "Task",
    "UnknownNameError",
    "evaluate",
    "load_model",
]
