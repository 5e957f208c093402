"""Pictures of an analysis as PNG files: what correlates, what lies together, what pictures add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import EvalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cambrian_eval.analysis.clusters import Clusters
    from cambrian_eval.analysis.components import Components
    from cambrian_eval.analysis.correlation import Correlation
    from cambrian_eval.analysis.gaps import Gap

# Colours that stay apart for the colour-blind (Okabe and Ito), the paper's where they agree.
COLOURS = ("#009E73", "#E69F00", "#D55E00", "#0072B2", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
GREY, INK = "#8A8F98", "#20242B"
DPI = 160
_STYLE = {
    "font.size": 10,
    "axes.edgecolor": "#C9CDD3",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}


def check_plot(path: Path | None) -> None:
    """Make sure, before the work, that a plot can be drawn and written; of None nothing is asked.

    Raises:
        EvalError: matplotlib is not installed, the name is not that of a PNG file, or there is no place for it.
    """
    if path is None:
        return
    _style()
    if path.suffix.lower() != ".png":
        raise EvalError(f"{path}: found a name that does not end in .png, expected one. Plots are PNG files.")
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else "no folder to put it into"
        raise EvalError(f"{path}: found {found}, expected a place for a file. Choose another name.")


def plot_benchmarks(
    path: Path,
    title: str,
    correlation: Correlation,
    clusters: Clusters,
    components: Components | None,
    named: Mapping[str, Sequence[str]],
    caption: str = "",
) -> None:
    """The correlations, ordered as benchmarks cluster, beside the map of the second and third component.

    Args:
        path: The file.
        title: What was analysed.
        correlation: The plain correlations.
        clusters: How benchmarks cluster.
        components: Principal components; None where scores are missing: there is no map then.
        named: Groups that give names their colours; benchmarks in none are coloured by cluster.
        caption: How the clusters were made.

    Raises:
        EvalError: As `check_plot` does.
    """
    check_plot(path)
    colours = _colours(clusters, named)
    has_map = components is not None and components.loadings.shape[1] >= 3
    size = max(6.2, 0.42 * len(correlation.benchmarks) + 1.6)
    with _style():
        figure = _figure(2 * size + 0.6 if has_map else size + 0.8, size + 0.9)
        panels: Any = figure.subfigures(1, 2 if has_map else 1, squeeze=False, width_ratios=(1.08, 1)[: 1 + has_map])[0]
        _draw_correlation(panels[0], correlation, clusters, colours, caption)
        if components is not None and has_map:
            _draw_map(panels[1], components, colours, _legend(clusters, named))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _save(figure, path)


def plot_gaps(path: Path, title: str, gaps: Sequence[Gap]) -> None:
    """Each benchmark's score without pictures and with them, in percent of a perfect score, and chance.

    Raises:
        EvalError: As `check_plot` does.
    """
    check_plot(path)
    with _style():
        figure = _figure(8.4, 0.42 * len(gaps) + 1.9)
        axes = figure.add_subplot()
        for place, gap in enumerate(gaps):
            _draw_gap(axes, place, gap)
        names = [gap.benchmark if gap.basis == "models" else f"{gap.benchmark}\n{gap.model}" for gap in gaps]
        axes.set_yticks(range(len(gaps)), names)
        axes.set_ylim(-0.7, len(gaps) - 0.3)
        axes.set_xlabel("score, % of a perfect one")
        axes.grid(axis="x", color="#E6E8EB", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        for colour, label in ((GREY, "without pictures"), (COLOURS[3], "with pictures")):
            axes.scatter([], [], s=46, color=colour, label=label)
        if any(gap.chance is not None for gap in gaps):
            axes.scatter([], [], marker="|", s=110, linewidths=2, color=COLOURS[2], label="chance")
        axes.set_xlim(0, 100)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, frameon=False, handletextpad=0.2)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=30)
        _save(figure, path)


def _draw_gap(axes: Axes, place: int, gap: Gap) -> None:
    scale = 100 / gap.full
    without, with_them = scale * gap.disabled, scale * gap.enabled
    axes.plot([without, with_them], [place, place], color="#BFD7EA", linewidth=5, solid_capstyle="round", zorder=1)
    if gap.chance is not None:
        axes.scatter(scale * gap.chance, place, marker="|", s=110, linewidths=2, color=COLOURS[2], zorder=4)
    axes.scatter(without, place, s=46, color=GREY, zorder=2)
    axes.scatter(with_them, place, s=46, color=COLOURS[3], zorder=3)
    told = f"{scale * gap.gap:+.1f}"
    if gap.interval is not None:
        told += f"  ({scale * gap.interval[0]:+.1f} to {scale * gap.interval[1]:+.1f})"
    axes.annotate(told, (max(without, with_them), place), (9, 0), textcoords="offset points", va="center", fontsize=9)


def _draw_correlation(
    panel: Any, correlation: Correlation, clusters: Clusters, colours: Mapping[str, str], caption: str
) -> None:
    from scipy.cluster import hierarchy  # type: ignore[import-untyped]

    grid = panel.add_gridspec(2, 1, height_ratios=(1, 4.6), hspace=0.02, left=0.17, right=0.97, top=0.9, bottom=0.17)
    tree, heat = panel.add_subplot(grid[0]), panel.add_subplot(grid[1])
    drawn = hierarchy.dendrogram(
        clusters.merges, ax=tree, no_labels=True, color_threshold=0, above_threshold_color="#5B626D"
    )
    order = drawn["leaves"]
    names = [correlation.benchmarks[place] for place in order]
    size = len(names)
    tree.set_axis_off()
    values = correlation.matrix[order][:, order]
    is_positive = values.min() >= 0
    shades = {"cmap": "YlGnBu", "vmin": 0} if is_positive else {"cmap": "RdBu_r", "vmin": -1}
    image = heat.imshow(values, vmax=1, aspect="auto", **shades)
    for row in range(size):
        for column in range(size):
            shown = f"{values[row, column]:.2f}".replace("0.", ".").replace("1.00", "1")
            dark = abs(values[row, column]) > 0.52
            heat.text(column, row, shown, ha="center", va="center", fontsize=7, color="white" if dark else INK)
    heat.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    heat.set_yticks(range(size), names)
    heat.tick_params(length=0)
    for label in (*heat.get_xticklabels(), *heat.get_yticklabels()):
        label.set_color(colours[label.get_text()])
        label.set_fontweight("bold")
    _outline_clusters(heat, [clusters.labels[place] for place in order])
    bar = panel.colorbar(image, ax=[tree, heat], fraction=0.025, pad=0.015, aspect=40)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    title = f"{correlation.method.capitalize()} correlation over models" + (f"; {caption}" if caption else "")
    tree.set_title(title, loc="left", fontsize=10.5, pad=4)


def _outline_clusters(heat: Axes, labels: Sequence[int]) -> None:
    """A frame around every run of neighbours of one cluster."""
    from matplotlib.patches import Rectangle

    starts = [place for place in range(len(labels)) if place == 0 or labels[place] != labels[place - 1]]
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        frame = Rectangle((start - 0.5, start - 0.5), end - start, end - start, fill=False, edgecolor=INK, linewidth=2)
        heat.add_patch(frame)


def _draw_map(panel: Any, components: Components, colours: Mapping[str, str], named: Sequence[str]) -> None:
    axes = panel.add_axes((0.13, 0.17, 0.83, 0.73))
    points = components.loadings[:, 1:3]
    axes.axhline(0, color="#E0E3E7", linewidth=1, zorder=0)
    axes.axvline(0, color="#E0E3E7", linewidth=1, zorder=0)
    axes.scatter(points[:, 0], points[:, 1], s=80, c=[colours[name] for name in components.benchmarks], zorder=2)
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, 0.62 * (high - low)
    axes.set_xlim(centre[0] - reach[0], centre[0] + reach[0])
    axes.set_ylim(centre[1] - reach[1], centre[1] + reach[1])
    inside = ((points - centre) / reach).tolist()
    places = [centre + reach * place for place in _label_places(inside, components.benchmarks)]
    for name, (x, y), place in zip(components.benchmarks, points, places, strict=True):
        axes.annotate(
            name,
            (x, y),
            tuple(place),
            ha="center",
            va="center",
            color=colours[name],
            fontsize=9,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": "#C9CDD3", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4},
        )
    shares = [f"{100 * share:.0f} %" for share in components.explained[:3]]
    axes.set_xlabel(f"second principal component ({shares[1]} of the variance)")
    axes.set_ylabel(f"third principal component ({shares[2]})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(f"What is left of the first component ({shares[0]})", loc="left", fontsize=10.5)
    for name, colour in zip(named, COLOURS, strict=False):
        axes.scatter([], [], s=60, color=colour, label=name)
    if named:
        axes.legend(loc="best", frameon=False, title="groups of the paper", alignment="left")


def _label_places(points: Sequence[Sequence[float]], names: Sequence[str]) -> list[tuple[float, float]]:
    """Centres for labels in a square from -1 to 1, each near its point, over no other point and no other label."""
    height, taken = 0.035, [(x, y, 0.03, 0.03) for x, y in points]
    places: list[tuple[float, float]] = []
    for (x, y), name in zip(points, names, strict=True):
        width = 0.0155 * len(name) + 0.01
        candidates = [
            (x + (width + step) * across, y + step * up)
            for step in (0.07, 0.1, 0.14, 0.19, 0.25, 0.32)
            for across, up in ((0, 1), (0, -1), (1, 0), (-1, 0), (0.7, 1), (-0.7, 1), (0.7, -1), (-0.7, -1))
        ]
        free = [place for place in candidates if _is_free(place, width, height, taken)]
        places.append((free or candidates)[0])
        taken.append((*places[-1], width, height))
    return places


def _is_free(
    place: tuple[float, float], width: float, height: float, taken: Sequence[tuple[float, float, float, float]]
) -> bool:
    """Whether a label there lies in the picture and over nothing else."""
    inside = abs(place[0]) + width < 1 and abs(place[1]) + height < 1
    return inside and not any(
        abs(place[0] - x) < width + other_width and abs(place[1] - y) < height + other_height
        for x, y, other_width, other_height in taken
    )


def _colours(clusters: Clusters, named: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A colour for every benchmark: that of its named group, or of its cluster where not all have one."""
    own = {name: place for place, names in enumerate(named.values()) for name in names}
    if _legend(clusters, named):
        return {name: COLOURS[own[name] % len(COLOURS)] for name in clusters.benchmarks}
    pairs = zip(clusters.benchmarks, clusters.labels, strict=True)
    return {name: COLOURS[label % len(COLOURS)] for name, label in pairs}


def _legend(clusters: Clusters, named: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the groups, if every benchmark is in one."""
    known = {name for names in named.values() for name in names}
    return list(named) if known.issuperset(clusters.benchmarks) else []


def _style() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise EvalError("found no matplotlib, which draws plots; install cambrian-eval[plots].") from error
    return mpl.rc_context(_STYLE)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})
