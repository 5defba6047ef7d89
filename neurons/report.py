"""``report.json`` and the self-contained ``report.html`` of a run: no script, no network, one file to mail around."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from sklearn.metrics import roc_curve

from neurons import plots

__all__ = ["html", "worst", "write"]

_WORST = 12  # pictures
_GROUPS = 8  # bars: the largest slices only, all of them are in the table


def write(out: Path, report: Mapping[str, Any], previews: Mapping[int, bytes]) -> tuple[Path, Path]:
    """Writes both files, each complete or not at all.

    Args:
        out: folder, made where it is missing.
        report: what ``neurons.summary.summarise`` gives.
        previews: JPEG bytes by challenge index, at least of :func:`worst`.

    Returns:
        Paths of ``report.json`` and ``report.html``.
    """
    out.mkdir(parents=True, exist_ok=True)
    as_json = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return _publish(out / "report.json", as_json), _publish(out / "report.html", html(report, previews))


def _publish(path: Path, text: str) -> Path:
    fresh = path.with_name(path.name + ".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return path


def worst(report: Mapping[str, Any], limit: int = _WORST) -> list[dict[str, Any]]:
    """Rows of ``report`` that the reference miner got wrong, the surest first.

    A row is wrong where P(fake) is on the other side of 0.5 than the label; silence is not a mistake but a failure.
    """
    wrong = []
    for row in report["rows"]:
        p = _p_fake(row["miners"][report["reference"]]["answer"])
        if p is not None and (p > 0.5) != (row["label"] != "real"):
            wrong.append((-abs(p - 0.5), row["index"], row))
    return [row for _, _, row in sorted(wrong, key=lambda entry: entry[:2])[:limit]]


def html(report: Mapping[str, Any], previews: Mapping[int, bytes]) -> str:
    """The page, a pure function of the report and the pictures; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("neurons"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "−")
    miners = report["miners"]
    return environment.get_template("report.html.j2").render(
        report=report,
        plots=_plots(report),
        slices=_slices(miners),
        routes={name: m["routes"] for name, m in miners.items() if m["routes"]},
        mistakes=[_mistake(report["reference"], row, previews.get(row["index"])) for row in worst(report)],
        failures={name: m["failures"] for name, m in miners.items() if m["failures"]},
    )


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _p_fake(answer: float | Sequence[float] | None) -> float | None:
    return 1.0 - answer[0] if isinstance(answer, Sequence) else answer


def _mistake(reference: str, row: Mapping[str, Any], preview: bytes | None) -> dict[str, Any]:
    mine = row["miners"][reference]
    p = _p_fake(mine["answer"])
    return {
        **{key: row[key] for key in ("index", "modality", "level", "label", "source")},
        "answer": f"P(fake) = {p:.3f}",
        "route": " → ".join(mine.get("route", ())),
        "experts": mine.get("experts", {}),
        "image": "data:image/jpeg;base64," + base64.b64encode(preview).decode("ascii") if preview else "",
    }


def _slices(miners: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """heading → slice → count and accuracy by miner, for the tables."""
    first = next(iter(miners.values()))
    return {
        heading: {
            value: {
                "count": cell["count"],
                "accuracy": {name: m["by"][heading][value]["accuracy"] for name, m in miners.items()},
            }
            for value, cell in first["by"][heading].items()
        }
        for heading in ("modality", "level", "label", "source")
    }


def _plots(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures, each ``{title, note, svg (trusted markup), legend}``."""
    rows, miners, reference = report["rows"], report["miners"], report["reference"]
    names = list(miners)
    found = [
        _plot(
            "Reward over the run",
            "What each step paid, mean so far.",
            plots.lines(
                "Mean reward so far, by challenge",
                {n: _running([row["miners"][n]["reward"] for row in rows]) for n in names},
                x_name="challenge",
                y_name="mean reward so far",
                x=(1, max(2, len(rows))),
                y=(0.0, 1.0),
            ),
            names,
        ),
        _plot(
            f"Answers of {reference}",
            "P(fake) of its answers, by the truth.",
            plots.histogram(
                f"P(fake) of {reference}, real against fake",
                {kind: _answers(rows, reference, fake=kind == "fake") for kind in ("real", "fake")},
                x_name="P(fake)",
            ),
            ["real", "fake"],
        ),
        _plot(
            "ROC",
            "Fakes caught against reals accused, over all thresholds.",
            plots.lines(
                "ROC curves",
                {n: _roc(rows, n) for n in names},
                x_name="false positive rate",
                y_name="true positive rate",
                x=(0.0, 1.0),
                y=(0.0, 1.0),
                diagonal=True,
            ),
            names,
        ),
        _latency(rows, names),
    ]
    for heading in ("level", "source"):
        groups = _largest(miners, heading)
        note = f"The {_GROUPS} largest." if len(groups) == _GROUPS else ""
        svg = plots.bars(f"Accuracy by {heading}", groups, y_name="accuracy")
        found.append(_plot(f"Accuracy by {heading}", note, svg, names))
    return found


def _plot(title: str, note: str, svg: str, legend: Sequence[str]) -> dict[str, Any]:
    from markupsafe import Markup  # noqa: PLC0415 - jinja2's own

    return {"title": title, "note": note, "svg": Markup(svg), "legend": legend}  # noqa: S704 - plots escape their texts


def _running(values: Sequence[float]) -> list[plots.Point]:
    means = np.cumsum(values) / np.arange(1, len(values) + 1)
    return [(k + 1, float(v)) for k, v in enumerate(means)]


def _answers(rows: Sequence[Mapping[str, Any]], name: str, *, fake: bool) -> list[float]:
    answers = (_p_fake(row["miners"][name]["answer"]) for row in rows if (row["label"] != "real") == fake)
    return [p for p in answers if p is not None]


def _roc(rows: Sequence[Mapping[str, Any]], name: str) -> list[plots.Point]:
    pairs = [(row["label"] != "real", _p_fake(row["miners"][name]["answer"])) for row in rows]
    answered = [(truth, p) for truth, p in pairs if p is not None]
    if len({truth for truth, _ in answered}) < 2:
        return []
    fpr, tpr, _ = roc_curve([t for t, _ in answered], [p for _, p in answered])
    return [(float(x), float(y)) for x, y in zip(fpr, tpr, strict=True)]


def _latency(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    times = {n: sorted(row["miners"][n]["ms"] for row in rows if row["miners"][n]["answer"] is not None) for n in names}
    every = [ms for values in times.values() for ms in values] or [1.0]
    low, high = 10.0 ** np.floor(np.log10(max(0.01, min(every)))), 10.0 ** np.ceil(np.log10(max(0.1, *every)))
    series = {n: [(ms, (k + 1) / len(v)) for k, ms in enumerate(v)] for n, v in times.items()}
    svg = plots.lines(
        "Latency, share of answers within a time",
        series,
        x_name="milliseconds, connection to last byte (log)",
        y_name="share answered",
        x=(float(low), float(high if high > low else low * 10)),
        y=(0.0, 1.0),
        log_x=True,
    )
    return _plot("Latency", "Share of the answers that came within a time.", svg, names)


def _largest(miners: Mapping[str, Any], heading: str) -> dict[str, dict[str, float]]:
    first = next(iter(miners.values()))["by"][heading]
    largest = sorted(first, key=lambda value: (-first[value]["count"], value))[:_GROUPS]
    return {
        value: {
            name: m["by"][heading][value]["accuracy"]
            for name, m in miners.items()
            if m["by"][heading][value]["accuracy"] is not None
        }
        for value in sorted(largest)
    }
