"""What every test may use. Shapes in the signatures of `cambrian_model` are checked here and nowhere else."""

import os

# Before torch is imported anywhere: two pytest workers share two cores, and more threads than cores only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import signal
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest

import tests.support.shapes

# A shell that runs the tests in its background has SIGINT ignored in all that they start: Ctrl-C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# All but the configuration: transformers gives it an __init__ that takes more than its fields, which jaxtyping refuses.
CHECKED = ["checkpoints", "connectors", "image_tokens", "language", "model", "processing", "training", "vision"]
jaxtyping.install_import_hook(
    [f"cambrian_model.{name}" for name in CHECKED], f"{tests.support.shapes.__name__}.checked"
)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real material and reference numbers beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real material is not here: no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def assets(shared: Path) -> Path:
    """Real weights, tokenizers, photographs and annotations; the test is skipped where they are absent."""
    folder = shared / "assets"
    if not folder.is_dir():
        pytest.skip(f"real material is not here: no folder {folder}")
    return folder


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows (dicts, or raw strings as they are) to a JSONL file under `tmp_path` and returns its path."""

    def write(*rows: dict | str, name: str = "records.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
