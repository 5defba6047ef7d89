"""Reliability curve, ROC, bars per source and the robustness grid as PNG files; matplotlib without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detectors.evaluation.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write"]

_MOST_POINTS = 500  # of a ROC curve


def write(folder: Path, scores: Mapping[str, Scores], reports: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Draws what can be drawn into `folder`, which is made.

    Args:
        folder: of ``reliability.png``, ``roc.png``, ``sources.png`` and, where there is a grid, ``grid.png``.
        scores: by detector.
        reports: by detector, from :func:`detectors.evaluation.report.report`; ``grid`` in the first one is drawn.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(reports.values()))
    files = [
        _saved(folder / "reliability.png", _reliability(reports)),
        _saved(folder / "roc.png", _roc(scores)),
        _saved(folder / "sources.png", _sources(first)),
    ]
    if first.get("grid"):
        files.append(_saved(folder / "grid.png", _grid(first["grid"])))
    return files


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure as New  # noqa: PLC0415 - half a second; no pyplot, so no global state

    figure = New(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _saved(path: Path, figure: Figure) -> Path:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _reliability(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = _figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, report in reports.items():
        bins = [row for row in report["reliability"] if row["n"]]
        x, y = [row["mean_p_fake"] for row in bins], [row["share_fake"] for row in bins]
        label = name if report["ece"] is None else f"{name}, ECE {report['ece']:.3f}"
        axes.plot(x, y, marker="o", markersize=3, label=label)
    axes.set(xlabel="mean P(fake)", ylabel="share of fakes", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    return figure


def _roc(scores: Mapping[str, Scores]) -> Figure:
    from sklearn.metrics import roc_auc_score, roc_curve  # noqa: PLC0415 - heavy

    figure, axes = _figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, every in scores.items():
        known = every.part(every.answered)
        if len(np.unique(known.fake)) < 2:
            continue
        x, y, _ = roc_curve(known.fake, known.p_fake)
        at = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).round().astype(int))
        axes.plot(x[at], y[at], label=f"{name}, AUC {roc_auc_score(known.fake, known.p_fake):.3f}")
    axes.set(xlabel="reals called fake", ylabel="fakes called fake", xlim=(0, 1), ylim=(0, 1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return figure


def _sources(report: Mapping[str, Any]) -> Figure:
    rows = sorted(report["by_source"].items(), key=lambda pair: (pair[1]["fake"] > 0, pair[1]["right"]))
    figure, axes = _figure(7, max(2.0, 1 + 0.22 * len(rows)))
    names = [f"{name} ({row['n']})" for name, row in rows]
    colours = ["tab:red" if row["fake"] and not row["real"] else "tab:green" for _, row in rows]
    axes.barh(names, [row["right"] for _, row in rows], color=colours)
    for k, (_, row) in enumerate(rows):
        if row["right_interval"]:
            axes.plot(row["right_interval"], [k, k], color="black", linewidth=1)
    axes.axvline(0.5, color="0.5", linewidth=0.8)
    axes.tick_params(labelsize="small")
    axes.set(xlabel="share judged right (green: real sources, red: fakes; views in brackets)", xlim=(0, 1))
    return figure


def _grid(grid: Mapping[str, Mapping[str, Any]]) -> Figure:
    rows = list(grid.items())
    figure, axes = _figure(7, max(2.0, 1 + 0.22 * len(rows)))
    names = [name for name, _ in rows]
    for figure_name, colour, marker in (("auc", "tab:blue", "o"), ("balanced_accuracy", "tab:orange", "s")):
        values = [np.nan if row[figure_name] is None else row[figure_name] for _, row in rows]
        axes.plot(values, names, marker, color=colour, label=figure_name.replace("_", " "))
    axes.axvline(0.5, color="0.5", linewidth=0.8)
    axes.tick_params(labelsize="small")
    axes.set(xlim=(0, 1))
    axes.invert_yaxis()
    axes.legend(fontsize="small")
    return figure
