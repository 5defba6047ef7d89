"""Weights swapped under a steady load: failed and mixed answers, latency, memory: ``make bench-swap``.

Starts the real server with the default CAMO as a child, over a copy of the shipped store in which both experts have a
second version: the same weights with another calibration, so that every mixture of the four gives answers of its own.
Each answer is compared with what the set that it names (``X-Weights``) says when it is asked alone.

    make bench-swap ARGS="--memory"     100 swaps, and what they leave behind
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import uvloop

from detectors import camo, paths
from detectors.curve import Curve
from detectors.live import LiveDetector
from detectors.media import decode_image
from detectors.store import Store
from neurons import keys, logs, miner
from neurons.httpd import Listen, Server, freeze_heap
from neurons.noticeboard import Noticeboard
from neurons.pipeline import Judge
from neurons.reload import TOPIC, Reloader, changes, fingerprint
from neurons.settings import Axon, Blacklist, MinerSettings
from neurons.supervision import supervise
from neurons.wire.client import read_answer
from scripts.bench_load import Connection, Requests, status_of
from scripts.bench_peers import ROOT, Peer, resident_mib, start, stop
from scripts.soak_load import paced, still

NAMES = ("general", "general-whole")
VERSIONS = ("1.0.0", "1.0.1")
SHIFTS = {"general": 0.9, "general-whole": -0.7}
PICTURES = 4
MIXED = 1e-3  # |difference| of P(fake); the four sets differ by more, batches and threads by a hundredth of it
LONGEST_SWAP_S = 120.0
WANTED_RATIO, WANTED_DRIFT = 1.5, 0.03


class House:
    """A copy of the shipped weights and configuration, with second versions.

    Args:
        folder: does not hold them yet.
    """

    def __init__(self, folder: Path) -> None:
        self.root, self.camo = folder / "weights", folder / "camo.yaml"
        shutil.copytree(paths.weights(), self.root, ignore=shutil.ignore_patterns(".*"))
        shutil.copy(paths.configs() / "camo.yaml", self.camo)
        self.store = Store(self.root)
        for name in NAMES:
            first = self.store.load(f"{name}@{VERSIONS[0]}")
            moved = dataclasses.replace(
                first.card,
                version=VERSIONS[1],
                calibration=Curve(first.card.calibration.slope, first.card.calibration.intercept + SHIFTS[name]),
            )
            self.store.save(moved, first.network)

    def turn(self, number: int) -> None:
        """The change number `number`: one name at a time, round and round through all four sets."""
        name = NAMES[number % 2]
        active = self.store.pointer()[name]
        self.store.activate(name, VERSIONS[1 - VERSIONS.index(active)])

    def expected(self, pictures: Sequence[bytes]) -> dict[str, list[float]]:
        """P(fake) of each picture by the name of the set; asked alone, in this process."""
        media = [decode_image(picture) for picture in pictures]
        found = {}
        for number in range(4):
            alone = camo.load(self.camo, weights=self.root)
            found[alone.card.key] = [alone.predict([one])[0].p_fake for one in media]
            self.turn(number)
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: times in ``time.monotonic()`` seconds, what came back, and which set said so."""

    due: float
    done: float
    picture: int
    status: int
    p_fake: float | None
    named: str


