"""The parts beside the axon, together and for real: swaps, shadow, metrics and console of one miner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from detectors.errors import WeightsError
from neurons import miner
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan
from neurons.reload import TOPIC
from neurons.settings import MinerSettings
from neurons.station import Station
from tests.detectors.fixtures_store import House
from tests.neurons.loopback import MINER, Client, ask, jpeg
from tests.neurons.loopback import client as connected


def settings(house: House | None = None, **more: Mapping[str, Any]) -> MinerSettings:
    """A miner's, on free ports and with nothing outside of the test's folder."""
    groups: dict[str, Any] = {
        "neuron": {"detector": "trivial"} if house is None else {"camo": house.camo},
        "weights": {} if house is None else {"store": house.root, "poll_s": 0.05, "reserve_mib": 0},
        "telemetry": {"port": 0},
        "axon": {"ip": "127.0.0.1", "port": 0},
    }
    for group, values in more.items():
        groups[group] = {**groups.get(group, {}), **values}
    return MinerSettings(offline=True, **groups)


@contextlib.contextmanager
def stationed(wanted: MinerSettings) -> Iterator[Station]:
    station = Station(wanted)
    try:
        yield station
    finally:
        station.close()


@contextlib.asynccontextmanager
async def serving(station: Station, wanted: MinerSettings) -> AsyncIterator[Client]:
    """The axon in front of it, and its tasks, as :mod:`neurons.miner` puts them together."""
    app = miner.build(wanted, MINER, station.judge, None, station.observers)
    station.attach(app, None)
    station.open()
    tasks = [asyncio.create_task(task) for task in station.tasks().values()]
    try:
        async with connected(app) as client:
            yield client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def after(station: Station, change: Callable[[], object]) -> None:
    """Makes a change, and waits for what the miner makes of it."""
    reported = asyncio.Event()
    assert station.reloads is not None
    station.reloads.listeners.append(lambda _: reported.set())
    change()
    await asyncio.wait_for(reported.wait(), 20)


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ports(records: list[logging.LogRecord]) -> dict[str, int]:
    """Where metrics and console are, as the log says it."""
    found = [record.args for record in records if record.name == "neurons.station" and record.levelno == logging.INFO]
    return {str(args[0]): int(args[2]) for args in found if isinstance(args, tuple) and isinstance(args[2], int)}


def test_a_swap_a_metric_and_a_page_of_one_miner(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    house.save("one", "2", intercept=2.0)
    wanted = settings(house, console={"enabled": True, "port": 0, "token_file": tmp_path / "private" / "token"})

    async def body(station: Station) -> None:
        async with serving(station, wanted) as client:
            at = ports(caplog.records)
            assert station.health().serving
            first = station.live.card.key
            assert (await client.send(ask("epistula", payload=jpeg())))[0] == 200
            await after(station, lambda: house.store.activate("one", "2"))
            assert (await client.send(ask("epistula", payload=jpeg())))[0] == 200
            health = station.health()
            assert health.weights["one"] == "one@2"
            assert health.detector == station.live.card.key != first
            assert health.problems == []
            assert health.rss_bytes > 10 * 2**20
            status, text = await asyncio.to_thread(fetch, at["metrics"], "/metrics")
            assert status == 200
            assert 'requests_total{outcome="answered",tier="offline",wire="epistula"} 2.0' in text
            assert 'swaps_total{accepted="true",stage="done"} 1.0' in text
            assert 'name="one",version="2"' in text
            assert (await asyncio.to_thread(fetch, at["metrics"], "/healthz"))[0] == 200
            assert "token" in (await asyncio.to_thread(fetch, at["console"], "/login"))[1].lower()
            assert station.recent is not None
            assert [entry.seen.outcome for entry in station.recent.entries()] == ["answered"] * 2

    with caplog.at_level(logging.INFO), stationed(wanted) as station:
        asyncio.run(body(station))
        assert [notice.said["detector"] for notice in Noticeboard(house.root).notices(TOPIC)] == [station.live.card.key]
    assert Noticeboard(house.root).notices(TOPIC) == []


def test_a_refused_swap_is_a_problem_of_its_health(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.save("one", "2", intercept=2.0)
    wanted = settings(house, telemetry={"enabled": False})

    async def body(station: Station) -> None:
        async with serving(station, wanted):
            house.store.activate("one", "2")
            await after(station, lambda: (house.root / "one-2.safetensors").write_bytes(b"cp went wrong"))
            (problem,) = station.health().problems
            assert "one-2.safetensors" in problem

    with stationed(wanted) as station:
        asyncio.run(body(station))


def test_a_shadow_sees_what_is_asked_and_answers_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.save("one", "2", intercept=2.0)
    wanted = settings(house, telemetry={"enabled": False})

    async def body(station: Station) -> None:
        assert station.shadow is not None
        async with serving(station, wanted) as client:
            before = (await client.send(ask("epistula", payload=jpeg())))[2]
            station.shadow.start(ShadowPlan("one@2", count=2))
            async with asyncio.timeout(30):
                while (report := station.shadow.report()) is None or report.state != "done":
                    assert report is None or report.state in ("loading", "running"), report
                    assert (await client.send(ask("epistula", payload=jpeg())))[2] == before
                    await asyncio.sleep(0.05)
            assert report.judged == 2
            assert report.mean_difference

    with stationed(wanted) as station:
        asyncio.run(body(station))


def test_a_taken_port_or_an_open_token_is_a_warning_and_the_miner_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 43)
    token.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        console = {"enabled": True, "port": 0, "token_file": token}
        wanted = settings(telemetry={"port": taken}, console=console)

        async def body(station: Station) -> None:
            async with serving(station, wanted) as client:
                assert (await client.send(ask("epistula", payload=jpeg())))[0] == 200

        with stationed(wanted) as station:
            asyncio.run(body(station))
    warnings = [r.getMessage() for r in caplog.records if r.name == "neurons.station"]
    assert len(warnings) == 2
    assert f"127.0.0.1:{taken} cannot be bound" in warnings[0]
    assert "others can read" in warnings[1]


def test_without_good_weights_there_is_no_miner(tmp_path: Path) -> None:
    house = House(tmp_path)
    (house.root / "one-1.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"one-1\.safetensors"):
        Station(settings(house))


def test_the_trivial_detector_has_nothing_to_swap() -> None:
    with stationed(settings()) as station:
        assert (station.reloads, station.shadow, station.recent) == (None, None, None)
        assert station.tasks() == {}
        assert not station.health().serving
        assert station.health().problems == ["challenges are not admitted"]
