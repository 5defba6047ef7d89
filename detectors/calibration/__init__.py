"""From raw logits to probabilities that mean what they say, and how far they still are from it.

fits      temperature, Platt, isotonic; which of them, by grouped cross-validation
merging   weights of the learned merge
decision  where the answer turns from real to fake so that the reward peaks
measures  Brier score, calibration errors, reliability tables
"""

from __future__ import annotations

from detectors.calibration.decision import (
    GOALS,
    Decision,
    Goal,
    challenge_weights,
    confusion,
    decision_shift,
    expected_reward,
    sn34_score,
)
from detectors.calibration.fits import (
    METHODS,
    Choice,
    Method,
    apply,
    choose,
    fit_curve,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    folds_of,
)
from detectors.calibration.measures import (
    Bin,
    BrierParts,
    brier_parts,
    brier_score,
    debiased_calibration_error,
    expected_calibration_error,
    reliability,
)
from detectors.calibration.merging import MergeFit, fit_merge, fit_spread, merged

__all__ = [
    "GOALS",
    "METHODS",
    "Bin",
    "BrierParts",
    "Choice",
    "Decision",
    "Goal",
    "MergeFit",
    "Method",
    "apply",
    "brier_parts",
    "brier_score",
    "challenge_weights",
    "choose",
    "confusion",
    "debiased_calibration_error",
    "decision_shift",
    "expected_calibration_error",
    "expected_reward",
    "fit_curve",
    "fit_isotonic",
    "fit_merge",
    "fit_platt",
    "fit_spread",
    "fit_temperature",
    "folds_of",
    "merged",
    "reliability",
    "sn34_score",
]
