"""The map from a raw logit to one that means what it says. Plain numbers, so that cards and configurations can hold it.

Three families in one: temperature (a slope), Platt (slope and intercept) and isotonic (knots); an intercept behind the
knots moves the point at which the answer turns from real to fake.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detectors.errors import ConfigError

__all__ = ["Curve"]


@dataclass(frozen=True, slots=True)
class Curve:
    """``slope * g(z) + intercept``, where g is the identity without knots.

    With knots, P(fake) is interpolated linearly between them over z, constant beyond the ends, and g is its logit.
    Never falling, whatever the numbers.

    Attributes:
        slope: at least 0; 0 makes every answer the same.
        intercept: finite.
        knots: (logit, P(fake)) with rising logits and P(fake) in (0, 1) that never falls; empty for none.

    Raises:
        ConfigError: a number breaks these rules.
    """

    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope >= 0 and math.isfinite(self.intercept)):
            raise ConfigError(f"calibration: slope {self.slope} or intercept {self.intercept} cannot be")
        try:
            knots = tuple((float(x), float(y)) for x, y in self.knots)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"calibration: knots must be pairs of numbers: {error}") from error
        object.__setattr__(self, "knots", knots)
        if not all(math.isfinite(x) and 0.0 < y < 1.0 for x, y in knots):
            raise ConfigError("calibration: a knot needs a finite logit and a probability inside (0, 1)")
        if any(a[0] >= b[0] or a[1] > b[1] for a, b in itertools.pairwise(knots)):
            raise ConfigError("calibration: knots must rise in the logit and never fall in P(fake)")

    def logits(self, z: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated logits, ``float64`` of the shape of `z`; finite where z is, NaN where z is NaN."""
        values = np.asarray(z, np.float64)
        if self.knots:
            x, y = np.array(self.knots).T
            p = np.interp(values, x, y)
            values = np.log(p) - np.log1p(-p)
        return np.asarray(self.slope * values + self.intercept, np.float64)

    def shifted(self, by: float) -> Curve:
        """The same curve with `by` added to every calibrated logit."""
        return replace(self, intercept=self.intercept + by)

    def then(self, slope: float, intercept: float) -> Curve:
        """The same curve followed by ``slope * z + intercept``."""
        return replace(self, slope=self.slope * slope, intercept=self.intercept * slope + intercept)
