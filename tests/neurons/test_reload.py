"""Swaps as a running miner makes them: real stores, real networks, both ways of noticing, and everything refused."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from detectors import candidate
from detectors.live import LiveDetector
from detectors.types import Prediction
from neurons import reload as module
from neurons.operations import Reloads, SwapReport
from neurons.pipeline import TrivialDetector
from neurons.reload import Reloader, fingerprint
from tests.detectors.fixtures_camo import flat
from tests.detectors.fixtures_store import CONFIG, House
from tests.neurons.reloadkit import NEVER, Running, Watched, run


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.save("one", "2", intercept=2.0)
    made.save("one", "3", intercept=-2.0)
    return made


def keys(live: LiveDetector) -> Any:
    """The experts' weights that serve."""
    return live.card.options["experts"]


@pytest.mark.parametrize("watched", [False, True], ids=["poll", "watchfiles"])
def test_an_activation_a_rollback_and_a_configuration_are_taken_up(house: House, watched: bool) -> None:
    async def body(running: Running) -> None:
        if watched:
            await watch.begun(house.root)
        first, reloads = running.live.card.key, reloads_of(running)
        assert (reloads.reports, reloads.store) == ((), house.root)
        house.store.activate("one", "2")
        report = await running.next()
        assert (report.accepted, report.stage, report.reason) == (True, "done", "")
        assert (report.before, report.after) == (first, running.live.card.key)
        assert report.weights == {"one": "one@2", "two": "two@1", "gate:content": "content@1"}
        assert keys(running.live)["one"] == "one@2"
        house.store.rollback()
        assert (await running.next()).after == first
        house.camo.write_text(CONFIG + "merge: max\n")
        report = await running.next()
        assert report.accepted
        assert report.wanted == running.reloader.serving == fingerprint(house.camo, house.root)
        assert running.live.predict([flat(90, side=64)])[0].route[-1] == "merge:max"
        assert [r.accepted for r in reloads.reports] == [True] * 3

    watch = Watched()
    run(house, body, **({"watch": watch, "poll_s": NEVER} if watched else {}))


def reloads_of(running: Running) -> Reloads:
    return running.reloader


