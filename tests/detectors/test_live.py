from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from detectors.card import Card
from detectors.live import LiveDetector
from detectors.types import Detector, Media, Prediction
from tests.detectors.fixtures_camo import build, flat


class Slow:
    """Answers its own number, and not before it is let go."""

    def __init__(self, number: int, *, held: bool = False) -> None:
        self.card = Card(name="slow", version=str(number), architecture="fake")
        self.number = number
        self.begun, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        self.begun.set()
        assert self.go.wait(10)
        p_fake = self.number / 100
        return [Prediction(Prediction.split(p_fake), detector=self.card.key) for _ in batch]


def test_it_is_a_detector_and_answers_what_the_current_one_answers() -> None:
    camo, _, _ = build()
    live = LiveDetector(camo)
    assert isinstance(live, Detector)
    assert live.card == camo.card
    assert live.predict([flat(140)])[0].p_fake == camo.predict([flat(140)])[0].p_fake
    assert live.costs == camo.costs
    assert live.faults == {}
    other = Slow(3)
    assert live.switch(other) is camo
    assert live.current is other
    assert live.card.key == "slow@3"
    assert (live.costs, live.faults) == ({}, {})  # a detector that keeps none


def test_a_batch_that_has_begun_is_answered_by_what_it_began_with() -> None:
    old, new = Slow(1, held=True), Slow(2)
    live = LiveDetector(old)
    found: list[Prediction] = []
    batch = threading.Thread(target=lambda: found.extend(live.predict([flat(1)] * 3)))
    batch.start()
    assert old.begun.wait(10)
    assert live.switch(new) is old
    assert [p.detector for p in live.predict([flat(1)])] == ["slow@2"]  # does not wait for the old one
    old.go.set()
    batch.join()
    assert [p.detector for p in found] == ["slow@1"] * 3


def test_twenty_switches_under_four_threads_mix_nothing() -> None:
    live: LiveDetector = LiveDetector(Slow(0))
    stop = threading.Event()
    batches: list[list[Prediction]] = []

    def ask() -> None:
        while not stop.is_set():
            batches.append(live.predict([flat(1)] * 4))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 21):
        new = Slow(number)
        live.switch(new)
        assert new.begun.wait(10)  # it answers
    stop.set()
    for thread in threads:
        thread.join()
    for batch in batches:
        assert len({p.detector for p in batch}) == 1
        assert batch[0].p_fake == pytest.approx(int(batch[0].detector.partition("@")[2]) / 100)
    assert {batch[0].detector for batch in batches} >= {f"slow@{n}" for n in range(1, 21)}
