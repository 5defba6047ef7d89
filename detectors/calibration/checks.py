"""What every fit and measure asks of its samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.errors import ConfigError, PredictionError

__all__ = ["F64", "codes", "pairs", "weighing"]

F64 = npt.NDArray[np.float64]


def pairs(values: npt.ArrayLike, labels: npt.ArrayLike, *, both: bool = True) -> tuple[F64, F64]:
    """Values and labels as ``float64 [N]``.

    Raises:
        ConfigError: lengths differ or are 0, another label than 0 and 1, or (with `both`) one class is missing.
        PredictionError: a value is not finite.
    """
    v, y = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if v.ndim != 1 or v.shape != y.shape or not len(v):
        raise ConfigError(f"needs as many labels as values and at least one, not {v.shape} and {y.shape}")
    if not np.isfinite(v).all():
        raise PredictionError("a value is not finite")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ConfigError("labels must be 0 (real) or 1 (fake)")
    if both and len(np.unique(y)) < 2:
        raise ConfigError("calibration needs real and fake samples")
    return v, y


def weighing(weights: npt.ArrayLike | None, count: int) -> F64:
    """Sample weights as ``float64 [count]`` of mean 1; None weighs alike.

    Raises:
        ConfigError: another length, a negative or infinite weight, or none above 0.
    """
    if weights is None:
        return np.ones(count)
    w = np.asarray(weights, np.float64)
    if w.shape != (count,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ConfigError(f"needs {count} weights, finite, at least 0 and one above it")
    return np.asarray(w * (count / w.sum()), np.float64)


def codes(groups: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """Groups as numbers ``int64 [count]`` from 0 on, in sorted order of their names.

    Raises:
        ConfigError: another length.
    """
    if len(groups) != count:
        raise ConfigError(f"needs a group for each of {count} samples, not {len(groups)}")
    return np.asarray(np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1], np.int64)
