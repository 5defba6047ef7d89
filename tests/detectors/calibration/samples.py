"""Labels drawn by a known curve."""

from __future__ import annotations

import numpy as np


def sample(
    slope: float, intercept: float, count: int = 20_000
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, count)
    return z, (rng.random(count) < 1 / (1 + np.exp(-(slope * z + intercept)))).astype(np.int64)
