"""Shadow mode's figures: the reward difference is what the validators' rules and the usual bootstrap give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detectors.types import Label, Prediction
from neurons.intervals import draws, interval
from neurons.operations import ShadowPlan, ShadowReport
from neurons.rewards import NO_ANSWER, PROFILES, Tracker
from neurons.shadow_figures import Figures, Labelled, reward_gain


def made(count: int, seed: int = 0, *, silent: float = 0.1) -> list[Labelled]:
    """Images and videos of all classes; the candidate is often silent."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        active, candidate = rng.dirichlet((1, 1, 1)).tolist(), rng.dirichlet((1, 1, 1)).tolist()
        label = Label(int(rng.choice(3, p=(0.5, 0.4, 0.1))))
        modality = "video" if rng.random() < 0.4 else "image"
        found.append(Labelled(modality, label, active, None if rng.random() < silent else candidate))  # type: ignore[arg-type]
    return found


def paid(cases: Sequence[Labelled], profile: str, *, candidate: bool) -> float:
    """Mean reward a step, answer by answer."""
    tracker, total = Tracker(PROFILES[profile]), 0.0
    for case in cases:
        said = case.candidate if candidate else case.active
        answer = NO_ANSWER if said is None else 1.0 - said[0] if PROFILES[profile].answer == "float" else said
        total += tracker.step(case.modality, answer, case.label).total
    return total / len(cases)


def quiet() -> None:
    """No live work."""


@pytest.mark.parametrize("profile", ["sn34-2.0", "sn34-2.2.7"])
def test_the_interval_equals_a_direct_computation(profile: str) -> None:
    cases = made(14, seed=3)
    gain, around = reward_gain(cases, profile, pause=quiet)
    assert gain == pytest.approx(paid(cases, profile, candidate=True) - paid(cases, profile, candidate=False), abs=1e-9)
    samples = []
    for row in draws(14, 1000, 0).tolist():
        again = [cases[k] for k in row]
        samples.append(paid(again, profile, candidate=True) - paid(again, profile, candidate=False))
    assert around == pytest.approx(interval(samples, count=14), abs=1e-9)


def test_fewer_than_ten_have_a_difference_and_no_interval() -> None:
    assert reward_gain([], "sn34-2.0", pause=quiet) == (None, None)
    gain, around = reward_gain(made(9), "sn34-2.0", pause=quiet)
    assert gain is not None
    assert around is None
    assert reward_gain(made(10), "sn34-2.0", pause=quiet)[1] is not None


def test_long_plans_are_computed_in_small_pieces_of_bounded_memory() -> None:
    pauses = []
    _, around = reward_gain(made(3000), "sn34-2.1", pause=lambda: pauses.append(1))
    assert around is not None
    assert len(pauses) >= 40


def test_latency_is_of_those_that_were_alone_in_their_batch() -> None:
    figures = Figures()
    shared = Prediction((0.5, 0.5, 0.0), milliseconds=90.0)
    single = Prediction((0.5, 0.5, 0.0), milliseconds=10.0)
    report = ShadowReport(ShadowPlan("general@2"), "running")
    figures.add(shared, shared, milliseconds=8.0, modality="image", label=None, alone=False)
    assert figures.into(report).active_ms == 90.0
    figures.add(single, single, milliseconds=6.0, modality="image", label=None, alone=True)
    assert (figures.into(report).active_ms, figures.into(report).candidate_ms) == (10.0, 7.0)


def test_exactly_half_is_real() -> None:
    figures = Figures()
    half, more = Prediction((0.5, 0.5, 0.0)), Prediction((0.49, 0.51, 0.0))
    for candidate in (half, more):
        figures.add(half, candidate, milliseconds=1.0, modality="image", label=None, alone=True)
    assert figures.into(ShadowReport(ShadowPlan("g@2"), "running")).agreement == 0.5
