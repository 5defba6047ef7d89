"""From a sheet of experts' logits to the numbers of ``configs/camo.yaml``, and what they are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from detectors import calibration
from detectors.calibration import Choice, Decision, Goal, Method
from detectors.camo_config import CamoConfig, CurveConfig
from detectors.curve import Curve
from detectors.training import evaluate
from detectors.training.merge_sheet import MADE, Sheet
from detectors.types import Modality

__all__ = ["Fitted", "Settings", "configured", "figures", "fit_curves_only", "fit_merge", "weights_of"]

F64 = npt.NDArray[np.float64]
_GATED_GROUPS = 30  # of either class, below which a gate gets no curve of its own


@dataclass(frozen=True, slots=True)
class Settings:
    """How to fit; see :class:`detectors.training.fit.MergeRecipe` for the meaning of each."""

    goal: Goal
    methods: tuple[Method, ...] = calibration.METHODS
    experts: bool = True
    spread: bool = True
    by_gate: bool = True
    made: float = 0.2
    folds: int = 5
    rounds: int = 200
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """The numbers of one modality.

    Attributes:
        names: of the experts.
        weights: one each.
        experts: curve of each expert's logit before the merge.
        merge: curve of the merged logit, decision shift included.
        spread: see :func:`detectors.merge.learned`.
        gates: curves in place of `merge` by gate.
        notes: for the report: losses by method, the decision.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    experts: tuple[CurveConfig, ...]
    merge: CurveConfig
    spread: float = 0.0
    gates: Mapping[str, CurveConfig] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def merged(self, sheet: Sheet) -> F64:
        """The merged logit ``[N]`` of each row before its calibration."""
        z = np.full((len(sheet), len(self.names)), np.nan)
        for k, (name, part) in enumerate(zip(self.names, self.experts, strict=True)):
            if name in sheet.names:
                z[:, k] = part.curve.logits(sheet.logits[:, sheet.names.index(name)])
        return calibration.merged(z, self.weights, self.spread)

    def logits(self, sheet: Sheet) -> F64:
        """The answer's logit ``[N]`` of each row, as :class:`detectors.camo.Camo` would give it."""
        merged = self.merged(sheet)
        out = self.merge.curve.logits(merged)
        for name, part in reversed(list(self.gates.items())):  # the first one written counts
            here = sheet.fired[:, sheet.gates.index(name)]
            out[here] = part.curve.logits(merged[here])
        return out


def configured(config: CamoConfig, names: Sequence[str], modality: Modality) -> Fitted:
    """The numbers that a configuration holds."""
    video = modality == "video"
    parts = [config.experts[name] for name in names]
    weights = [p.video_weight if video and p.video_weight is not None else p.weight for p in parts]
    own = [p.video_calibration if video and p.video_calibration is not None else p.calibration for p in parts]
    gates = config.video.gate_calibration if video else config.gate_calibration
    return Fitted(
        names=tuple(names),
        weights=tuple(weights),
        experts=tuple(CurveConfig(method="identity") if part is None else part for part in own),
        merge=_named("platt", config.curve(modality)),
        spread=config.spread(modality),
        gates=gates,
    )


def weights_of(sheet: Sheet, settings: Settings) -> F64:
    """Weights ``[N]`` of mean 1: labels by the goal's prior, sources evenly, made fakes their share of the fakes."""
    labels = np.minimum(sheet.labels, 1) if settings.goal.prior[2] == 0 else sheet.labels
    made = np.char.startswith(sheet.sources, MADE)
    w = np.zeros(len(sheet))
    w[~made] = calibration.challenge_weights(labels[~made], sheet.sources[~made].tolist(), settings.goal.prior)
    theirs = w[sheet.fake & ~made].sum()
    if made.any():
        even = calibration.challenge_weights(labels[made], sheet.sources[made].tolist(), (0.0, 1.0, 0.0))
        share = settings.made if theirs > 0 else 1.0
        total = theirs if theirs > 0 else w.sum()
        w[made] = even / even.sum() * total * share
        w[sheet.fake & ~made] *= 1 - share
    return np.asarray(w * (len(w) / w.sum()), np.float64)


def fit_merge(sheet: Sheet, settings: Settings) -> Fitted:
    """Everything: experts' curves, weights, spread, the merge's curve, its decision point, curves by gate.

    Raises:
        ConfigError: too few groups of a class.
    """
    w, y = weights_of(sheet, settings), sheet.fake.astype(np.float64)
    curves = tuple(_expert(sheet, k, w, settings) for k in range(len(sheet.names)))
    z = np.stack([part.curve.logits(sheet.logits[:, k]) for k, part in enumerate(curves)], axis=1)
    found = calibration.fit_merge(z, y, weights=w)
    if settings.spread and len(sheet.names) > 1:
        groups = sheet.groups.tolist()
        found = calibration.fit_spread(found, z, y, groups, weights=w, folds=settings.folds, seed=settings.seed)
    return _calibrated(Fitted(sheet.names, found.weights, curves, _IDENTITY, found.spread), sheet, settings)


def fit_curves_only(base: Fitted, sheet: Sheet, settings: Settings) -> Fitted:
    """Weights and experts' curves of `base`, the merge's curve and decision point fitted: for few samples.

    Raises:
        ConfigError: too few groups of a class.
    """
    few = tuple(method for method in settings.methods if method != "isotonic") or ("platt",)
    careful = dataclasses.replace(settings, methods=few, by_gate=False)
    return _calibrated(dataclasses.replace(base, merge=_IDENTITY, gates={}, notes={}), sheet, careful)