@pytest.mark.parametrize("kind", ["raises", "ends", "no folder"])
def test_where_the_watch_fails_the_poll_remains(house: House, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    async def failing(folders: Sequence[Path]) -> AsyncIterator[object]:
        if kind == "raises":
            raise ImportError("No module named 'watchfiles'")
        elsewhere = [folder / "none" for folder in folders] if kind == "no folder" else []
        for _ in range(2):
            yield None
        async for change in module.changes(elsewhere) if elsewhere else nothing():
            yield change

    async def body(running: Running) -> None:
        house.store.activate("one", "2")
        assert (await running.next()).accepted

    with caplog.at_level(logging.WARNING):
        run(house, body, watch=failing)
    said = [r.getMessage() for r in caplog.records if "not told of" in r.getMessage()]
    assert len(said) == 1
    assert "0.0 s" in said[0]


async def nothing() -> AsyncIterator[object]:
    for _ in ():
        yield None


def _overwrite(house: House) -> None:
    """As ``cp`` over a file does: the same inode, other bytes."""
    with house.weights("one-2").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff" * 100)


def _truncate(house: House) -> None:
    with house.weights("one-2").open("r+b") as file:
        file.truncate(1000)


REFUSALS: dict[str, tuple[Callable[[House], object], str, str]] = {
    "overwritten": (_overwrite, "weights", "one-2.safetensors: sha256"),
    "truncated": (_truncate, "weights", "one-2.safetensors: sha256"),
    "golden": (lambda h: h.rewrite("one@2", golden={"noise": 0.9, "smooth": 0.9}), "golden", "the card says 0.9"),
    "configuration": (lambda h: h.camo.write_text("experts: 3"), "configuration", "camo.yaml"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_stays_out_and_says_why_until_it_is_mended(
    house: House, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    break_it, stage, words = REFUSALS[name]
    files = [house.weights("one-2"), house.root / "one-2.json", house.camo]
    whole = {path: path.read_bytes() for path in files}

    async def body(running: Running) -> None:
        before = running.live.current
        said = running.live.predict([flat(90, side=64)])[0].probabilities
        serving = running.reloader.serving
        break_it(house)
        (house.root / "active.json").write_text('{"content": "1", "one": "2", "two": "1"}')
        report = await running.next()
        while name == "configuration" and report.wanted != fingerprint(house.camo, house.root):
            report = await running.next()  # it is two files: the first may be seen alone
        assert (report.accepted, report.stage) == (False, stage)
        assert words in report.reason
        assert report.before == report.after == running.live.card.key
        assert report.weights["one"] == "one@1"
        assert running.live.current is before
        assert running.live.predict([flat(90, side=64)])[0].probabilities == said
        await running.until(lambda: running.notice["report"] is not None)
        notice = running.notice
        assert (notice["serving"], notice["report"]["reason"]) == (serving, report.reason)
        assert Path(notice["camo"]) == house.camo
        for path, data in whole.items():  # the same fingerprint as before, perhaps: only the files tell
            path.write_bytes(data)
        while not (report := await running.next()).accepted:
            pass
        assert keys(running.live)["one"] == "one@2"
        await running.until(lambda: running.notice["serving"] == running.reloader.serving)

    with caplog.at_level(logging.ERROR):
        run(house, body)
    line = next(r.getMessage() for r in caplog.records if words in r.getMessage())
    assert line.startswith(f"new weights stay out ({stage})")
    assert "goes on serving" in line
    assert "\n" not in line


def test_a_refusal_is_told_once_and_tried_again_when_somebody_activates_again(house: House) -> None:
    free = 0
    looks = 0

    def memory() -> int:
        nonlocal looks
        looks += 1
        return free

    async def body(running: Running) -> None:
        nonlocal free
        house.store.activate("one", "2")
        assert (await running.next()).stage == "memory"
        turns = looks
        for _ in range(5):
            running.reloader.look()
            await asyncio.sleep(0.01)
        assert looks == turns  # nothing was written: not tried again
        free = 2**40
        house.store.activate("one", "2")  # the same bytes
        assert (await running.next()).accepted
        assert len(running.reloader.reports) == 2

    run(house, body, free_memory=memory)


def test_overwriting_what_serves_ends_nothing_and_swaps_nothing(house: House) -> None:
    async def body(running: Running) -> None:
        before = running.live.predict([flat(90, side=64)])[0].probabilities
        for stem in ("one-1", "two-1", "content-1"):
            with house.weights(stem).open("r+b") as file:
                file.truncate(64)
        house.store.activate("one", "2")  # whole, but not without the others
        report = await running.next()
        assert (report.accepted, report.stage) == (False, "weights")
        assert running.live.predict([flat(90, side=64)])[0].probabilities == before

    run(house, body)


def test_two_activations_at_once_end_with_both(house: House) -> None:
    house.save("two", "2", intercept=1.0)

    async def body(running: Running) -> None:
        jobs = [asyncio.to_thread(house.store.activate, name, "2") for name in ("one", "two")]
        await asyncio.gather(*jobs)
        await running.until(lambda: keys(running.live) == {"one": "one@2", "two": "two@2"})
        assert all(r.accepted for r in running.reloader.reports)

    run(house, body)


def test_a_change_that_comes_while_one_is_prepared_is_taken_up_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = candidate.prepare

    def meddled(*arguments: Any, **options: Any) -> Any:
        found = prepare(*arguments, **options)
        if house.store.pointer()["one"] == "2":
            house.store.activate("one", "3")
        return found

    monkeypatch.setattr(module, "prepare", meddled)

    async def body(running: Running) -> None:
        house.store.activate("one", "2")
        assert [(await running.next()).weights["one"] for _ in range(2)] == ["one@2", "one@3"]

    run(house, body)


def test_a_bug_in_one_attempt_does_not_end_the_task(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare, calls = candidate.prepare, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a bug")
        return prepare(*arguments, **options)

    monkeypatch.setattr(module, "prepare", failing)

    async def body(running: Running) -> None:
        running.reloader.listeners.insert(0, deaf)
        house.store.activate("one", "2")
        assert (await running.next()).accepted

    def deaf(_: SwapReport) -> None:
        raise ValueError("a bug of somebody else")

    run(house, body)
    said = [r.getMessage() for r in caplog.records]
    assert any("looking for new weights failed" in line for line in said)
    assert any("a listener failed" in line for line in said)


def test_looking_can_be_asked_for_from_any_thread(house: House) -> None:
    async def body(running: Running) -> None:
        house.store.activate("one", "2")
        asked = threading.Thread(target=running.reloader.look)
        asked.start()
        asked.join()
        assert (await running.next()).accepted
        kept.append(running.reloader)

    kept: list[Reloader] = []
    run(house, body, poll_s=NEVER)
    kept[0].look()  # its loop is closed
    Reloader(LiveDetector(house.load()), camo=house.camo, store=house.root).look()  # it has none yet


def test_a_change_between_the_load_and_the_first_look_is_seen(house: House) -> None:
    before = fingerprint(house.camo, house.root)

    async def body(running: Running) -> None:
        assert (await running.next()).before == keyed
        assert running.live.card.key == keyed  # the same weights: only a remark was written

    keyed = house.load().card.key
    house.camo.write_text(CONFIG + "# a remark\n")
    run(house, body, serving=before)


def test_the_old_set_is_let_go_and_whoever_keeps_it_is_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LET_GO_S", 0.0)

    async def body(running: Running) -> None:
        old = weakref.ref(running.live.current)
        house.store.activate("one", "2")
        await running.next()
        await running.until(lambda: old() is None)
        kept = running.live.current
        house.store.activate("one", "3")
        await running.next()
        await running.until(lambda: any("still holds" in r.getMessage() for r in caplog.records))
        assert kept is not running.live.current

    run(house, body)
    assert sum("still holds" in r.getMessage() for r in caplog.records) == 1


def test_the_thread_that_loads_gives_way_to_those_that_answer(house: House) -> None:
    seen: list[tuple[str, int, int]] = []

    def memory() -> None:
        thread = threading.current_thread()
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append((thread.name, nice, torch.get_num_threads()))

    async def body(running: Running) -> None:
        torch.set_num_threads(2)
        house.store.activate("one", "2")
        await running.next()
        others: list[int] = []
        later = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert (torch.get_num_threads(), others) == (2, [2])

    before, torch_before = os.getpriority(os.PRIO_PROCESS, 0), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(house, body, free_memory=memory)
    finally:
        torch.set_num_threads(torch_before)
    assert [(name.partition("_")[0], nice, threads) for name, nice, threads in seen] == [("reload", 19, 1)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_reports_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)

    async def body(running: Running) -> None:
        for version in ("2", "3", "1"):
            house.store.activate("one", version)
            await running.next()
        assert [r.weights["one"] for r in running.reloader.reports] == ["one@3", "one@1"]

    run(house, body)


def test_twenty_swaps_under_threads_that_ask_mix_nothing(house: House) -> None:
    """Every answer is, to the last bit, what the set that it names gives; sets that are mixed give another."""
    media = [flat(40 + 30 * k, side=64) for k in range(6)]
    expected: dict[str, list[float]] = {}
    for version in ("1", "2", "3"):
        house.store.activate("one", version)
        alone = house.load()
        expected[alone.card.key] = [alone.predict([m])[0].p_fake for m in media]
    firsts = [values[0] for values in expected.values()]
    assert min(abs(a - b) for a in firsts for b in firsts if a != b) > 0.05
    answers: list[tuple[int, Prediction]] = []

    async def body(running: Running) -> None:
        def ask() -> None:
            while not stop.is_set():
                answers.extend(enumerate(running.live.predict(media)))

        stop = threading.Event()
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(20):
                house.store.activate("one", str(1 + turn % 3))
                assert (await running.next()).accepted
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    # Two threads that compute without a pause leave next to nothing to one that gives way: it does not, here.
    run(house, body, step_back=lambda: None)
    assert {p.detector for _, p in answers} == set(expected)
    wrong = [(p.detector, k) for k, p in answers if p.p_fake != pytest.approx(expected[p.detector][k], abs=1e-5)]
    assert not wrong


def test_what_any_detector_s_weights_are(house: House) -> None:
    assert TrivialDetector().card.weights == {"trivial": "trivial@1.0.0"}
    assert house.load().card.weights["gate:content"] == "content@1"
