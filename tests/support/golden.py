"""Reads the tables in tests/golden that are kept as compressed JSON."""

import gzip
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_json(name: str) -> Any:
    """Returns the content of e.g. "scoring/letter_answers" (`tests/golden/scoring/letter_answers.json.gz`)."""
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
