"""The real server, with a detector that answers a constant: three miners in one process, for the peers to talk to.

Prints ``[[port, hotkey], …]`` once all of them accept connections and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass

from neurons import access, keys, wire
from neurons.httpd import serving
from neurons.pipeline import Judge, TrivialDetector
from neurons.scheduler import Scheduler
from neurons.server import App, build_app

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


def app(hotkey: str) -> App:
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
        scheduler=Scheduler(Judge(TrivialDetector(PROBABILITIES))),
        hotkey=hotkey,
    )


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        ready = []
        for uri in MINERS:
            hotkey = keys.from_uri(uri).ss58_address
            _, port = await stack.enter_async_context(serving(app(hotkey)))
            ready.append([port, hotkey])
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
