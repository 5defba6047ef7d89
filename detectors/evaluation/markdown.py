"""A report as Markdown tables, for ``docs/results/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["leave_one_out", "page"]

_HEAD = ("auc", "balanced_accuracy", "tnr", "tpr", "mcc", "brier", "ece", "ece_balanced", "sn34_score")
_WORDS = {
    "auc": "AUC",
    "ap": "AP",
    "balanced_accuracy": "balanced accuracy",
    "tnr": "TNR",
    "tpr": "TPR",
    "mcc": "MCC",
    "brier": "Brier",
    "ece": "ECE",
    "ece_balanced": "ECE, classes balanced",
    "sn34_score": "sn34_score",
    "three_class_mcc": "three-class MCC",
}


def page(report: Mapping[str, Any]) -> str:
    """The JSON of ``deepfake-miner evaluate`` for reading: headline, reward, and every breakdown as a table."""
    parts = [f"# {report['detector']['name']} on {report['data']['description']}\n", f"`{report['command']}`\n"]
    parts += [_what(report), _headline(report), _rewards(report)]
    if len(report.get("detectors", {})) > 1:
        parts += ["## Detectors on the same views\n", _detectors(report["detectors"])]
    parts += _comparisons(report.get("compare", {}))
    for key, title in (
        ("by_modality", "By modality"),
        ("by_content", "By content"),
        ("by_level", "By augmentation level"),
        ("experts", "Experts alone, where they ran"),
        ("grid", "Robustness grid"),
    ):
        if report.get(key):
            parts += [f"## {title}\n", _breakdown(report[key])]
    parts += ["## By source\n", _by_name(report["by_source"]), "## By generator\n", _by_name(report["by_generator"])]
    parts += [_three(report["three_class"])]
    if report["undecodable"]:
        names = "\n".join(f"- `{row['key']}`: {row['detail']}" for row in report["undecodable_files"])
        parts += [f"## Not decodable: {report['undecodable']}\n", names + "\n"]
    return "\n".join(part for part in parts if part)


def leave_one_out(found: Mapping[str, Any]) -> str:
    """The tables of :func:`detectors.evaluation.compose.leave_one_out`."""
    fakes = [
        (name, row["n"], row["auc"], row["tpr"], row["tnr"], row["balanced_accuracy"])
        for name, row in sorted(found["fakes"].items())
    ]
    reals = [
        (name, row["n"], row["auc"], row["tnr"], _span(row["interval"])) for name, row in sorted(found["reals"].items())
    ]
    mean, least = found["mean"], found["least"]
    fakes += [(word, "", "", "", "", row["balanced_accuracy"]) for word, row in (("mean", mean), ("least", least))]
    reals += [(word, "", "", row["tnr"], "") for word, row in (("mean", mean), ("least", least))]
    return "\n".join(
        (
            "## Fakes left out of the training\n",
            _table(("left out", "views", "AUC", "TPR", "TNR, all reals", "balanced accuracy"), fakes),
            "## Real sources left out of the training\n",
            _table(("left out", "views", "AUC", "TNR", "95 %"), reals),
        )
    )


def _what(report: Mapping[str, Any]) -> str:
    weights = ", ".join(sorted(report["detector"].get("weights", {}).values())) or "none"
    return (
        f"{report['n']} views ({report['real']} real, {report['fake']} fake) of {report['groups']} groups, "
        f"level {report['data']['level']}, seed {report['data']['seed']}; weights: {weights}.\n"
    )


def _headline(report: Mapping[str, Any]) -> str:
    spans = report["intervals"]
    rows = [(_WORDS[name], report[name], _span(spans.get(name))) for name in _HEAD]
    rows.append((_WORDS["three_class_mcc"], report["three_class"]["mcc"], _span(spans.get("three_class_mcc"))))
    return _table(("figure", "value", "95 %"), rows)


def _rewards(report: Mapping[str, Any]) -> str:
    rows = [
        (name, row["median"], row["mean"], _span(row["interval"]), row["note"] or "")
        for name, row in (report.get("reward") or {}).items()
    ]
    if not rows:
        return ""
    return "## Simulated reward\n\n" + _table(("profile", "median", "mean", "95 %", "note"), rows)


def _detectors(found: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("auc", "balanced_accuracy", "tnr", "tpr", "mcc", "brier", "ece")
    rows = [(name, row["n"], *(row[c] for c in columns)) for name, row in found.items()]
    return _table(("detector", "views", *(_WORDS[c] for c in columns)), rows)


def _comparisons(found: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for title, row in found.items():
        rows = [
            (_WORDS.get(name, name), cell["a"], cell["b"], cell["difference"], _span(cell["interval"]))
            for name, cell in row.items()
            if isinstance(cell, Mapping)
        ]
        yield f"## {title} ({row['n']} views)\n"
        yield _table(("figure", "first", "second", "difference", "95 %"), rows)


def _breakdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    columns = [c for c in _HEAD if all(c in row for row in found.values())]
    rows = [(name, row["n"], *(row[c] for c in columns)) for name, row in found.items()]
    return _table(("", "views", *(_WORDS[c] for c in columns)), rows)


def _by_name(found: Mapping[str, Mapping[str, Any]]) -> str:
    order = sorted(found.items(), key=lambda pair: (pair[1]["fake"] > 0, pair[0]))
    rows = [
        (
            name,
            "/".join(kind for kind in ("real", "fake") if row[kind]),
            row["n"],
            row["auc"],
            row.get("tnr"),
            row.get("tpr"),
            _span(row["right_interval"]),
        )
        for name, row in order
    ]
    return _table(("", "class", "views", "AUC", "TNR", "TPR", "95 % of right"), rows)


def _three(found: Mapping[str, Any]) -> str:
    rows = [(name, *row) for name, row in zip(found["classes"], found["confusion"], strict=True)]
    return "## Three classes (rows true, columns said)\n\n" + _table(("", *found["classes"]), rows)


def _span(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:.3f} to {found[1]:.3f}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
