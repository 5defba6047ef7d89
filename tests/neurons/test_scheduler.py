"""The scheduler: order, batches, deadlines, overload, disconnects and the orderly end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from detectors.errors import DetectorError, MediaError, MediaReason
from detectors.types import Prediction
from neurons.pipeline import Outcome
from neurons.scheduler import CallerGone, Limits, Overloaded, Scheduler, Ticket
from neurons.wire.base import Challenge, Refusal

ANSWER = Prediction((0.25, 0.75, 0.0))


class Recorder:
    """Takes `seconds` for each item, remembers batches, can be held and can fail."""

    def __init__(self, seconds: float = 0.0, *, held: bool = False) -> None:
        self.seconds = seconds
        self.batches: list[list[bytes]] = []
        self.deadlines: list[float | None] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        if not held:
            self.go.set()

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        self.batches.append([challenge.payload for challenge in challenges])
        self.deadlines.append(deadline)
        self.threads.add(threading.get_ident())
        assert self.go.wait(10)
        time.sleep(self.seconds * len(challenges))
        if any(challenge.payload == b"boom" for challenge in challenges):
            raise RuntimeError("boom")
        return [
            MediaError(MediaReason.UNDECODABLE, "no image") if challenge.payload == b"bad" else ANSWER
            for challenge in challenges
        ]


def image(name: str = "i") -> Challenge:
    return Challenge("image", name.encode(), "image", "float")


def video(name: str = "v") -> Challenge:
    return Challenge("video", name.encode(), "jpeg-frames", "float")


def run(
    body: Callable[[Scheduler, Recorder], Awaitable[Any]], judge: Recorder | None = None, limits: Limits | None = None
) -> Recorder:
    recorder = judge or Recorder()

    async def inner() -> None:
        scheduler = Scheduler(recorder, limits)
        try:
            await body(scheduler, recorder)
        finally:
            recorder.go.set()
            await scheduler.aclose(5)

    asyncio.run(inner())
    return recorder


async def settle(seconds: float = 0.03) -> None:
    await asyncio.sleep(seconds)


async def refusal(ticket: Ticket) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await asyncio.wait_for(ticket, 5)
    return caught.value


def test_answers_come_back_from_one_other_thread() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        outcomes = await asyncio.gather(*(scheduler.submit(image(str(i))) for i in range(20)))
        assert outcomes == [ANSWER] * 20
        assert await scheduler.submit(image("later")) == ANSWER
        assert len(judge.threads) == 1
        assert judge.threads != {threading.get_ident()}

    run(body)


def test_what_arrives_together_is_one_batch_up_to_the_limit() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        await asyncio.gather(*(scheduler.submit(image(str(i))) for i in range(7)))
        assert [len(batch) for batch in judge.batches] == [3, 3, 1]

    run(body, limits=Limits(max_batch=3))


def test_images_and_videos_do_not_share_a_batch_and_a_video_weighs_four() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        mixed = [video("v1"), image("i1"), video("v2"), image("i2"), video("v3")]
        await asyncio.gather(*map(scheduler.submit, mixed))
        assert judge.batches == [[b"v1", b"v2"], [b"i1", b"i2"], [b"v3"]]

    run(body, limits=Limits(max_batch=8))


def test_a_video_is_served_even_where_a_batch_is_smaller_than_its_weight() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        assert await scheduler.submit(video()) == ANSWER

    run(body, limits=Limits(max_batch=1))


def test_stake_first_then_arrival() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        first = scheduler.submit(image("running"))
        await settle()
        rest = [
            scheduler.submit(image(name), priority=stake)
            for name, stake in (("a", 1.0), ("b", 9.0), ("c", 1.0), ("d", 5.0), ("e", 9.0))
        ]
        judge.go.set()
        await asyncio.gather(first, *rest)
        assert [batch[0] for batch in judge.batches] == [b"running", b"b", b"e", b"d", b"a", b"c"]

    run(body, Recorder(held=True), Limits(max_batch=1))


def test_the_judge_is_told_the_earliest_deadline_of_its_batch() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        now = time.monotonic()
        await asyncio.gather(scheduler.submit(image(), timeout_s=6.0), scheduler.submit(image(), timeout_s=4.0))
        assert judge.deadlines[0] == pytest.approx(now + 3.5, abs=0.2)

    run(body, limits=Limits(margin_s=0.5))


@pytest.mark.parametrize(
    ("timeout_s", "expected"), [(None, 8.0), (100.0, 8.0), (4.0, 3.5), (0.6, 0.3), (float("nan"), 8.0)]
)
def test_the_deadline_is_the_callers_timeout_less_the_margin_and_capped(
    timeout_s: float | None, expected: float
) -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        now = time.monotonic()
        await scheduler.submit(image(), timeout_s=timeout_s)
        assert judge.deadlines[0] == pytest.approx(now + expected, abs=0.2)

    run(body, limits=Limits(deadline_s=8.0, margin_s=0.5))


def test_a_full_queue_refuses_at_once_with_retry_after() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        kept = [scheduler.submit(image("running"))]
        await settle()
        kept += [scheduler.submit(image()) for _ in range(4)]
        before = time.monotonic()
        with pytest.raises(Overloaded) as caught:
            scheduler.submit(image())
        assert time.monotonic() - before < 0.05
        assert (caught.value.status, caught.value.reason) == (503, "queue_full")
        assert caught.value.retry_after_s >= 1
        judge.go.set()
        assert await asyncio.gather(*kept) == [ANSWER] * 5

    run(body, Recorder(held=True), Limits(queue_limit=4))


def test_in_a_full_queue_more_stake_takes_the_last_place() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        running = scheduler.submit(image("running"))
        await settle()
        poor, rich = scheduler.submit(image("poor"), priority=1.0), scheduler.submit(image("rich"), priority=2.0)
        richer = scheduler.submit(image("richer"), priority=3.0)
        assert (await refusal(poor)).reason == "queue_full"
        assert scheduler.depth == 2
        judge.go.set()
        assert await asyncio.gather(*[running, rich, richer]) == [ANSWER] * 3

    run(body, Recorder(held=True), Limits(queue_limit=2))


def test_what_would_be_late_is_refused_on_arrival() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        await scheduler.submit(image())  # teaches the estimate
        kept = [scheduler.submit(image("running"))]
        await settle()

        def submit_many() -> None:
            for _ in range(100):
                kept.append(scheduler.submit(image(), timeout_s=1.0))

        with pytest.raises(Overloaded) as caught:
            submit_many()
        assert caught.value.reason == "overloaded"
        assert 2 <= len(kept) < 12
        assert await asyncio.gather(*kept) == [ANSWER] * len(kept)

    run(body, Recorder(0.05), Limits(max_batch=1, margin_s=0.1))


def test_whoever_is_overtaken_and_would_be_late_hears_it_at_once() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        await scheduler.submit(image())
        running = scheduler.submit(image("running"))
        await settle(0.01)
        poor = scheduler.submit(image("poor"), priority=0.0, timeout_s=0.7)
        rich = [scheduler.submit(image("rich"), priority=5.0) for _ in range(14)]
        before = time.monotonic()
        assert (await refusal(poor)).reason == "overloaded"
        assert time.monotonic() - before < 0.05
        assert await asyncio.gather(running, *rich) == [ANSWER] * 15

    run(body, Recorder(0.05), Limits(max_batch=1, margin_s=0.1))


def test_at_the_deadline_the_waiting_get_503_and_the_running_408() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        before = time.monotonic()
        running = scheduler.submit(image("running"), timeout_s=0.4)
        await settle()
        waiting = scheduler.submit(image("waiting"), timeout_s=0.4)
        late, never = await asyncio.gather(refusal(running), refusal(waiting))
        assert time.monotonic() - before < 0.4
        assert (late.status, late.reason) == (408, "late")
        assert (never.status, never.reason) == (503, "overloaded")
        judge.go.set()
        assert await scheduler.submit(image("after")) == ANSWER
        assert judge.batches == [[b"running"], [b"after"]]

    run(body, Recorder(held=True), Limits(margin_s=0.1))


def test_one_slow_answer_does_not_close_the_door_for_good() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        judge.seconds = 0.5
        await scheduler.submit(image("cold start"))
        judge.seconds = 0.0
        for _ in range(3):  # each comes while nothing runs, so it is tried although the estimate says 1.5 s
            assert await scheduler.submit(image(), timeout_s=0.4) == ANSWER

    run(body)


def test_under_four_times_the_load_everything_admitted_is_answered_in_time() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        timeout_s, admitted, refused = 0.5, 0, 0
        lateness: list[float] = []

        async def one() -> None:
            nonlocal admitted, refused
            sent = time.monotonic()
            try:
                ticket = scheduler.submit(image(), timeout_s=timeout_s)
            except Overloaded:
                refused += 1
                assert time.monotonic() - sent < 0.05
                return
            admitted += 1
            assert await ticket == ANSWER
            lateness.append(time.monotonic() - sent - timeout_s)

        tasks = []
        for _ in range(300):  # 5 ms of work each, one every 1.25 ms
            tasks.append(asyncio.ensure_future(one()))
            await asyncio.sleep(0.00125)
        await asyncio.gather(*tasks)
        assert refused > 0
        assert admitted > 40
        assert max(lateness) < 0

    run(body, Recorder(0.005), Limits(max_batch=4, margin_s=0.2))


def test_a_caller_that_hangs_up_is_not_computed() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        running = scheduler.submit(image("running"))
        await settle()
        gone, cancelled, stays = (scheduler.submit(image(name)) for name in ("gone", "cancelled", "stays"))
        gone.set_exception(CallerGone())
        cancelled.cancel()
        await settle(0)
        assert scheduler.depth == 1
        judge.go.set()
        assert await asyncio.gather(*[running, stays]) == [ANSWER] * 2
        assert judge.batches == [[b"running"], [b"stays"]]
        with pytest.raises(CallerGone):
            await gone

    run(body, Recorder(held=True), Limits(max_batch=4))


def test_a_bad_item_and_a_failing_judge_cost_only_their_own() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        good, bad = await asyncio.gather(scheduler.submit(image()), scheduler.submit(image("bad")))
        assert good == ANSWER
        assert isinstance(bad, MediaError)
        assert isinstance(await scheduler.submit(image("boom")), DetectorError)
        assert await scheduler.submit(image()) == ANSWER

    run(body)


def test_a_judge_that_answers_too_little_fails_its_batch() -> None:
    class Short(Recorder):
        def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
            return super().judge(challenges, deadline)[1:]

    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        outcomes = await asyncio.gather(scheduler.submit(image()), scheduler.submit(image()))
        assert [type(outcome) for outcome in outcomes] == [DetectorError, DetectorError]

    run(body, Short())


def test_closing_finishes_what_was_admitted_and_admits_nothing_more() -> None:
    async def inner() -> None:
        judge = Recorder(0.01)
        scheduler = Scheduler(judge, Limits(max_batch=1))
        tickets = [scheduler.submit(image()) for _ in range(5)]
        closing = asyncio.ensure_future(scheduler.aclose(5))
        await settle(0)
        with pytest.raises(Overloaded) as caught:
            scheduler.submit(image())
        assert caught.value.reason == "closing"
        await closing
        assert [ticket.result() for ticket in tickets] == [ANSWER] * 5

    asyncio.run(inner())


def test_closing_refuses_what_the_grace_period_does_not_cover() -> None:
    async def inner() -> None:
        judge = Recorder(held=True)
        scheduler = Scheduler(judge, Limits(max_batch=1))
        running = scheduler.submit(image())
        await settle()
        waiting = scheduler.submit(image())
        before = time.monotonic()
        await scheduler.aclose(0.1)
        assert time.monotonic() - before < 0.5
        for ticket in (running, waiting):
            assert (await refusal(ticket)).reason == "closing"
        judge.go.set()

    asyncio.run(inner())


def test_closing_an_idle_scheduler_takes_no_time() -> None:
    before = time.monotonic()
    run(lambda scheduler, judge: settle(0))
    assert time.monotonic() - before < 1


def test_a_long_queue_is_not_walked_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever costs more the longer the queue is keeps a burst from being worked off, for as long as load lasts."""
    walks = 0
    whole = Scheduler._in_order

    def counted(scheduler: Scheduler) -> Iterator[Any]:
        nonlocal walks
        walks += 1
        return whole(scheduler)

    monkeypatch.setattr(Scheduler, "_in_order", counted)
    now = 1000.0

    async def inner() -> None:
        recorder = Recorder(held=True)
        scheduler = Scheduler(recorder, Limits(max_batch=4), clock=lambda: now)  # no time passes: one look is enough
        tickets = [scheduler.submit(image(str(i)), priority=i % 7) for i in range(400)]
        recorder.go.set()
        assert await asyncio.gather(*tickets) == [ANSWER] * 400
        assert len(recorder.batches) >= 100
        await scheduler.aclose(5)

    asyncio.run(inner())
    assert walks <= 3  # at the first batch, for the overtaken, and at the end


