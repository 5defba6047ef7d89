"""What a miner remembers: bounded, apart from strangers, and joined by the request's id."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from detectors.types import Media, Prediction
from neurons.pipeline import Judge, TrivialDetector
from neurons.recent import SLOT_S, Recent
from neurons.seen import Seen
from neurons.wire.base import Challenge
from tests.neurons.loopback import ALICE, Client, P, against, ask


def seen(name: str = "x-1", **more: Any) -> Seen:
    values: dict[str, Any] = {
        "at": 1000.0,
        "path": "/ImageSynapse",
        "wire": "dendrite",
        "hotkey": "5Alice",
        "tier": "validator",
        "modality": "image",
        "outcome": "answered",
        "status": 200,
        "seconds": 0.010,
        "prediction": Prediction(Prediction.split(0.75), route=("general", "merge:learned")),
    }
    return Seen(id=name, **{**values, **more})


def stranger(name: str = "s", outcome: str = "bad_signature") -> Seen:
    return seen(name, tier="unproven", hotkey="", outcome=outcome, status=401, prediction=None)


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Iterator[Recent]:
    made = Recent(2, keep=5, clock=clock)
    yield made
    made.close()


def picture(name: str, recent: Recent) -> None:
    media = Media(np.zeros((32, 32, 3), np.uint8))
    challenge = Challenge("image", b"", "image", "float", id=name)
    recent.judged([(challenge, media, Prediction(P))])
    assert recent.thumbnails.settle()


def test_pixels_and_outcome_meet_by_the_requests_id(recent: Recent) -> None:
    picture("a", recent)
    recent.seen(seen("a"))
    recent.seen(seen("b"))
    assert [(e.seen.id, e.pictured) for e in recent.entries()] == [("b", False), ("a", True)]
    found = recent.thumbnail("a")
    assert found is not None
    assert found.startswith(b"\xff\xd8")
    assert recent.thumbnail("b") is None


def test_only_so_many_are_kept_newest_first(recent: Recent) -> None:
    for k in range(9):
        recent.seen(seen(str(k)))
    assert [e.seen.id for e in recent.entries()] == ["8", "7", "6", "5", "4"]
    assert [e.seen.id for e in recent.entries(2)] == ["8", "7"]


def test_a_flood_of_strangers_pushes_no_validator_out(recent: Recent) -> None:
    recent.seen(seen("ours"))
    for k in range(1000):
        recent.seen(stranger(str(k)))
    assert [e.seen.id for e in recent.entries()] == ["ours"]
    access = recent.access()
    assert len(access.refusals) == 5
    assert access.counts == {("unproven", "bad_signature"): 1000, ("validator", "answered"): 1}


@pytest.mark.parametrize(
    ("p_fake", "label", "right"), [(0.9, 1, True), (0.9, 2, True), (0.9, 0, False), (0.5, 0, True), (0.9, None, None)]
)
def test_right_is_the_side_of_a_half(recent: Recent, p_fake: float, label: int | None, right: bool | None) -> None:
    recent.seen(seen("a", prediction=Prediction(Prediction.split(p_fake)), label=label))
    assert recent.entries()[0].right is right


def test_without_an_answer_nothing_is_right_or_wrong(recent: Recent) -> None:
    recent.seen(seen("a", prediction=None, outcome="overloaded", label=1))
    assert recent.entries()[0].right is None


def test_no_heat_map_stays_in_memory(recent: Recent) -> None:
    recent.seen(seen("a", prediction=Prediction(P, heat_map=np.zeros((64, 64), np.float32))))
    kept = recent.entries()[0].seen.prediction
    assert kept is not None
    assert kept.heat_map is None
    assert kept.probabilities == P


def test_latency_percentiles_over_the_window(recent: Recent, clock: Clock) -> None:
    for k in range(1, 101):
        recent.seen(seen(str(k), seconds=k / 1000))
    traffic = recent.traffic()
    assert traffic.answered == 100
    assert traffic.p50_ms == pytest.approx(50, rel=0.03)
    assert traffic.p99_ms == pytest.approx(99, rel=0.03)
    clock.now += 601
    assert recent.traffic().answered == 0
    assert recent.traffic().p50_ms is None


def test_traffic_is_counted_by_how_it_ended_and_when(recent: Recent, clock: Clock) -> None:
    recent.seen(seen("a", seconds=0.1))
    recent.seen(seen("b", outcome="gone", status=0, prediction=None))
    clock.now += 2 * SLOT_S
    recent.seen(stranger())
    traffic = recent.traffic(0.5)
    assert (traffic.answered, traffic.gone, traffic.refused) == (1, 1, 1)
    assert traffic.answered_by_slot == (1, 0, 0)
    assert traffic.p50_by_slot[0] == pytest.approx(100, rel=0.03)
    assert traffic.p50_by_slot[1:] == (None, None)
    assert traffic.seconds == 2 * SLOT_S
    assert recent.traffic(10 / 60).answered == 0


def test_the_history_is_bounded(recent: Recent, clock: Clock) -> None:
    for k in range(200):
        recent.seen(seen(str(k)))
        clock.now += SLOT_S
    assert len(recent.traffic(1000).answered_by_slot) == 60
    assert recent.traffic().answered == 59  # the slot of this moment is empty


def test_routes_by_frequency(recent: Recent) -> None:
    for k in range(3):
        recent.seen(seen(str(k)))
    recent.seen(seen("late", prediction=Prediction(P, route=("general", "late:face"))))
    recent.seen(seen("none", prediction=None, outcome="overloaded"))
    assert recent.routes() == [(("general", "merge:learned"), 3), (("general", "late:face"), 1)]


def test_callers_the_latest_first_and_bounded(recent: Recent) -> None:
    for k in range(60):
        recent.seen(seen(str(k), hotkey=f"5key{k}", at=float(k)))
    recent.seen(seen("again", hotkey="5key59", outcome="overloaded", prediction=None, wire="epistula"))
    callers = recent.access().callers
    assert len(callers) == 50
    assert (callers[0].hotkey, callers[0].asked, callers[0].answered) == ("5key59", 2, 1)
    assert callers[0].wire == "epistula"
    assert callers[1].hotkey == "5key58"


def test_the_estimate_counts_labels_and_waits_for_enough(recent: Recent) -> None:
    for k in range(9):
        recent.seen(seen(str(k), label=1))
        recent.seen(seen(f"without-{k}"))
    assert recent.estimate().labelled == 9
    assert recent.estimate().profiles == ()
    recent.seen(seen("tenth", label=0))
    found = recent.estimate()
    assert found.labelled == 10
    assert found.summary is not None
    assert found.summary.accuracy == 0.9


@pytest.mark.parametrize(
    "more",
    [
        {"tier": "unregistered", "label": 1},
        {"label": 7},
        {"label": -1},
        {"label": 1, "modality": ""},
    ],
)
def test_labels_that_cannot_be_trusted_or_read_count_nothing(recent: Recent, more: dict[str, Any]) -> None:
    for k in range(12):
        recent.seen(seen(str(k), **more))
    assert recent.estimate().labelled == 0


def test_a_labelled_challenge_without_an_answer_is_silence(recent: Recent) -> None:
    for k in range(10):
        recent.seen(seen(str(k), label=1, prediction=None, outcome="gone"))
    summary = recent.estimate().summary
    assert summary is not None
    assert (summary.challenges, summary.answered) == (10, 0)


def test_none_wanted_keeps_no_pixels() -> None:
    recent = Recent(0)
    picture("a", recent)
    recent.seen(seen("a"))
    assert not recent.keeps_pixels
    assert recent.thumbnails.held_bytes() == 0
    assert not recent.entries()[0].pictured


def test_both_calls_cost_microseconds(recent: Recent) -> None:
    """They sit on the event loop and on the inference thread. A tenth of the bound is what they take here."""
    one = seen("a", label=1)
    began = time.perf_counter()
    for _ in range(2000):
        recent.seen(one)
    assert (time.perf_counter() - began) / 2000 < 200e-6


def test_a_challenge_through_the_real_server_is_remembered_with_its_picture(recent: Recent) -> None:
    """The real pipeline and server: the same id reaches both ends."""

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 200
        assert (await client.send(ask(payload=b"no picture")))[0] == 422

    judge = Judge(TrivialDetector(P), watchers=[recent.judged])
    try:
        against(body, judge, observers=[recent.seen])
    finally:
        judge.close()
    assert recent.thumbnails.settle()
    bad, good = recent.entries()
    assert (bad.seen.outcome, bad.pictured) == ("undecodable", False)
    assert (good.seen.outcome, good.pictured, good.seen.hotkey) == ("answered", True, ALICE.ss58_address)
    assert good.seen.prediction is not None
    assert good.seen.prediction.probabilities == P
