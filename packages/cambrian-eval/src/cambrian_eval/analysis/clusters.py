"""Groups of benchmarks that measure alike, and how far they are the groups that somebody has named."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cambrian_eval.analysis.correlation import correlate, without_general
from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cambrian_eval.analysis.correlation import Correlation, Method
    from cambrian_eval.analysis.scores import ScoreTable

Linkage = Literal["ward", "average", "complete"]
NUM_RESAMPLES = 200
NUM_SHUFFLES = 9999


@dataclass(frozen=True)
class Clusters:
    """A hierarchy of benchmarks, cut into groups.

    Attributes:
        benchmarks: Their names.
        labels: The number of each one's group, from 0, in the order in which groups begin.
        merges: The hierarchy as scipy has it: which two groups join, at what distance, and how many are in them.
    """

    benchmarks: tuple[str, ...]
    labels: tuple[int, ...]
    merges: NDArray[Any]

    @property
    def groups(self) -> list[list[str]]:
        """Names of the benchmarks of each group."""
        pairs = list(zip(self.benchmarks, self.labels, strict=True))
        return [[name for name, label in pairs if label == number] for number in range(max(self.labels) + 1)]


@dataclass(frozen=True)
class Agreement:
    """How far groups that were found are those that somebody has named.

    Attributes:
        named: The name of the group that each benchmark was found in, groups and names being matched one to one.
        expected: The name of its own group.
        chance: Share of random regroupings of the same sizes that match as well.
        support: Share of resamples of the models in which each benchmark is found where it is found here; empty for
            tables with missing scores.
    """

    named: Mapping[str, str | None]
    expected: Mapping[str, str]
    chance: float
    support: Mapping[str, float]

    @property
    def misplaced(self) -> dict[str, str | None]:
        """Benchmarks that were found elsewhere, and where; None where the group has no name left."""
        return {name: found for name, found in self.named.items() if found != self.expected[name]}


def cluster(correlation: Correlation, num_groups: int, linkage: Linkage = "ward") -> Clusters:
    """Hierarchical clusters of benchmarks.

    The distance of two benchmarks is that of their standardised scores, the square root of 2 - 2 r: benchmarks that
    rank models in opposite order are farthest apart.

    Raises:
        DataError: More groups than benchmarks, or fewer than one.
    """
    import numpy as np
    from scipy.cluster import hierarchy  # type: ignore[import-untyped]
    from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

    size = len(correlation.benchmarks)
    if not 1 <= num_groups <= size:
        raise DataError(f"found {num_groups} groups to make of {size} benchmarks, expected 1 to {size}.")
    distances = np.sqrt(np.clip(2 - 2 * correlation.matrix, 0, None))
    np.fill_diagonal(distances, 0)
    merges = hierarchy.linkage(squareform(distances, checks=False), linkage)
    found = hierarchy.fcluster(merges, num_groups, "maxclust").tolist()
    order = list(dict.fromkeys(found))
    return Clusters(correlation.benchmarks, tuple(order.index(label) for label in found), merges)


def find_groups(
    table: ScoreTable, num_groups: int, *, method: Method, linkage: Linkage, keep_general: bool = False
) -> Clusters:
    """Clusters of a table's benchmarks.

    Args:
        table: Scores of models.
        num_groups: How many.
        method: Of correlation.
        linkage: Of clusters.
        keep_general: Cluster the plain correlations, and not what is left without the first principal component.
    """
    correlation = correlate(table, method)
    return cluster(correlation if keep_general else without_general(correlation), num_groups, linkage)


def agree(
    table: ScoreTable,
    clusters: Clusters,
    named: Mapping[str, Sequence[str]],
    *,
    method: Method,
    linkage: Linkage,
    keep_general: bool = False,
    seed: int = 0,
) -> Agreement | None:
    """Compare clusters of a table with named groups; None unless every benchmark is in one.

    Args:
        table: What was clustered.
        clusters: What was found.
        named: Benchmarks by the name of their group.
        method: With which it was.
        linkage: Likewise.
        keep_general: Likewise.
        seed: Of resamples and random regroupings.
    """
    import numpy as np

    own = {name: group for group, names in named.items() for name in names}
    if any(name not in own for name in clusters.benchmarks):
        return None
    expected = {name: own[name] for name in clusters.benchmarks}
    generator = np.random.default_rng(seed)
    found = _name(clusters.labels, expected)
    placed = _num_placed(clusters.labels, expected)
    shuffled = [generator.permutation(clusters.labels).tolist() for _ in range(NUM_SHUFFLES)]
    reached = sum(_num_placed(labels, expected) >= placed for labels in shuffled)
    again = [
        find_groups(drawn, max(clusters.labels) + 1, method=method, linkage=linkage, keep_general=keep_general)
        for drawn in _resamples(table, generator)
    ]
    places = [_name(one.labels, expected) for one in again]
    support = {name: sum(place[name] == found[name] for place in places) / len(places) for name in expected if places}
    return Agreement(found, expected, (reached + 1) / (NUM_SHUFFLES + 1), support)


def _name(labels: Sequence[int], expected: Mapping[str, str]) -> dict[str, str | None]:
    """The name of each benchmark's group, groups and names matched one to one with the largest overlap."""
    overlaps, names = _overlaps(labels, expected)
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    matched = {int(row): names[column] for row, column in zip(rows, columns, strict=True)}
    return {name: matched.get(label) for name, label in zip(expected, labels, strict=True)}


def _num_placed(labels: Sequence[int], expected: Mapping[str, str]) -> int:
    from scipy.optimize import linear_sum_assignment

    overlaps, _ = _overlaps(labels, expected)
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return int(overlaps[rows, columns].sum())


def _overlaps(labels: Sequence[int], expected: Mapping[str, str]) -> tuple[NDArray[Any], list[str]]:
    import numpy as np

    names = list(dict.fromkeys(expected.values()))
    overlaps = np.zeros((max(labels) + 1, len(names)))
    for label, name in zip(labels, expected.values(), strict=True):
        overlaps[label, names.index(name)] += 1
    return overlaps, names


def _resamples(table: ScoreTable, generator: np.random.Generator) -> list[ScoreTable]:
    """The table with models drawn with repetitions; draws on which a benchmark has no spread are left out."""
    import numpy as np

    if table.num_missing:
        return []
    drawn = [generator.integers(0, len(table.models), len(table.models)).tolist() for _ in range(NUM_RESAMPLES)]
    spread = [rows for rows in drawn if np.all(np.ptp(table.matrix[rows], axis=0) > 0)]
    return [
        dataclasses.replace(
            table,
            models=tuple(table.models[row] for row in rows),
            scores=tuple(table.scores[row] for row in rows),
        )
        for rows in spread
    ]
