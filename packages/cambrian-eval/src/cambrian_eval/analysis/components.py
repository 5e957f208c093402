"""Principal components of a table of scores: along what directions models differ, and which benchmarks lie there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cambrian_eval.analysis.scores import ScoreTable


@dataclass(frozen=True)
class Components:
    """Principal components of standardised scores.

    Attributes:
        benchmarks: Names of the benchmarks.
        models: Names of the models.
        loadings: Correlation of each benchmark (row) with each component (column); squares of a row sum to 1.
        explained: Share of the variance of each component, largest first.
        positions: Of each model (row) on each component (column), of variance 1.
    """

    benchmarks: tuple[str, ...]
    models: tuple[str, ...]
    loadings: NDArray[Any]
    explained: NDArray[Any]
    positions: NDArray[Any]


def components(table: ScoreTable) -> Components:
    """Singular value decomposition of the scores, each benchmark standardised over models.

    Signs are such that the loadings of a component sum to something positive.

    Raises:
        DataError: Scores are missing, or all models score the same on a benchmark.
    """
    import numpy as np

    if table.num_missing:
        raise DataError(
            f"{table.title}: principal components need a whole table, and {table.num_missing} scores are missing. Use "
            "--missing models or --missing benchmarks."
        )
    scores = table.matrix
    spread = scores.std(axis=0)
    if not spread.all():
        name = table.benchmarks[int(np.argmin(spread))]
        raise DataError(f"{table.title}: all models score the same on {name}. Leave it out with --without {name}.")
    standardised = (scores - scores.mean(axis=0)) / spread
    left, singular, right = np.linalg.svd(standardised, full_matrices=False)
    signs = np.where(right.sum(axis=1) < 0, -1.0, 1.0)
    size = np.sqrt(len(table.models))
    return Components(
        table.benchmarks,
        table.models,
        loadings=(right * (signs * singular)[:, None]).T / size,
        explained=singular**2 / np.sum(singular**2),
        positions=left * signs * size,
    )
