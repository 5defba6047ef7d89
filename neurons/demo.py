"""The demo: the whole way of a challenge on this machine, without a network, in about a minute.

Our miner and a second one that merges by the plain maximum run as processes of their own, three stand-ins beside
them; all are asked the same signed challenges through real HTTP, one after the other, since they share the cores.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from detectors import paths
from detectors.errors import ConfigError
from detectors.yaml_file import read_yaml
from neurons.conduct import Job, conduct, finish, particulars, run_to_end, terminable
from neurons.demo_media import media_set
from neurons.explain import fair_threads, traces_of
from neurons.keys import create_throwaway
from neurons.ledger import profiles
from neurons.processes import miners
from neurons.simulation import Plan
from neurons.standins import serve_in_process, standins
from neurons.summary import About

__all__ = ["OURS", "max_merge", "run_demo"]

OURS, MAX = "camo", "max"


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
        threads = fair_threads()
        flags = {
            name: ("--neuron.camo", str(file), "--neuron.threads", str(threads))
            for name, file in ((OURS, config), (MAX, plain))
        }
        with contextlib.ExitStack() as serving:
            ready = serving.enter_context(miners(flags, wallets=scratch, logs=out))
            console.print("starting the miners, preparing the media …", highlight=False)
            media = media_set(data, scratch, seed)  # while the miners load their weights
            endpoints = ready()
            endpoints += serving.enter_context(serve_in_process(standins(seed), scratch))
            plan = Plan(tuple(endpoints), seed, chosen[0].answer, together=False)
            job = Job(plan, media, chosen, challenges, balanced=True, keep_payloads=True)
            title = f"{chosen[0].name} · seed {seed}"
            result = run_to_end(conduct(job, create_throwaway(scratch, "validator"), console, title))
        console.print("looking up the routes …", highlight=False)
        from detectors import camo  # noqa: PLC0415 - torch

        served = {OURS: camo.load(config, threads=threads), MAX: camo.load(plain, threads=threads)}
        traces, note = traces_of(result, served)
    about = About(
        seed=seed,
        data=media.description,
        smoke_test=data is None,
        reference=OURS,
        routes_note=note,
        skipped=result.skipped,
        run=particulars(started, time.perf_counter() - clock, command),
    )
    return finish(result, about, out, console, title=title, traces=traces)


def max_merge(config: Path, out: Path) -> Path:
    """Writes a copy of a ``camo.yaml`` with the original's merge, the plain maximum; gives `out`.

    Raises:
        ConfigError: `config` cannot be read or is no mapping.
    """
    try:
        settings = read_yaml(config)
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{config}: must hold a mapping such as `merge: learned`")
    out.write_text(yaml.safe_dump({**settings, "merge": "max"}, sort_keys=False), encoding="utf-8")
    return out
