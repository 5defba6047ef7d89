"""A console over a small real store, real weights and a memory that tests fill by hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import torch

from detectors import registry
from detectors.card import Card, Preprocess
from detectors.heatmap import HeatMap
from detectors.store import Store
from detectors.types import U8, Detector, Media, Modality, Prediction
from neurons.console.app import create_app
from neurons.console.bridge import F32, Explainer, Ops
from neurons.console.serve import ConsoleServer, serve_console
from neurons.operations import Health, ShadowPlan, ShadowReport, SwapReport
from neurons.recent import Recent
from neurons.seen import Seen
from neurons.wire.base import Challenge

__all__ = [
    "HOTKEY",
    "MOST",
    "TOKEN",
    "Bench",
    "Clock",
    "analyse",
    "bench",
    "csrf_of",
    "judged",
    "prediction",
    "press",
    "secret",
    "seen",
    "store",
]

TOKEN = "a-token-of-the-tests-and-of-nothing-else-0"
MOST = 200_000
"""Largest upload of the console of :func:`home`."""
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"  # //Alice


def store(root: Path) -> Store:
    """``tiny`` in two versions, of which 1.0.0 is active."""
    found = Store(root)
    for version in ("1.0.0", "2.0.0"):
        torch.manual_seed(int(version[0]))
        card = Card(name="tiny", version=version, architecture="mobilenetv2", preprocess=Preprocess(size=32))
        found.save(card, registry.build(card))
    found.activate("tiny", "1.0.0")
    return found


def prediction(p_fake: float = 0.75, **more: Any) -> Prediction:
    """What one expert, ``general``, could have said."""
    values: dict[str, Any] = {
        "route": ("general", "merge:learned"),
        "experts": {"general": p_fake},
        "weights": {"general": "tiny@1.0.0"},
        "detector": "camo@0123456789ab",
        "stages": {"decode": 1.0, "general": 9.0, "merge": 0.1},
        "milliseconds": 10.5,
    }
    return Prediction(Prediction.split(p_fake), **{**values, **more})


def seen(name: str = "x-1", **more: Any) -> Seen:
    """An image of a validator, answered in 12 ms."""
    values: dict[str, Any] = {
        "at": time.time(),
        "path": "/ImageSynapse",
        "wire": "dendrite",
        "hotkey": HOTKEY,
        "tier": "validator",
        "modality": "image",
        "outcome": "answered",
        "status": 200,
        "seconds": 0.012,
        "prediction": prediction(),
    }
    return Seen(id=name, **{**values, **more})


def judged(name: str, media: Media) -> tuple[Challenge, Media, Prediction]:
    """What the pipeline shows a watcher."""
    modality: Modality = media.modality
    encoding: Literal["image", "jpeg-frames"] = "image" if modality == "image" else "jpeg-frames"
    return Challenge(modality, b"", encoding, "float", id=name), media, prediction()


class RecordedReloads:
    """Counts looks, and says of each what `outcome` says."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.looks = 0
        self.reports: list[SwapReport] = []
        self.reason = ""

    @property
    def store(self) -> Path:
        return self._root

    def look(self) -> None:
        self.looks += 1
        now = Store(self._root).card("tiny").key
        taken = not self.reason
        after = now if taken else "tiny@1.0.0"
        stage: Any = "done" if taken else "golden"
        self.reports.append(SwapReport(time.time(), taken, stage, self.reason, "digest", "tiny@1.0.0", after, {}, 0.2))


class RecordedShadows:
    """Keeps the plan it was given."""

    def __init__(self) -> None:
        self.current: ShadowReport | None = None

    def start(self, plan: ShadowPlan) -> None:
        self.current = ShadowReport(plan, "running", judged=7, agreement=0.875, labelled=3)

    def stop(self) -> None:
        if self.current is not None:
            self.current = replace(self.current, state="stopped")

    def report(self) -> ShadowReport | None:
        return self.current