def test_stake_orders_images_and_videos_alike_and_it_is_told_how_long_each_waited() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        at_once: dict[str, float] = {}
        waited: list[dict[str, float]] = [{}, {}, {}, {}]
        running = scheduler.submit(image("running"), stages=at_once)
        await settle()
        line = [
            scheduler.submit(video("poor"), priority=1, stages=waited[0]),
            scheduler.submit(image("rich"), priority=9, stages=waited[1]),
            scheduler.submit(image("middling"), priority=5, stages=waited[2]),
            scheduler.submit(video("rich"), priority=7, stages=waited[3]),
        ]
        assert scheduler.depth == 4
        await settle()
        judge.go.set()
        await asyncio.gather(running, *line)
        assert judge.batches == [[b"running"], [b"rich"], [b"rich"], [b"middling"], [b"poor"]]
        assert at_once["queue"] < 30 <= min(stages["queue"] for stages in waited)

    run(body, Recorder(held=True), Limits(max_batch=1))


def test_a_full_queue_drops_the_poorest_of_either_modality() -> None:
    async def body(scheduler: Scheduler, judge: Recorder) -> None:
        running = scheduler.submit(image("running"))
        await settle()
        poor_video = scheduler.submit(video("poor"), priority=1)
        middling = scheduler.submit(image("middling"), priority=5)
        rich = scheduler.submit(image("rich"), priority=9)
        assert (await refusal(poor_video)).reason == "queue_full"
        with pytest.raises(Overloaded) as caught:
            scheduler.submit(image("poorest"), priority=0)
        assert caught.value.reason == "queue_full"
        judge.go.set()
        assert list(await asyncio.gather(running, middling, rich)) == [ANSWER] * 3

    run(body, Recorder(held=True), Limits(queue_limit=2))
