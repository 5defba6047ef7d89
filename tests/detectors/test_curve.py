"""The one map behind temperature, Platt and isotonic: never falling, finite, refused when it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.curve import Curve
from detectors.errors import ConfigError

KNOTS = ((-2.0, 0.1), (0.0, 0.4), (1.0, 0.9))


def test_by_hand() -> None:
    z = Curve(knots=KNOTS).logits([-9.0, -1.0, 0.5, 9.0])
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), [0.1, 0.25, 0.65, 0.9])
    np.testing.assert_allclose(Curve(2.0, 0.5, KNOTS).logits([-1.0]), 2 * np.log(0.25 / 0.75) + 0.5)
    np.testing.assert_allclose(Curve(2.0, -1.0).logits([3.0, np.nan]), [5.0, np.nan])


def test_shifts_and_chains() -> None:
    curve, z = Curve(2.0, 0.5, KNOTS), np.linspace(-3, 3, 7)
    np.testing.assert_allclose(curve.shifted(-0.7).logits(z), curve.logits(z) - 0.7)
    np.testing.assert_allclose(curve.then(0.5, 3.0).logits(z), 0.5 * curve.logits(z) + 3.0)


@given(
    st.floats(0, 20),
    st.floats(-5, 5),
    st.lists(st.tuples(st.floats(-50, 50), st.floats(1e-6, 1 - 1e-6)), max_size=6),
    st.lists(st.floats(-500, 500), min_size=2, max_size=10),
)
def test_never_falls_and_stays_finite(
    slope: float, intercept: float, pairs: list[tuple[float, float]], z: list[float]
) -> None:
    xs, ys = sorted({x for x, _ in pairs}), sorted(y for _, y in pairs)
    out = Curve(slope, intercept, tuple(zip(xs, ys, strict=False))).logits(sorted(z))
    assert np.isfinite(out).all()
    assert (np.diff(out) >= -1e-9).all()


@pytest.mark.parametrize(
    ("slope", "intercept", "knots"),
    [
        (-1.0, 0.0, ()),
        (np.nan, 0.0, ()),
        (1.0, np.inf, ()),
        (1.0, 0.0, ((0.0, 0.0),)),
        (1.0, 0.0, ((0.0, 1.0),)),
        (1.0, 0.0, ((0.0, 0.5), (0.0, 0.6))),
        (1.0, 0.0, ((0.0, 0.5), (1.0, 0.4))),
        (1.0, 0.0, ((np.inf, 0.5),)),
        (1.0, 0.0, ((0.0, 0.5, 0.7),)),
    ],
)
def test_what_is_no_curve_is_refused(slope: float, intercept: float, knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ConfigError):
        Curve(slope, intercept, knots)