@dataclass
class Run:
    """What was seen."""

    answers: list[Answer] = field(default_factory=list)
    swaps: list[tuple[float, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)


class Load:
    """Asks one miner for its opinion on a few pictures, again and again.

    Args:
        peer: the server.
        pictures: encoded.
        run: where answers go.
    """

    def __init__(self, peer: Peer, pictures: Sequence[bytes], run: Run) -> None:
        key = keys.from_uri("//Alice")
        self._requests = [Requests(key, peer.hotkey, picture) for picture in pictures]
        self._address = peer.address
        self._run = run
        self._idle: deque[Connection] = deque()
        self._turn = 0

    async def one(self, due: float) -> None:
        picture = self._turn = (self._turn + 1) % len(self._requests)
        loop = asyncio.get_running_loop()
        connection = self._idle.pop() if self._idle else None
        if connection is None or connection.transport.is_closing():
            _, connection = await loop.create_connection(Connection, *self._address)
        connection.answered = loop.create_future()
        connection.transport.write(self._requests[picture].make())
        response = await connection.answered
        self._idle.append(connection)
        self._run.answers.append(_read(response, due, picture))

    async def steady(self, rate: float, ended: asyncio.Event) -> None:
        """`rate` requests a second until `ended`, then the last answers."""
        sent: list[asyncio.Future[object]] = []
        second = 0
        while not ended.is_set():
            sent += await paced(self.one, rate, 1.0, seed=second)
            second += 1
        await asyncio.gather(*sent)
        for connection in self._idle:
            connection.transport.close()


def _read(response: bytes, due: float, picture: int) -> Answer:
    done, status = time.monotonic(), status_of(response)
    head, _, body = response.partition(b"\r\n\r\n")
    lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    headers = {name.lower(): value for name, _, value in lines}
    answer = read_answer("dendrite", status, headers, body) if status == 200 else None
    named = headers.get("x-weights", "").split(" ")[0]
    return Answer(due, done, picture, status, answer if isinstance(answer, float) else None, named)


async def swap(house: House, number: int, run: Run) -> None:
    """One change, until the miner says what became of it."""
    board = Noticeboard(house.root)
    began, since = time.monotonic(), time.time()
    house.turn(number)
    wanted = fingerprint(house.camo, house.root)
    while time.monotonic() < began + LONGEST_SWAP_S:
        said = [notice.said for notice in board.notices(TOPIC)]
        if any(one["serving"] == wanted for one in said):
            run.swaps.append((began, time.monotonic()))
            return
        reports = [one["report"] for one in said if one["report"] is not None]
        if any(r["at"] >= since and not r["accepted"] and r["wanted"] == wanted for r in reports):
            run.refused.append(str(reports[-1]["reason"]))
            return
        await asyncio.sleep(0.02)
    run.refused.append(f"no answer in {LONGEST_SWAP_S:.0f} s")


async def measure(peer: Peer, house: House, pictures: Sequence[bytes], options: argparse.Namespace) -> Run:
    """The swaps under load; the child's memory is looked at before each and after the last."""
    run, ended = Run(), asyncio.Event()
    load = asyncio.create_task(Load(peer, pictures, run).steady(options.rate, ended))
    await asyncio.sleep(options.gap)
    for number in range(options.swaps):
        run.rss_mib.append(resident_mib(peer.pid))
        await swap(house, number, run)
        await asyncio.sleep(options.gap)
    run.rss_mib.append(resident_mib(peer.pid))
    ended.set()
    await load
    return run


def _quantiles(answers: Sequence[Answer]) -> dict[str, float]:
    taken = [1e3 * (a.done - a.due) for a in answers]
    return {f"p{round(100 * q)}": round(float(np.quantile(taken, q)), 1) for q in (0.5, 0.9, 0.99)} if taken else {}


def report(run: Run, expected: dict[str, list[float]]) -> dict[str, Any]:
    """The figures, as data."""

    def during(answer: Answer) -> bool:
        return any(answer.due < end and answer.done > begin for begin, end in run.swaps)

    good = [a for a in run.answers if a.status == 200 and a.p_fake is not None]
    mixed = [
        a for a in good if a.named not in expected or abs((a.p_fake or 0.0) - expected[a.named][a.picture]) > MIXED
    ]
    inside, outside = [a for a in good if during(a)], [a for a in good if not during(a)]
    figures = {"during": _quantiles(inside), "outside": _quantiles(outside)}
    fifth = max(1, len(run.rss_mib) // 5)
    first, last = float(np.mean(run.rss_mib[1 : 1 + fifth])), float(np.mean(run.rss_mib[-fifth:]))
    pairs = itertools.combinations(expected.values(), 2)
    closest = min(abs(one - other) for a, b in pairs for one, other in zip(a, b, strict=True))
    return {
        "swaps": len(run.swaps),
        "refused": run.refused,
        "swap_s": {
            "median": round(float(np.median([b - a for a, b in run.swaps])), 2) if run.swaps else None,
            "most": round(max((b - a for a, b in run.swaps), default=0.0), 2),
        },
        "requests": len(run.answers),
        "failed": len(run.answers) - len(good),
        "statuses": dict(Counter(str(a.status) for a in run.answers)),
        "mixed": len(mixed),
        "sets_seen": len({a.named for a in good}),
        "least_difference_of_two_sets": round(closest, 4),
        "requests_during": len(inside),
        "latency_ms": figures,
        "p99_ratio": round(figures["during"]["p99"] / figures["outside"]["p99"], 2) if inside and outside else None,
        "rss_mib": {
            "first_fifth": round(first, 1),
            "last_fifth": round(last, 1),
            "drift": round(last / first - 1.0, 4),
            "most": round(max(run.rss_mib), 1),
        },
    }


def verdicts(figures: dict[str, Any], memory: bool) -> dict[str, bool]:
    """What was wanted, and whether it was reached."""
    wanted = {
        "no swap refused": not figures["refused"],
        "no request failed": figures["failed"] == 0,
        "no answer mixed": figures["mixed"] == 0 and figures["sets_seen"] > 1,
    }
    if memory:
        return {**wanted, f"RSS drift below {WANTED_DRIFT:.0%}": figures["rss_mib"]["drift"] < WANTED_DRIFT}
    ratio = figures["p99_ratio"]
    return {**wanted, f"p99 during at most {WANTED_RATIO} x outside": ratio is not None and ratio <= WANTED_RATIO}


def child(folder: Path, threads: int) -> None:
    """The server: the default CAMO of `folder`, swapped while it serves. Ends when its standard input is closed."""
    sys.stderr = (folder / "miner.log").open("w", encoding="utf-8")
    logs.configure("debug", "json")  # so that each answer says which weights gave it
    key = keys.from_uri("//Miner")
    if threads:
        torch.set_num_threads(threads)
    store, config = folder / "weights", folder / "camo.yaml"
    serving = fingerprint(config, store)
    live = LiveDetector(camo.load(config, weights=store))
    axon, blacklist = Axon(address_rate=1e6, address_burst=10**6), Blacklist(hotkey_rate=1e6, hotkey_burst=10**6)
    judge = Judge(live)
    app = miner.build(MinerSettings(offline=True, axon=axon, blacklist=blacklist), key, judge)
    board = Noticeboard(store)
    reloader = Reloader(live, camo=config, store=store, serving=serving, noticeboard=board, watch=changes)

    def ready(ip: str, port: int) -> None:
        line = {"event": "serving", "ip": ip, "port": port, "hotkey": key.ss58_address}
        sys.stdout.write(json.dumps({**line, "version": version("deepfake-miner")}) + "\n")
        sys.stdout.flush()

    def until_closed() -> None:
        while os.read(0, 64):  # not sys.stdin: its lock would outlive the interpreter
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=until_closed, daemon=True).start()
    server = Server(app, Listen(), ready)
    freeze_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(supervise(server.run_until_stopped(), server.stop, {"reload": reloader.run()}))
    board.withdraw()
    judge.close()


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, help="how many (20; with --memory 100)")
    parser.add_argument("--rate", type=float, help="requests a second (6; with --memory 2)")
    parser.add_argument("--gap", type=float, help="seconds between two swaps (3; with --memory 0.3)")
    parser.add_argument("--memory", action="store_true", help="judge what swaps leave behind, not latency")
    parser.add_argument("--threads", type=int, default=0, help="of an inference; 0 leaves them to torch")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "swap.json", help="where the figures go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    for name, usual, memory in (("swaps", 20, 100), ("rate", 6.0, 2.0), ("gap", 3.0, 0.3)):
        if getattr(options, name) is None:
            setattr(options, name, memory if options.memory else usual)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parsed(argv)
    if options.child is not None:
        child(options.child, options.threads)
        return 0
    began, load_before = time.monotonic(), os.getloadavg()[0]
    pictures = [still(seed) for seed in range(PICTURES)]
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        expected = house.expected(pictures)
        arguments = ("--child", folder, "--threads", str(options.threads))
        peer = start("swap", Path(sys.executable), "bench_swap.py", *arguments)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                run = runner.run(measure(peer, house, pictures, options))
        finally:
            stop(peer)
    figures = report(run, expected)
    checks = verdicts(figures, options.memory)
    whole = {
        "command": f"python scripts/bench_swap.py --swaps {options.swaps} --rate {options.rate:g} --gap {options.gap:g}"
        + (" --memory" if options.memory else ""),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load_average_before": round(load_before, 2),
        "took_s": round(time.monotonic() - began, 1),
        **figures,
        "rss_mib_after_each": [round(value, 1) for value in run.rss_mib],
        "checks": checks,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in whole.items() if k != "rss_mib_after_each"}, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
