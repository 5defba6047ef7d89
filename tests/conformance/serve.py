"""The real server, with a detector that answers a constant: three miners in one process, for the peers to talk to.

Prints ``[[port, hotkey], …]`` once all of them accept connections and ends when its standard input is closed. With
``storm`` as its argument the constant comes from networks of a store whose versions are exchanged without a pause, by
the miner's own means; then it prints ``[swaps, refused ones, versions that answered]`` at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from detectors.live import LiveDetector
from detectors.types import Detector
from neurons import access, keys, wire
from neurons.httpd import serving
from neurons.pipeline import Judge, Judged, TrivialDetector
from neurons.reload import Reloader, changes
from neurons.scheduler import Scheduler
from neurons.server import App, build_app
from tests.detectors.fixtures_store import CONFIG, House, network

__all__ = ["PROBABILITIES", "Miner"]

PROBABILITIES = (0.25, 0.5, 0.25)
MINERS = ("//Bob", "//Charlie", "//Dave")


@dataclass(frozen=True)
class Miner:
    """Where one miner listens, and as whom."""

    port: int
    hotkey: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Storm:
    """Two versions of everything that take each other's place for as long as it is served.

    Args:
        folder: for the store.
    """

    def __init__(self, folder: Path) -> None:
        self.house = House(folder)
        constant = network(0)
        with torch.no_grad():
            for parameter in constant.parameters():
                parameter.zero_()
            constant.get_parameter("head.2.bias")[0] = math.log(3)  # P(fake) = 0.75, whatever the picture
        for name in ("one", "two"):
            for version in ("1", "2"):
                self.house.store.save(self.house.card(name, version), constant, overwrite=True)
        self.house.camo.write_text(f"{CONFIG}semisynthetic: {{general: {1 / 3}, content: {1 / 3}}}\n")
        self.live = LiveDetector(self.house.load())
        self.answered: set[str] = set()
        self._reloader = Reloader(
            self.live,
            camo=self.house.camo,
            store=self.house.root,
            poll_s=0.5,
            settle_s=0.01,
            watch=changes,
            step_back=lambda: None,  # with other tests beside it, the last in line would hardly swap at all
        )
        self._reloader.listeners.append(lambda _: self._flip())
        self._flips = 0
        self._reports: list[bool] = []

    def judged(self, batch: Sequence[Judged]) -> None:
        """Notes what answered."""
        self.answered |= {prediction.detector for _, _, prediction in batch}

    def _flip(self) -> None:
        self._reports += [self._reloader.reports[-1].accepted] if self._reloader.reports else []
        self._flips += 1
        name = "one" if self._flips % 2 else "two"
        self.house.store.activate(name, "1" if self.house.store.pointer()[name] == "2" else "2")
        self._reloader.look()

    async def run(self) -> None:
        """Until it is cancelled."""
        self._flip()
        await self._reloader.run()

    def told(self) -> list[int]:
        """Swaps, refused ones, versions of the whole that answered."""
        return [len(self._reports), self._reports.count(False), len(self.answered)]


def app(hotkey: str, judge: Judge) -> App:
    """One miner; the media is really decoded."""
    rules = access.AccessRules(
        force_validator_permit=True,
        allow_non_registered=False,
        min_stake=0.0,
        allow=frozenset(),
        deny=frozenset({keys.from_uri("//Eve").ss58_address}),
        offline=True,
    )
    return build_app(
        wires=wire.build(hotkey),
        access=lambda hotkey: access.decide(hotkey, None, rules),
        scheduler=Scheduler(judge),
        hotkey=hotkey,
    )


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        storm = None
        if "storm" in sys.argv:
            storm = Storm(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        detector: Detector = TrivialDetector(PROBABILITIES) if storm is None else storm.live
        ready = []
        for uri in MINERS:
            hotkey = keys.from_uri(uri).ss58_address
            judge = Judge(detector, watchers=() if storm is None else (storm.judged,))
            _, port = await stack.enter_async_context(serving(app(hotkey, judge)))
            ready.append([port, hotkey])
        print(json.dumps(ready), flush=True)
        blowing = None if storm is None else asyncio.create_task(storm.run())
        await asyncio.to_thread(sys.stdin.read)
        if storm is not None and blowing is not None:
            blowing.cancel()
            await asyncio.gather(blowing, return_exceptions=True)
            print(json.dumps(storm.told()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
