"""The demo: the whole way of a challenge on this machine, without a network, in about a minute.

Our miner and a second one that merges by the plain maximum run as processes of their own, three stand-ins beside
them; all are asked the same signed challenges through real HTTP, one after the other, since they share the cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from rich.console import Console

from detectors import datasets, paths
from detectors.errors import ConfigError, DetectorError
from detectors.types import Detector, Prediction
from neurons.challenges import Issued, MediaSet
from neurons.conduct import Job, Result, conduct, particulars, publish, show, terminable
from neurons.keys import create_throwaway
from neurons.ledger import profiles
from neurons.pipeline import Judge
from neurons.processes import miners
from neurons.simulation import Plan
from neurons.standins import serve_in_process, standins
from neurons.summary import About, Trace
from neurons.wire.base import Challenge

__all__ = ["OURS", "explain", "max_merge", "run_demo"]

OURS, MAX = "camo", "max"

_SAME = 1e-3  # two runs of one network on one input differ by less, whatever the batch and the threads


def run_demo(
    out: Path,
    *,
    challenges: int = 60,
    seed: int = 0,
    data: Path | None = None,
    profile: str = "sn34-2.0",
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> Path:
    """Runs the demo and writes ``report.json`` and ``report.html``.

    Args:
        out: folder of the reports and the miners' logs; made where it is missing.
        challenges: how many, half of them real.
        seed: of media, challenges and stand-ins; not negative.
        data: folder with ``real/ synthetic/ semisynthetic/`` or a manifest; None takes the project's demo media.
        profile: who pays, see ``neurons.rewards.PROFILES``.
        console: for progress and tables; None takes standard output.
        command: the words that repeat the run, for the report; None takes this process' own.

    Returns:
        Path of ``report.json``.

    Raises:
        ConfigError: an argument or the data is not usable.
        MinerFailed: a miner did not come up.
    """
    console = console or Console()
    if challenges < 1 or seed < 0:
        raise ConfigError(f"challenges must be at least 1 and seed not negative, not {challenges} and {seed}")
    chosen = profiles([profile])
    out.mkdir(parents=True, exist_ok=True)
    started, clock = time.time(), time.perf_counter()
    config = paths.configs() / "camo.yaml"
    with terminable(), contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-miner-demo-")))
        plain = max_merge(config, scratch / "camo-max.yaml")
        threads = _threads()
        flags = {
            name: ("--neuron.camo", str(file), "--neuron.threads", str(threads))
            for name, file in ((OURS, config), (MAX, plain))
        }
        with contextlib.ExitStack() as serving:
            ready = serving.enter_context(miners(flags, wallets=scratch, logs=out))
            media = _media(scratch, data, seed, console)  # while the miners load their weights
            endpoints = ready()
            endpoints += serving.enter_context(serve_in_process(standins(seed), scratch))
            plan = Plan(tuple(endpoints), seed, chosen[0].answer, together=False)
            job = Job(plan, media, chosen, challenges, balanced=True, keep_payloads=True)
            title = f"{chosen[0].name} · seed {seed}"
            result = asyncio.run(conduct(job, create_throwaway(scratch, "validator"), console, title))
        console.print("looking up the routes …", highlight=False)
        traces, note = _traces(result, {OURS: config, MAX: plain})
    about = About(
        seed=seed,
        data=media.description,
        smoke_test=data is None,
        reference=OURS,
        routes_note=note,
        skipped=result.skipped,
        run=particulars(started, time.perf_counter() - clock, command),
    )
    report, path = publish(result, about, out, traces)
    show(console, result, {name: m["routes"] for name, m in report["miners"].items()}, title)
    if report["data"]["note"]:
        console.print(report["data"]["note"], style="yellow", highlight=False)
    console.print(f"report: {path.with_suffix('.html')} and {path}", soft_wrap=True, highlight=False)
    return path


def _media(scratch: Path, data: Path | None, seed: int, console: Console) -> MediaSet:
    if data is not None:
        return MediaSet.of(datasets.read(data))
    from neurons import demo_media  # noqa: PLC0415 - makes pictures; not needed with data of one's own

    console.print("starting the miners, making the demo's media …", highlight=False)
    dataset = datasets.read(demo_media.build(scratch / "media", seed=seed))
    return MediaSet(dataset.items, f"{demo_media.DESCRIPTION} ({dataset.description})")


def max_merge(config: Path, out: Path) -> Path:
    """Writes a copy of a ``camo.yaml`` with the original's merge, the plain maximum; gives `out`.

    Raises:
        ConfigError: `config` cannot be read or is no mapping.
    """
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: not readable: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{config}: must hold a mapping such as `merge: learned`")
    out.write_text(yaml.safe_dump({**settings, "merge": "max"}, sort_keys=False), encoding="utf-8")
    return out


def _traces(result: Result, configs: Mapping[str, Path]) -> tuple[dict[str, dict[int, Trace]], str]:
    """Routes of both miners, and the sentence that says where they are from."""
    from detectors import camo  # noqa: PLC0415 - torch

    detectors = [camo.load(config, threads=_threads()) for config in configs.values()]
    with ThreadPoolExecutor(len(detectors)) as pool:
        predictions = list(pool.map(lambda detector: explain(detector, result.issued), detectors))
    traces, same, every = {}, 0, 0
    for name, found in zip(configs, predictions, strict=True):
        traces[name] = {index: Trace(p.route, p.experts) for index, p in found.items()}
        for exchange in result.ledger.exchanges:
            reply, again = exchange.replies[name], found.get(exchange.issued.index)
            if reply.answer is not None and again is not None:
                every += 1
                same += abs(reply.p_fake - again.p_fake) < _SAME
    note = (
        "No wire carries a route. Routes and expert scores were looked up afterwards by judging the same challenges "
        f"once more in the demo's own process; {same} of {every} answers came out the same as over the wire."
    )
    return traces, note


def _threads() -> int:
    """Torch's threads in one process: two miners and the validator share the cores, and torch's spin while they wait."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def explain(detector: Detector, challenges: Mapping[int, Issued]) -> dict[int, Prediction]:
    """Judges challenges once more, through the miner's own decoding, without a server.

    Args:
        detector: the one that the miner serves.
        challenges: by index, payloads included.

    Returns:
        By index; a challenge that cannot be judged is left out.
    """
    judge = Judge(detector, decode_threads=1)
    found: dict[int, Prediction] = {}
    try:
        for index, issued in challenges.items():
            if issued.modality == "image":
                challenge = Challenge("image", issued.payload, "image", "vector")
            else:
                challenge = Challenge("video", issued.payload, "jpeg-frames", "vector")
            outcome = judge.judge([challenge], None)[0]
            if not isinstance(outcome, DetectorError):
                found[index] = outcome
    finally:
        judge.close()
    return found
