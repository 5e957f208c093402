"""How far benchmarks rank models alike: correlations of their scores over models."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cambrian_eval.analysis.scores import MIN_MODELS
from cambrian_eval.errors import DataError
from cambrian_eval.statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cambrian_eval.analysis.scores import ScoreTable

Method = Literal["pearson", "spearman"]


@dataclass(frozen=True)
class Correlation:
    """Correlations of every two benchmarks.

    Attributes:
        benchmarks: Names of rows and columns.
        matrix: The correlations, benchmarks by benchmarks.
        num_models: Over how many models each one is.
        method: Pearson's of the scores, or Spearman's of their ranks.
    """

    benchmarks: tuple[str, ...]
    matrix: NDArray[Any]
    num_models: NDArray[Any]
    method: Method


def correlate(table: ScoreTable, method: Method = "pearson") -> Correlation:
    """The correlations of every two benchmarks, each over the models that have both scores.

    Raises:
        DataError: Two benchmarks share too few models, or all models score the same on one.
    """
    import numpy as np

    matrix = table.matrix
    there = (~np.isnan(matrix)).astype(int)
    counts = there.T @ there
    _check_counts(table, counts)
    if not table.num_missing:
        _check_spread(table, range(len(table.benchmarks)), matrix)
        return Correlation(table.benchmarks, np.corrcoef(_ranked(matrix, method).T), counts, method)
    found = np.eye(len(table.benchmarks))
    for first, second in itertools.combinations(range(len(table.benchmarks)), 2):
        both = matrix[there[:, first] & there[:, second] == 1][:, [first, second]]
        _check_spread(table, (first, second), both)
        found[first, second] = found[second, first] = np.corrcoef(_ranked(both, method).T)[0, 1]
    return Correlation(table.benchmarks, found, counts, method)


def interval(correlation: float, num_models: int, level: float = 0.95) -> Interval:
    """Fisher's interval of a correlation over so many models; from -1 to 1 where there are three or fewer."""
    from scipy.special import ndtri  # type: ignore[import-untyped]

    if num_models <= 3:
        return Interval(-1.0, 1.0)
    margin = float(ndtri(0.5 + level / 2)) / math.sqrt(num_models - 3)
    centre = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, correlation)))
    return Interval(math.tanh(centre - margin), math.tanh(centre + margin))


def without_general(correlation: Correlation) -> Correlation:
    """What is left of the correlations when the first principal component is taken out of every benchmark.

    Scores of any two benchmarks go together because some models are better than others at everything. That is the first
    component; what benchmarks share beyond it tells what they have in common with each other and not with the rest.
    """
    import numpy as np

    values, vectors = np.linalg.eigh(correlation.matrix)
    rest = correlation.matrix - values[-1] * np.outer(vectors[:, -1], vectors[:, -1])
    scale = np.sqrt(np.clip(np.diag(rest), 1e-12, None))
    matrix = np.clip(rest / np.outer(scale, scale), -1, 1)
    np.fill_diagonal(matrix, 1.0)
    return Correlation(correlation.benchmarks, matrix, correlation.num_models, correlation.method)


def _check_counts(table: ScoreTable, counts: NDArray[Any]) -> None:
    import numpy as np

    first, second = np.unravel_index(np.argmin(counts), counts.shape)
    if counts[first, second] < MIN_MODELS:
        names = " and ".join(dict.fromkeys((table.benchmarks[first], table.benchmarks[second])))
        raise DataError(
            f"{table.title}: found {counts[first, second]} models with scores on {names}, expected at least "
            f"{MIN_MODELS}. Leave benchmarks out with --without."
        )


def _check_spread(table: ScoreTable, columns: Sequence[int], scores: NDArray[Any]) -> None:
    import numpy as np

    for column, spread in zip(columns, np.ptp(scores, axis=0), strict=True):
        if spread == 0:
            name = table.benchmarks[column]
            raise DataError(
                f"{table.title}: {len(scores)} models all score the same on {name}, so nothing correlates with it. "
                f"Leave it out with --without {name}."
            )


def _ranked(scores: NDArray[Any], method: Method) -> NDArray[Any]:
    """The scores themselves, or their ranks over models."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    return rankdata(scores, axis=0) if method == "spearman" else scores
