"""Stand-in miners: what a detector must beat. Real detectors without a look at the pixels, served over the real server.

``always-real`` and ``always-fake`` show what a constant answer earns, ``random`` what noise earns. They take the whole
way that an honest miner takes (signature, decoding, queue, encoding), so that their latency is that of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from detectors.card import Card
from detectors.types import Detector, Media, Prediction
from neurons.httpd import serving
from neurons.keys import Keypair, create_throwaway
from neurons.miner import build
from neurons.pipeline import Judge
from neurons.settings import MinerSettings
from neurons.simulation import Endpoint

__all__ = ["STANDINS", "Constant", "Random", "serve_in_process", "standins"]

_START_S = 30.0


class Constant:
    """Gives every media the same probability.

    Args:
        name: what the card calls it.
        p_fake: in [0, 1].
    """

    def __init__(self, name: str, p_fake: float) -> None:
        self._name = name
        self._prediction = Prediction(Prediction.split(p_fake), route=(name,))

    @property
    def card(self) -> Card:
        return Card(name=self._name, version="1.0.0", architecture="stand-in", provenance="looks at nothing")

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """One constant per media; `deadline` is always kept."""
        return [self._prediction for _ in batch]


class Random:
    """Gives a uniform P(fake) that depends on the seed and the pixels only.

    Drawing from the pixels' hash instead of a running generator keeps the answer the same whatever the order and the
    batches in which challenges arrive.

    Args:
        seed: of the draw.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @property
    def card(self) -> Card:
        return Card(name="random", version="1.0.0", architecture="stand-in", provenance="looks at nothing")

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """One draw per media; `deadline` is always kept."""
        return [Prediction(Prediction.split(self._draw(media)), route=("random",)) for media in batch]

    def _draw(self, media: Media) -> float:
        digest = hashlib.blake2b(media.pixels.tobytes(), key=str(self._seed).encode()[:64], digest_size=8).digest()
        return random.Random(digest).random()  # noqa: S311 - a stand-in, not a secret


STANDINS = MappingProxyType({"always-real": 0.0, "always-fake": 1.0, "random": None})
"""The names, in the order of reports; the value is the constant, None draws."""


def standins(seed: int) -> dict[str, Detector]:
    """The three stand-ins by name; `seed` is that of ``random``."""
    return {name: Random(seed) if p is None else Constant(name, p) for name, p in STANDINS.items()}


@contextlib.contextmanager
def serve_in_process(
    detectors: Mapping[str, Detector], wallets: Path, wire: str = "dendrite"
) -> Iterator[list[Endpoint]]:
    """Serves each detector as an offline miner on a free loopback port for as long as the block lasts.

    The servers share one thread with its own event loop: whoever asks them does not time its own work with theirs,
    and the process' signals stay with its main thread.

    Args:
        detectors: by the name that the endpoint gets.
        wallets: folder for their throw-away hotkeys.
        wire: what the endpoints are to be asked in; the servers speak all of them.

    Raises:
        ConfigError: the wallets cannot be written.
        OSError: no port can be bound.
    """
    keys = {name: create_throwaway(wallets, name) for name in detectors}
    host = _Host(detectors, keys)
    try:
        addresses = host.start()
        yield [
            Endpoint(name, f"http://{ip}:{port}", keys[name].ss58_address, wire)
            for name, (ip, port) in addresses.items()
        ]
    finally:
        host.stop()


class _Host:
    """The thread in which in-process miners live."""

    def __init__(self, detectors: Mapping[str, Detector], keys: Mapping[str, Keypair]) -> None:
        self._detectors = detectors
        self._keys = keys
        self._addresses: dict[str, tuple[str, int]] = {}
        self._error: OSError | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="stand-ins", daemon=True)

    def start(self) -> dict[str, tuple[str, int]]:
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise OSError(f"the in-process miners did not start within {_START_S:g} s")
        if self._error is not None:
            raise self._error
        return self._addresses

    def stop(self) -> None:
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        if self._thread.ident is not None:
            self._thread.join(_START_S)

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for name, detector in self._detectors.items():
                    judge = Judge(detector, decode_threads=1)
                    stack.callback(judge.close)
                    app = build(MinerSettings(offline=True), self._keys[name], judge)
                    self._addresses[name] = await stack.enter_async_context(serving(app))
                self._ready.set()
                await self._end.wait()
        except OSError as error:
            self._error = error
        finally:
            self._ready.set()
