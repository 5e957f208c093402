"""What lmms-eval loads through the entry point `lmms_eval.models`: the name of our adapter and the place of its class.

Nothing heavy is imported here: lmms-eval loads every entry point whenever it starts.
"""

from __future__ import annotations

from typing import Any

MODEL = "cambrian_toolkit"
CHAT_CLASS = "cambrian_eval.bridges.lmms_eval_model.CambrianToolkit"


def manifest() -> Any:
    """The `ModelManifest` that registers `cambrian_toolkit` as a chat model."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest(MODEL, chat_class_path=CHAT_CLASS)
