"""Small media, detectors and servers for the tests of the mock validator."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import torch

from detectors import datasets, registry
from detectors.augment import draw
from detectors.card import Card, Preprocess
from detectors.datasets import Item
from detectors.store import Store
from detectors.types import Label, Media, Modality, Prediction
from neurons.challenges import Issued, MediaSet
from neurons.simulation import Exchange, Reply
from tests.detectors.fixtures_media import encoded, movie, photo, video_frames

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"  # //Alice


def media_folder(root: Path) -> Path:
    """Six real images (smooth), six fake ones (noise), two videos of each."""
    for k in range(6):
        _write(root / "real" / "smooth" / f"r{k}.jpg", encoded(photo(96, 96, seed=k), "JPEG"))
        noise = np.random.default_rng(k).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        label = "synthetic" if k % 2 else "semisynthetic"
        _write(root / label / "noise" / f"f{k}.jpg", encoded(noise, "JPEG"))
    for k in range(2):
        _write(root / "real" / "smooth" / f"v{k}.mp4", movie(video_frames(10, 64, 64)))
        frames = np.random.default_rng(k).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
        _write(root / "synthetic" / "noise" / f"w{k}.mp4", movie(frames))
    return root


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def media_set(root: Path) -> MediaSet:
    return MediaSet.of(datasets.read(media_folder(root)))


class Sleeper:
    """A detector that takes its time; with `seconds` 0 it says how rough the media is."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    @property
    def card(self) -> Card:
        return Card(name="sleeper", version="1.0.0", architecture="test")

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        time.sleep(self._seconds)
        return [Prediction(Prediction.split(self._roughness(media)), route=("roughness",)) for media in batch]

    @staticmethod
    def _roughness(media: Media) -> float:
        steps = np.abs(np.diff(media.frames[0].astype(np.float64), axis=1)).mean()
        return float(np.clip(steps / 20.0, 0.0, 1.0))


@contextlib.asynccontextmanager
async def raw_server(answer: bytes | None) -> AsyncIterator[str]:
    """A peer that reads a request and sends `answer` as it is, then closes; None never answers. Gives its URL."""
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            if answer is None:
                await stop.wait()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        stop.set()
        server.close()
        await server.wait_closed()


def exchange(
    index: int, label: Label, replies: dict[str, float | None], modality: Modality = "image", source: str = "source"
) -> Exchange:
    """An exchange without any network; None is silence. Replies take 10 ms."""
    item = Item(Path(f"/media/{source}/{index}.jpg"), modality, label, "", "", source, str(index))
    drawn = draw(np.random.default_rng(index), index % 4, (64, 64))
    issued = Issued(index, modality, label, item, index % 4, drawn, b"payload", 1, photo(8, 8))
    said = {name: Reply(p, 0.01, "" if p is not None else "timeout") for name, p in replies.items()}
    return Exchange(issued, f"{index:064x}", 7, said)


def camo_home(root: Path) -> Path:
    """``configs/camo.yaml`` and ``weights/`` with one small untrained expert: what DEEPFAKE_MINER_HOME points to."""
    torch.manual_seed(0)
    store = Store(root / "weights")
    card = Card(name="tiny", version="1.0.0", architecture="mobilenetv2", preprocess=Preprocess(size=64))
    store.save(card, registry.build(card))
    store.activate("tiny", "1.0.0")
    (root / "configs").mkdir()
    (root / "configs" / "camo.yaml").write_text("experts:\n  tiny: {weights: tiny}\n", encoding="utf-8")
    return root
