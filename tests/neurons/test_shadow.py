"""Shadow mode: what the candidate sees, when it steps aside, what becomes of its plan; nobody is answered by it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectors.store import Store
from detectors.types import Media, Prediction
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan
from neurons.pipeline import Judge
from neurons.shadow import THREAD, Shadow, _Item, _Run
from neurons.shadow_orders import TOPIC, order_of
from neurons.threads import step_back
from tests.neurons.shadowkit import HEAD, PICTURES, Rig, build_store, challenge, forge, rig, wait_for


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_store(tmp_path_factory.mktemp("shadow"))


@pytest.fixture
def miner(tmp_path: Path, source: Path) -> Iterator[Rig]:
    made = rig(tmp_path, source)
    yield made
    made.close()


def truths(miner: Rig, *, wrong: bool = False) -> list[int]:
    """What the active weights say of each picture, or the opposite."""
    said = [
        found.p_fake > 0.5 for found in miner.ask(*map(challenge, range(PICTURES))) if isinstance(found, Prediction)
    ]
    return [int(fake != wrong) for fake in said]


def started(miner: Rig, version: str, **more: Any) -> None:
    miner.shadow.start(ShadowPlan(f"general@{version}", **more))
    miner.settled("running", "failed")


# Figures


def test_the_same_weights_agree_in_everything(miner: Rig) -> None:
    started(miner, "2", count=PICTURES)
    miner.feed([challenge(seed) for seed in range(PICTURES)])
    report = miner.settled("done")
    assert (report.judged, report.skipped, report.failed, report.agreement) == (PICTURES, 0, 0, 1.0)
    assert report.mean_difference == pytest.approx(0.0, abs=1e-6)
    assert report.active_ms is not None
    assert report.active_ms > 0.0
    assert report.candidate_ms is not None
    assert report.candidate_ms > 0.0
    assert (report.labelled, report.reward_gain, report.reward_difference) == (0, None, None)
    assert (report.reason, report.promoted) == ("", False)


def test_weights_that_say_the_opposite_never_agree(miner: Rig) -> None:
    started(miner, "3", count=6)
    miner.feed([challenge(seed) for seed in range(6)])
    report = miner.settled("done")
    assert report.agreement == 0.0
    answers = [found.p_fake for found in miner.ask(*map(challenge, range(6))) if isinstance(found, Prediction)]
    assert report.mean_difference == pytest.approx(float(np.mean([1 - 2 * p for p in answers])), abs=1e-5)


def test_nothing_of_it_reaches_the_answers(miner: Rig) -> None:
    alone = Judge(miner.detector, decode_threads=1)
    before = alone.judge([challenge(seed) for seed in range(6)], None)
    alone.close()
    started(miner, "3", count=6)
    during = [miner.ask(challenge(seed))[0] for seed in range(6)]
    for one, other in zip(before, during, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-6)
        assert (other.route, other.weights, other.detector) == (one.route, one.weights, one.detector)
    assert Store(miner.store).pointer()["general"] == "1"


# Live work first


def test_while_there_is_live_work_nothing_is_judged_and_little_is_held(miner: Rig) -> None:
    started(miner, "2", count=500)
    miner.busy.hold()
    for seed in range(30):
        miner.ask(challenge(seed % 4))
    wait_for(lambda: miner.busy.refused > 3)
    report = miner.report
    assert report.judged == 0
    assert report.skipped in (21, 22)  # eight wait, and one may be in the thread's hands
    miner.busy.release()
    wait_for(lambda: miner.report.judged + miner.report.skipped == 30)
    assert miner.report.judged in (8, 9)


def test_it_steps_aside_between_two_layers(miner: Rig) -> None:
    started(miner, "2", count=5)
    miner.busy.hold(after=10)  # one look before the item, then one a layer
    miner.ask(challenge(1))
    wait_for(lambda: miner.busy.refused > 5)
    assert miner.report.judged == 0
    miner.busy.release()
    wait_for(lambda: miner.report.judged == 1)
    assert miner.report.failed == 0


def test_what_has_waited_too_long_is_given_up(miner: Rig) -> None:
    started(miner, "2", count=500)
    miner.busy.hold()
    for seed in range(4):
        miner.ask(challenge(seed))
    miner.clock.now += 60.0
    miner.busy.release()
    wait_for(lambda: miner.report.skipped == 4)
    assert miner.report.judged == 0
    miner.feed([challenge(5)])
    assert miner.report.judged == 1


def test_large_media_are_not_piled_up() -> None:
    run = _Run(ShadowPlan("general@2"), None)
    large = Media(np.zeros((10, 2048, 2048, 3), np.uint8))  # 120 MiB
    answer = Prediction((0.5, 0.5, 0.0))
    for _ in range(3):
        run.offer(_Item(large, answer, None, alone=True, came=0.0))
    assert run.report().skipped == 2
    assert run.take(0.0) is not None
    run.offer(_Item(large, answer, None, alone=True, came=0.0))
    assert run.report().skipped == 2


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no priorities here")
def test_its_thread_comes_last_and_leaves_the_others_their_threads(miner: Rig) -> None:
    ours, threads = os.getpriority(os.PRIO_PROCESS, 0), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        started(miner, "2")
        shadow = next(thread for thread in threading.enumerate() if thread.name == THREAD)
        assert os.getpriority(os.PRIO_PROCESS, shadow.native_id or 0) == 19
        assert os.getpriority(os.PRIO_PROCESS, 0) == ours
        later: list[int] = []
        fresh = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert [torch.get_num_threads(), *later] == [3, 3]
    finally:
        torch.set_num_threads(threads)


def test_it_computes_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    found: list[int] = []

    def work() -> None:
        step_back()
        found.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [1]
    finally:
        torch.set_num_threads(before)


# Candidates that are no good


def test_a_candidate_that_computes_no_number_is_silent(miner: Rig) -> None:
    def explode(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{HEAD}.weight"].fill_(3e38)

    forge(miner.store, "9", explode)
    right = truths(miner)
    started(miner, "9", count=12)
    miner.feed([challenge(seed, right[seed]) for seed in range(12)])
    report = miner.settled("done")
    assert (report.judged, report.failed, report.agreement) == (12, 12, 0.0)
    assert (report.mean_difference, report.candidate_ms) == (None, None)
    assert report.reward_difference is not None
    assert report.reward_difference[1] < 0.0


def _not_a_number(store: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{HEAD}.bias"][0] = float("nan")

    forge(store, "2", change)


def _cut_short(store: Path) -> None:
    path = store / "general-2.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _gone(store: Path) -> None:
    (store / "general-2.safetensors").unlink()


def _other_keys(store: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["more"] = torch.zeros(1)

    forge(store, "2", change)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(_not_a_number, "not finite"), (_cut_short, "sha256"), (_gone, "No such file"), (_other_keys, "do not fit")],
)
def test_weights_that_do_not_load_fail_the_plan_with_the_reason(miner: Rig, harm: Any, reason: str) -> None:
    harm(miner.store)
    started(miner, "2")
    report = miner.report
    assert report.state == "failed"
    assert reason in report.reason
    miner.ask(challenge(1))
    assert miner.report.judged == 0


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (ShadowPlan("general"), "NAME@VERSION"),
        (ShadowPlan("general@8"), "general-8.json"),
        (ShadowPlan("general@1"), "active already"),
        (ShadowPlan("other@2"), "does not use the active version of other"),
        (ShadowPlan("../x@2"), "no name or version"),
        (ShadowPlan("general@2", count=0), "challenges"),
        (ShadowPlan("general@2", profile="sn35"), "sn35"),
    ],
)
def test_plans_that_cannot_run_say_why(miner: Rig, plan: ShadowPlan, reason: str) -> None:
    miner.shadow.start(plan)
    report = miner.settled("failed")
    assert reason in report.reason


def test_it_does_not_load_where_memory_is_short(miner: Rig) -> None:
    miner.shadow._reserve_bytes = 2**60
    miner.shadow.start(ShadowPlan("general@2"))
    assert "MiB of memory are free" in miner.settled("failed").reason


def test_other_weights_in_service_end_the_comparison(miner: Rig) -> None:
    started(miner, "2")
    asked, media = challenge(1), Media(np.zeros((64, 64, 3), np.uint8))
    miner.shadow.judged([(asked, media, Prediction((0.5, 0.5, 0.0), detector="camo@another"))])
    assert "changed from camo@" in miner.settled("failed").reason


# Promotion


def test_a_better_candidate_is_activated(miner: Rig) -> None:
    right = truths(miner, wrong=True)
    started(miner, "3", count=PICTURES, promote=True)
    miner.feed([challenge(seed, right[seed]) for seed in range(PICTURES)])
    report = miner.settled("done")
    assert report.reward_difference is not None
    assert 0.0 < report.reward_difference[0] <= (report.reward_gain or 0.0) <= report.reward_difference[1]
    assert report.promoted
    assert "activated" in report.reason
    assert Store(miner.store).pointer()["general"] == "3"


@pytest.mark.parametrize(
    ("version", "labelled", "reason"),
    [("2", True, "does not exclude 0"), ("3", False, "0 of 24 challenges came with their truth")],
)
def test_one_that_is_not_shown_to_be_better_is_not(miner: Rig, version: str, *, labelled: bool, reason: str) -> None:
    right = truths(miner, wrong=True)
    started(miner, version, count=PICTURES, promote=True)
    miner.feed([challenge(seed, right[seed] if labelled else None) for seed in range(PICTURES)])
    report = miner.settled("done")
    assert not report.promoted
    assert reason in report.reason
    assert Store(miner.store).pointer()["general"] == "1"


def test_a_better_one_that_was_not_to_be_activated_is_not(miner: Rig) -> None:
    right = truths(miner, wrong=True)
    started(miner, "3", count=PICTURES)
    miner.feed([challenge(seed, right[seed]) for seed in range(PICTURES)])
    report = miner.settled("done")
    assert (report.reward_difference or [0.0])[0] > 0.0
    assert not report.promoted
    assert Store(miner.store).pointer()["general"] == "1"


def test_what_the_operator_activated_meanwhile_stands(miner: Rig) -> None:
    right = truths(miner, wrong=True)
    started(miner, "3", count=PICTURES, promote=True)
    Store(miner.store).activate("general", "2")
    miner.feed([challenge(seed, right[seed]) for seed in range(PICTURES)])
    report = miner.settled("done")
    assert not report.promoted
    assert "was pointed at 2 meanwhile" in report.reason
    assert Store(miner.store).pointer()["general"] == "2"


# Start, stop, replace, close


def test_stop_while_it_waits_for_live_work(miner: Rig) -> None:
    started(miner, "2")
    miner.feed([challenge(1)])
    miner.busy.hold()
    miner.ask(challenge(2))
    wait_for(lambda: miner.busy.refused > 0)
    miner.shadow.stop()
    report = miner.settled("stopped")
    assert report.judged == 1
    wait_for(lambda: "stopped" in miner.report.reason)
    miner.ask(challenge(3))
    assert miner.report.judged == 1


def test_a_new_plan_replaces_the_old_one(miner: Rig) -> None:
    started(miner, "2")
    miner.feed([challenge(1)])
    miner.shadow.start(ShadowPlan("general@3", count=2))
    miner.settled("running")
    miner.feed([challenge(1), challenge(2)])
    report = miner.settled("done")
    assert (report.plan.key, report.judged, report.agreement) == ("general@3", 2, 0.0)
    assert sum(thread.name == THREAD for thread in threading.enumerate()) == 1


def test_close_ends_the_thread_and_nothing_starts_after_it(miner: Rig) -> None:
    assert miner.shadow.report() is None
    started(miner, "2")
    thread = next(thread for thread in threading.enumerate() if thread.name == THREAD)
    miner.shadow.close()
    assert not thread.is_alive()
    assert miner.report.state == "stopped"
    miner.shadow.start(ShadowPlan("general@3"))
    miner.shadow.close()
    assert miner.report.plan.key == "general@2"


# Orders and notices


def notice(miner: Rig) -> Mapping[str, Any]:
    (found,) = miner.board.notices(TOPIC)
    return found.said


def test_an_order_is_taken_up_once_and_reported(miner: Rig) -> None:
    order = order_of(ShadowPlan("general@2", count=3))
    assert miner.board.order(TOPIC, order)
    miner.shadow.obey()
    miner.settled("running")
    miner.shadow.obey()
    miner.feed([challenge(seed) for seed in range(3)])
    miner.settled("done")
    wait_for(lambda: notice(miner)["report"]["state"] == "done")
    assert notice(miner)["order"] == order["id"]
    assert notice(miner)["report"]["judged"] == 3
    miner.board.order(TOPIC, order_of(None))
    miner.shadow.obey()
    assert miner.report.state == "done"


def test_an_order_to_stop(miner: Rig) -> None:
    started(miner, "2")
    miner.board.order(TOPIC, order_of(None))
    miner.shadow.obey()
    assert miner.report.state == "stopped"


def test_an_order_from_before_the_start_is_history(miner: Rig) -> None:
    miner.board.order(TOPIC, order_of(ShadowPlan("general@2")))
    later = Shadow(
        miner.detector,
        store=miner.store,
        camo=miner.store.parent / "camo.yaml",
        device="cpu",
        busy=miner.busy,
        noticeboard=miner.board,
        activate=Store(miner.store).activate,
    )
    later.obey()
    assert later.report() is None
    later.close()


@pytest.mark.parametrize(
    "order",
    [
        {"id": "1"},
        {"id": "2", "plan": []},
        {"id": "3", "plan": {"key": "general@2"}},
        {"id": "4", "plan": {"key": "general@2", "count": True, "promote": False, "profile": "sn34-2.0"}},
        {"id": "5", "plan": {"key": "general@2", "count": 0, "promote": False, "profile": "sn34-2.0"}},
    ],
)
def test_an_order_that_makes_no_sense_is_left(
    miner: Rig, order: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    miner.board.order(TOPIC, order)
    with caplog.at_level(logging.WARNING):
        miner.shadow.obey()
        miner.shadow.obey()
    assert miner.shadow.report() is None
    assert len(caplog.records) == 1


class _Flaky(Noticeboard):
    """Fails on the second look."""

    looks = 0

    def ordered(self, topic: str) -> Mapping[str, Any] | None:
        self.looks += 1
        if self.looks == 2:
            raise RuntimeError("no such luck")
        return super().ordered(topic)


def test_the_task_that_looks_for_orders_outlives_a_look_that_fails(miner: Rig) -> None:
    board = _Flaky(miner.store)
    miner.shadow._noticeboard = board
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            board.order(TOPIC, order_of(ShadowPlan("general@2")))
        if len(slept) == 3:
            raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await miner.shadow.run(7.0, sleep=sleep)

    asyncio.run(main())
    assert slept == [7.0] * 3
    assert miner.report.plan.key == "general@2"


def test_progress_is_posted_once_a_second(miner: Rig) -> None:
    posts = []

    class Counting(Noticeboard):
        def post(self, topic: str, said: Mapping[str, Any]) -> bool:
            posts.append((said["report"]["state"], said["report"]["judged"]))
            return super().post(topic, said)

    miner.shadow._noticeboard = Counting(miner.store)
    started(miner, "2", count=6)
    miner.feed([challenge(seed) for seed in range(3)])
    miner.clock.now += 1.5
    miner.feed([challenge(seed) for seed in range(3)])
    wait_for(lambda: posts[-1] == ("done", 6))
    assert posts[:2] == [("loading", 0), ("running", 0)]
    assert [state for state, _ in posts[2:]] == ["running", "done"]
