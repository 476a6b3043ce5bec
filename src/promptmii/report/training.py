"""The curves of training runs as figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptmii.curves import VALIDATION, Curves
from promptmii.report.drawing import COLOURS, LINES, blank_figure, draw_legend, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMPORTANT = ("train/reward", "length", "zero_variance", "entropy", "kl", "train/loss")
"""What tells first whether a run is healthy."""


def important(names: Sequence[str]) -> list[str]:
    """At most six curves that matter most; the first ones if a run knows none of `IMPORTANT`."""
    return [name for name in IMPORTANT if name in names] or list(names[:6])


@styled
def validation_figure(runs: Sequence[Curves]) -> "Figure":
    """Validation reward against training steps: a line per training run."""
    figure, (axes,) = blank_figure("validation", 3.6)
    _draw_curves(axes, runs, VALIDATION)
    axes.set_xlabel("Training steps")
    axes.set_ylabel("Validation reward (macro-F1)")
    axes.set_title("Training curves: reward on validation tasks against training steps")
    draw_legend(figure, _run_lines(runs))
    return figure


@styled
def training_figure(runs: Sequence[Curves], names: Sequence[str]) -> "Figure":
    """These quantities of training runs: a small panel each."""
    from matplotlib.ticker import StrMethodFormatter

    rows = max(1, -(-len(names) // 3))
    figure, panels = blank_figure("training", 1.9 * rows + 0.5, 3, rows)
    for axes, name in zip(panels, names, strict=False):
        _draw_curves(axes, runs, name)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_title(name, fontsize=9.5, fontweight="normal")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - 3) : len(names)]:
        axes.set_xlabel("Training steps")
    draw_legend(figure, _run_lines(runs))
    return figure


def _run_lines(runs: Sequence[Curves]) -> dict[str, dict[str, Any]]:
    return {
        run.name: {"color": COLOURS[2 + i % 7], "linestyle": LINES[i // 7 % 4], "linewidth": 1.6}
        for i, run in enumerate(runs)
    }


def _draw_curves(axes: "Axes", runs: Sequence[Curves], name: str) -> None:
    styles = _run_lines(runs)
    for run in runs:
        curve = run.metrics.get(name, {})
        style: dict[str, Any] = styles[run.name] | {"marker": "o" if len(curve) < 40 else "", "markersize": 3.5}
        axes.plot([*curve], [*curve.values()], gid=f"series:{run.name}", **style)


def training_caption(runs: Sequence[Curves]) -> str:
    """One sentence below `validation_figure` and `training_figure`."""
    lengths = ", ".join(
        f"{run.name}: {max((max(curve) for curve in run.metrics.values() if curve), default=0):,} steps" for run in runs
    )
    return f"What each training run recorded, without smoothing; one seed per run, so no interval ({lengths})."
