"""Leave-one-out tables from the reports of several runs, each of weights that have not seen one source or generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detectors.errors import ConfigError
from detectors.evaluation.report import clean

__all__ = ["leave_one_out"]

_KINDS = {"generator": "by_generator", "source": "by_source"}


def leave_one_out(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What weights make of what they were never trained on.

    Args:
        reports: by what was left out of the training: a generator, a source, or ``generator:NAME`` and ``source:NAME``
            where both exist. Each is the JSON of ``deepfake-miner evaluate``.

    Returns:
        ``fakes``: for each fake left out ``n``, ``auc`` against all reals, ``tpr``, ``tnr`` over all reals and
        ``balanced_accuracy``, the mean of the two; ``reals``: for each real source left out ``n``, ``auc`` against all
        fakes, ``tnr`` and ``interval``; ``mean`` and ``least`` of balanced accuracy and TNR over the rows.

    Raises:
        ConfigError: a report does not hold what was left out.
    """
    fakes: dict[str, Any] = {}
    reals: dict[str, Any] = {}
    for name, report in reports.items():
        row = _row(name, report)
        if row["fake"]:
            tnr = report.get("tnr")
            halves = None if tnr is None else (row["tpr"] + tnr) / 2
            fakes[name] = {
                "n": row["fake"],
                "auc": row["auc"],
                "tpr": row["tpr"],
                "tnr": tnr,
                "balanced_accuracy": halves,
                "interval": row["right_interval"] if not row["real"] else None,
            }
        if row["real"]:
            interval = row["right_interval"] if not row["fake"] else None
            reals[name] = {"n": row["real"], "auc": row["auc"], "tnr": row["tnr"], "interval": interval}
    balanced = [row["balanced_accuracy"] for row in fakes.values() if row["balanced_accuracy"] is not None]
    tnrs = [row["tnr"] for row in reals.values()]
    found = {"fakes": fakes, "reals": reals}
    for word, of in (("mean", np.mean), ("least", np.min)):
        found[word] = {
            "balanced_accuracy": float(of(balanced)) if balanced else None,
            "tnr": float(of(tnrs)) if tnrs else None,
        }
    return dict(clean(found))


def _row(name: str, report: Mapping[str, Any]) -> Mapping[str, Any]:
    kind, colon, rest = name.partition(":")
    if colon and kind in _KINDS:
        tables, wanted = [report.get(_KINDS[kind], {})], rest
    else:
        tables, wanted = [report.get(table, {}) for table in _KINDS.values()], name
    for table in tables:
        if wanted in table:
            row: Mapping[str, Any] = table[wanted]
            return row
    raise ConfigError(f"leave-one-out: no view of {wanted!r} in its report")