def explainer() -> Explainer:
    """Says that the left half of every picture is fake, in red."""

    def explain(
        detector: Detector, media: Media, *, size: tuple[int, int] | None = None, prediction: Prediction | None = None
    ) -> HeatMap:
        assert size is not None
        assert prediction is not None
        count = 1 if media.modality == "image" else 4
        maps = np.zeros((count, *size), np.float32)
        maps[:, :, : size[1] // 2] = 1.0
        left_out = {"clip": "it saw no <frame>"}
        return HeatMap(maps, tuple(range(count)), (prediction.p_fake,) * count, {}, left_out, prediction)

    def overlay(pixels: U8, found: F32) -> U8:
        out = pixels.copy()
        assert found.shape == pixels.shape[:2]
        out[..., 0] = np.where(found > 0.5, 255, out[..., 0])
        return out

    def strip(frames: U8, maps: F32, scores: Sequence[float]) -> U8:
        assert len(frames) == len(maps) == len(scores)
        return np.concatenate([overlay(frame, one) for frame, one in zip(frames, maps, strict=True)], axis=1)

    return Explainer(explain, overlay, strip)


class Clock:
    """Of sessions and attempts to sign in."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """All that a test of the console touches."""

    store: Store
    recent: Recent
    reloads: RecordedReloads
    shadows: RecordedShadows
    clock: Clock = field(default_factory=Clock)
    server: ConsoleServer = field(init=False)
    problems: list[str] = field(default_factory=list)
    serving: bool = True

    @property
    def url(self) -> str:
        return self.server.url

    @contextlib.contextmanager
    def signed_in(self) -> Iterator[tuple[httpx.Client, str]]:
        """A client with a session, and the secret that its forms carry."""
        self.clock.now += 60.0  # whatever was tried before is forgotten
        with httpx.Client(base_url=self.url, trust_env=False, verify=False) as client:
            client.post("/login", data={"token": TOKEN})
            yield client, csrf_of(client.get("/analyse").text)

    def health(self) -> Health:
        key = self.store.card("tiny").key
        return Health(
            self.serving, 125.0, 12.0, 0, 1, 300 << 20, "camo@0123456789ab", {"general": key}, tuple(self.problems)
        )


@contextlib.contextmanager
def bench(
    root: Path, *, detector: Detector | None = None, thumbnails: int = 8, with_maps: bool = True, **options: Any
) -> Iterator[Bench]:
    """A console that listens on a free port of loopback for as long as the block lasts.

    Args:
        root: folder for the store.
        detector: that analyses; None takes the store's own ``tiny``.
        thumbnails: pictures kept.
        with_maps: whether it draws heat maps.
        options: further ones of :class:`Ops`.
    """
    found = store(root)
    recent = Recent(thumbnails)
    reloads, shadows = RecordedReloads(root), RecordedShadows()
    made = Bench(found, recent, reloads, shadows)
    ops = Ops(
        recent=recent,
        detector=detector or found.load("tiny"),
        store=root,
        health=made.health,
        **{
            "reloads": reloads,
            "shadows": shadows,
            "explainer": explainer() if with_maps else None,
            "facts": {"network": "test"},
            **options,
        },
    )
    made.server = serve_console(create_app(ops, TOKEN, clock=made.clock), "127.0.0.1", 0)
    try:
        yield made
    finally:
        made.server.close()
        recent.close()


def csrf_of(page: str) -> str:
    """The secret that the forms of a page carry."""
    return page.partition('name="csrf" value="')[2].partition('"')[0]


def secret(client: httpx.Client) -> str:
    """That its forms carry."""
    return client.headers["x-test-csrf"]


def press(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Sends a form and follows to the page that it leads to."""
    return client.post(path, data={"csrf": secret(client), **fields}, follow_redirects=True)


def analyse(client: httpx.Client, data: bytes, name: str = "x.jpg", **headers: str) -> httpx.Response:
    """Sends a file."""
    return client.post("/analyse", data={"csrf": secret(client)}, files={"file": (name, data)}, headers=headers)