def figures(logits: F64, sheet: Sheet, settings: Settings) -> dict[str, Any]:
    """What answers with these logits (NaN where there is none) are worth on the rows of a sheet.

    Brier score, calibration errors, reward and score are weighted as challenges are; the others count rows.
    """
    there = np.isfinite(logits)
    rows, z = sheet.part(there), logits[there]
    if len(np.unique(rows.fake)) < 2:
        return {"views": len(rows)}
    scored = evaluate.Scored(z, rows.fake, tuple(rows.sources.tolist()), tuple(rows.groups.tolist()))
    auc, low, high = evaluate.auc_interval(scored, rounds=settings.rounds)
    w, p, said = weights_of(rows, settings), expit(z), z > 0
    brier = calibration.brier_score(p, rows.fake, w)
    result = {
        "views": len(rows),
        "auc": auc,
        "auc_95": (low, high),
        "balanced_accuracy": float(balanced_accuracy_score(rows.fake, said)),
        "mcc": float(matthews_corrcoef(rows.fake, said)),
        "brier": brier,
        "ece": calibration.expected_calibration_error(p, rows.fake, 15, w),
        "debiased_rms_calibration_error": calibration.debiased_calibration_error(p, rows.fake, 15, w),
        "sn34-4": float(calibration.sn34_score(_mcc(said, rows, w), brier)),
    }
    if not settings.goal.proper:
        classes = np.where(said, np.where(rows.semi, 2, 1), 0)
        labels = rows.labels
        if settings.goal.prior[2] == 0:
            classes, labels = np.minimum(classes, 1), np.minimum(labels, 1)
        shares = calibration.confusion(classes, labels, w)
        result[f"reward {settings.goal.name}"] = float(calibration.expected_reward(shares, settings.goal))
    return {name: _short(value) for name, value in result.items()}


_IDENTITY = CurveConfig(method="identity")


def _expert(sheet: Sheet, k: int, w: F64, settings: Settings) -> CurveConfig:
    """The curve of one expert, where one does better than its card's."""
    there = np.isfinite(sheet.logits[:, k])
    if not settings.experts or _fewest_groups(sheet.part(there)) < settings.folds:
        return _IDENTITY
    rows = sheet.part(there)
    found = _choice(rows.logits[:, k], rows, w[there], ("identity", *settings.methods), settings)
    return _named(found.method, found.curve)


def _calibrated(fitted: Fitted, sheet: Sheet, settings: Settings) -> Fitted:
    """With the curve of the merge, those of gates, and all of them shifted to the decision point."""
    w, merged = weights_of(sheet, settings), fitted.merged(sheet)
    choice = _choice(merged, sheet, w, settings.methods, settings)
    z = choice.curve.logits(merged)
    gates: dict[str, Curve] = {}
    for k, name in enumerate(sheet.gates if settings.by_gate else ()):
        here = sheet.fired[:, k]
        if _fewest_groups(sheet.part(here)) >= _GATED_GROUPS:
            more = _choice(z[here], sheet.part(here), w[here], ("identity", "temperature", "platt"), settings)
            if more.method != "identity":
                gates[name] = choice.curve.then(more.curve.slope, more.curve.intercept)
    plain = dataclasses.replace(
        fitted,
        merge=_named(choice.method, choice.curve),
        gates={name: _named("platt", curve) for name, curve in gates.items()},
    )
    decision = calibration.decision_shift(
        plain.logits(sheet),
        sheet.labels,
        sheet.groups.tolist(),
        goal=settings.goal,
        weights=w,
        semi=sheet.semi,
        rounds=settings.rounds,
        seed=settings.seed,
    )
    return dataclasses.replace(
        plain,
        merge=_named(choice.method, choice.curve.shifted(decision.shift)),
        gates={name: _named("platt", curve.shifted(decision.shift)) for name, curve in gates.items()},
        notes={"log_loss": {k: _short(v) for k, v in choice.losses.items()}, "decision": _told(decision)},
    )


def _choice(z: F64, rows: Sheet, w: F64, methods: Sequence[Method], settings: Settings) -> Choice:
    fake, groups = rows.fake.astype(np.float64), rows.groups.tolist()
    return calibration.choose(z, fake, groups, methods=methods, weights=w, folds=settings.folds, seed=settings.seed)


def _fewest_groups(rows: Sheet) -> int:
    return min(len(np.unique(rows.groups[rows.fake == value])) for value in (False, True))


def _named(method: Method, curve: Curve) -> CurveConfig:
    return CurveConfig(
        method="isotonic" if curve.knots else method,
        slope=round(curve.slope, 5),
        intercept=round(curve.intercept, 5),
        knots=curve.knots,
    )


def _mcc(said: npt.NDArray[np.bool_], rows: Sheet, w: F64) -> float:
    only_mcc = Goal("mcc", mcc=1.0)
    return float(calibration.expected_reward(calibration.confusion(said, rows.fake, w), only_mcc))


def _told(decision: Decision) -> dict[str, Any]:
    return {name: _short(value) for name, value in dataclasses.asdict(decision).items()}


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(v) for v in value]
    return round(float(value), 4) if isinstance(value, float) else value
