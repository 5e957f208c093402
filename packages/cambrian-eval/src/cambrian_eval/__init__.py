"""Honest evaluation of multimodal language models.

`evaluate("cvbench", model, data=folder, output=run)` asks a model every question of a benchmark, reads the replies with
rules that abstain rather than invent, and returns scores with intervals, chance and best-constant levels, in percent. A
model is anything with a name, a fingerprint and `answer(prompts)`; `load_model("random")` and friends come along. Torch
is not imported here, and what is named here is imported when it is asked for, so that a list of benchmarks is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cambrian_eval.errors import (
        DataError,
        EvalError,
        ModelError,
        OutOfMemoryError,
        RunMismatchError,
        UnknownNameError,
    )
    from cambrian_eval.models import MODELS, load_model
    from cambrian_eval.models.base import Model
    from cambrian_eval.runner import evaluate
    from cambrian_eval.task import Task
    from cambrian_eval.tasks import TASKS
    from cambrian_eval.types import (
        Answer,
        Failure,
        Mode,
        Prompt,
        PromptForm,
        Question,
        Result,
        Score,
        ScoredAnswer,
        Scoring,
    )
    from cambrian_eval.workers import Workers

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
    "OutOfMemoryError",
    "Prompt",
    "PromptForm",
    "Question",
    "Result",
    "RunMismatchError",
    "Score",
    "ScoredAnswer",
    "Scoring",
    "Task",
    "UnknownNameError",
    "Workers",
    "evaluate",
    "load_model",
]

_ERRORS = ("DataError", "EvalError", "ModelError", "OutOfMemoryError", "RunMismatchError", "UnknownNameError")
_TYPES = ("Answer", "Failure", "Mode", "Prompt", "PromptForm", "Question", "Result", "Score", "ScoredAnswer", "Scoring")
_MODULES = {
    **dict.fromkeys(_ERRORS, "cambrian_eval.errors"),
    **dict.fromkeys(_TYPES, "cambrian_eval.types"),
    **dict.fromkeys(("MODELS", "load_model"), "cambrian_eval.models"),
    "Model": "cambrian_eval.models.base",
    "TASKS": "cambrian_eval.tasks",
    "Task": "cambrian_eval.task",
    "Workers": "cambrian_eval.workers",
    "evaluate": "cambrian_eval.runner",
}


def __getattr__(name: str) -> Any:
    """Import what is named, at the first time that it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = found
    return found
