"""How experts' scores become one P(fake). Pure functions; every one is independent of the experts' order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from detectors.curve import Curve
from detectors.errors import PredictionError

__all__ = ["Rule", "leading_share", "learned", "logit", "maximum", "selected", "shares", "sigmoid"]

Rule = Literal["learned", "max"]

_IDENTITY = Curve()


def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), without overflow."""
    e = math.exp(-abs(z))
    return 1.0 / (1.0 + e) if z >= 0 else e / (1.0 + e)


def logit(p: float) -> float:
    """The inverse of `sigmoid`, finite for every p in [0, 1]: 0 and 1 count as the nearest floats inside."""
    p = min(max(p, 1e-15), 1.0 - 1e-15)
    return math.log(p) - math.log1p(-p)


def selected(rule: Rule, needs: Mapping[str, frozenset[str]], fired: Iterable[str]) -> tuple[str, ...]:
    """Which experts have a say, in the mapping's order.

    Args:
        rule: ``learned``: every expert whose gates all fired. ``max``: as the original CAMO (BitMind subnet 1.2.9 to
            2.2.11), the experts of fired gates alone, and the general ones only when there are none.
        needs: by expert, the gates that must have fired for it to run; none for a general expert.
        fired: the gates that fired.
    """
    there = frozenset(fired)
    able = tuple(name for name, gates in needs.items() if gates <= there)
    if rule == "learned":
        return able
    gated = tuple(name for name in able if needs[name])
    return gated or able


def maximum(p_fake: Mapping[str, float]) -> float:
    """The original CAMO's merge: the largest P(fake) of the experts that had a say.

    Raises:
        PredictionError: there is none, or a value is not a probability.
    """
    if not p_fake:
        raise PredictionError("no expert answered")
    for name, value in p_fake.items():
        if not 0.0 <= value <= 1.0:  # NaN too
            raise PredictionError(f"{name}: {value!r} is not a probability")
    return max(p_fake.values())


def learned(
    logits: Mapping[str, float], weights: Mapping[str, float], curve: Curve = _IDENTITY, *, spread: float = 0.0
) -> float:
    """P(fake) = sigmoid(curve(mean / (1 + spread * s))), of calibrated logits weighted over who answered.

    An expert that did not run has no part in the mean: the weights of the others are scaled up to sum to one, so that
    an answer without it stays on the same scale. Where experts disagree the evidence is weak: with a `spread` above 0
    the mean shrinks with the weighted standard deviation s of their logits, and the answer moves towards what the
    curve says of a logit of 0.

    Args:
        logits: of P(fake), calibrated, by expert; those that ran.
        weights: at least zero, by expert; more experts than ran is fine. When those that ran weigh nothing together
            they count alike.
        curve: calibrates the mean.
        spread: at least zero; per unit of logit.

    Raises:
        PredictionError: nobody answered, or a logit is not finite.
    """
    if not logits:
        raise PredictionError("no expert answered")
    for name, value in logits.items():
        if not math.isfinite(value):
            raise PredictionError(f"{name}: the logit is not finite")
    parts = shares({name: weights[name] for name in logits})
    mean = math.fsum(parts[name] * value for name, value in logits.items())
    if spread > 0.0:
        mean /= 1.0 + spread * math.sqrt(math.fsum(parts[n] * (value - mean) ** 2 for n, value in logits.items()))
    return sigmoid(float(curve.logits(mean)))


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights, at least zero, scaled to sum to one; alike where they weigh nothing together."""
    total = math.fsum(weights.values())
    return {name: weight / total if total > 0.0 else 1.0 / len(weights) for name, weight in weights.items()}


def leading_share(p_fake: float, share: float) -> float:
    """The share of P(fake) that is semi-synthetic, moved just so far that the vector's argmax agrees with P(fake).

    SN34 2.2 takes the argmax of (real, synthetic, semi-synthetic): with 0.55 split in halves "real" would win at 0.45
    although the answer is fake. The likelier fake class is given at least P(real) where P(fake) > 0.5.

    Args:
        p_fake: in [0, 1].
        share: wanted, in [0, 1].
    """
    if p_fake <= 0.5:
        return share
    least = min(1.0, (1.0 - p_fake) / p_fake + 1e-9)
    return min(share, 1.0 - least) if share < 0.5 else max(share, least)
