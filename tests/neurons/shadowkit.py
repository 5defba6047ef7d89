"""A store of one small expert in several versions, a camo.yaml over it, and a miner's judge with a shadow beside it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from detectors import camo_load
from detectors.camo import Camo
from detectors.experts.base import Architecture
from detectors.media import encode_jpeg
from detectors.store import Store
from detectors.types import U8
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowReport
from neurons.pipeline import Judge, Outcome
from neurons.shadow import Shadow
from neurons.wire.base import Challenge
from tests.detectors.experts.variants import small_card, small_network

CAMO = """
experts:
  general: {weights: general, budget_ms: 5}
"""
PICTURES = 24
HEAD = "backbone.last_linear"


def picture(seed: int) -> U8:
    """Noise of its own brightness and contrast, ``uint8 [64, 64, 3]``."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(rng.uniform(40, 215), rng.uniform(5, 60), (64, 64, 3)), 0, 255).astype(np.uint8)


def challenge(seed: int, label: int | None = None) -> Challenge:
    return Challenge("image", encode_jpeg(picture(seed)), "image", "float", testnet_label=label, id=f"t-{seed}")


def _network() -> Architecture:
    """Says fake of about half of the pictures; nothing is certain."""
    network = small_network("xception")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        network.get_parameter(f"{HEAD}.bias").zero_()
    return network


def build_store(root: Path) -> Path:
    """``general`` 1 (active), 2 (the same weights), 3 (says of everything the opposite); ``other`` 1, which no
    configuration names, active, and 2. Returns the store; camo.yaml lies beside it."""
    store = Store(root / "weights")
    network = _network()
    card = dataclasses.replace(small_card("xception"), name="general", version="1")
    store.save(card, network)
    logits = store.load("general@1").logits([picture(seed) for seed in range(PICTURES)])
    centre, spread = float(np.median(logits)), float(np.std(logits))
    with torch.no_grad():
        weight, bias = network.get_parameter(f"{HEAD}.weight"), network.get_parameter(f"{HEAD}.bias")
        bias[card.fake_index] -= centre
        weight.div_(spread)
        bias.div_(spread)
        store.save(card, network, overwrite=True)
        store.save(dataclasses.replace(card, version="2"), network)
        weight.neg_()
        bias.neg_()
        store.save(dataclasses.replace(card, version="3"), network)
    for version in ("1", "2"):
        store.save(dataclasses.replace(card, name="other", version=version), network)
    store.activate("general", "1")
    store.activate("other", "1")
    (root / "camo.yaml").write_text(CAMO, encoding="utf-8")
    return store.root


def forge(store: Path, version: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """``general@VERSION`` from the active weights, changed, with the hash of what was written in its card."""
    tensors = safetensors.torch.load((store / "general-1.safetensors").read_bytes())
    change(tensors)
    data = safetensors.torch.save(tensors)
    (store / f"general-{version}.safetensors").write_bytes(data)
    card = json.loads((store / "general-1.json").read_text(encoding="utf-8"))
    card |= {"version": version, "sha256": hashlib.sha256(data).hexdigest()}
    (store / f"general-{version}.json").write_text(json.dumps(card), encoding="utf-8")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Busy:
    """Whether there is live work; remembers how often it was asked while there was."""

    def __init__(self) -> None:
        self.free_for: int | None = None
        self.refused = 0
        self._held = threading.Event()

    def hold(self, after: int = 0) -> None:
        """Busy from the `after`-th look on."""
        self.refused, self.free_for = 0, after

    def release(self) -> None:
        self.free_for = None

    def __call__(self) -> bool:
        left = self.free_for
        if left is None:
            return False
        if left > 0:
            self.free_for = left - 1
            return False
        self.refused += 1
        return True


@dataclass
class Rig:
    """A judge of the active weights with a shadow that watches it."""

    store: Path
    detector: Camo
    judge: Judge
    shadow: Shadow
    busy: Busy
    clock: Clock
    board: Noticeboard

    def ask(self, *challenges: Challenge) -> list[Outcome]:
        return self.judge.judge(challenges, None)

    def feed(self, challenges: Sequence[Challenge]) -> ShadowReport:
        """Asks one by one, each when the shadow is through with the one before; the report after the last."""
        for sent in challenges:
            before = self.report.judged
            self.ask(sent)
            wait_for(functools.partial(self._is_past, before))
        return self.report

    def _is_past(self, judged: int) -> bool:
        return self.report.judged > judged or self.report.state != "running"

    @property
    def report(self) -> ShadowReport:
        found = self.shadow.report()
        assert found is not None
        return found

    def settled(self, *states: str) -> ShadowReport:
        """The report once it is in one of `states`."""
        wait_for(lambda: self.report.state in states)
        return self.report

    def close(self) -> None:
        self.busy.release()
        self.shadow.close()
        self.judge.close()


def rig(folder: Path, source: Path) -> Rig:
    """A rig on a copy of the store at `source`."""
    store = folder / "weights"
    shutil.copytree(source, store)
    camo = folder / "camo.yaml"
    camo.write_text(CAMO, encoding="utf-8")
    detector = camo_load.load(camo, weights=store)
    busy, clock, board = Busy(), Clock(), Noticeboard(store)
    shadow = Shadow(
        detector,
        store=store,
        camo=camo,
        device="cpu",
        busy=busy,
        noticeboard=board,
        activate=Store(store).activate,
        clock=clock,
    )
    judge = Judge(detector, decode_threads=1, watchers=[shadow.judged])
    return Rig(store, detector, judge, shadow, busy, clock, board)


def wait_for(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns as soon as `holds`; what it waits for happens in another thread."""
    tick, end = threading.Event(), time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        tick.wait(0.002)
