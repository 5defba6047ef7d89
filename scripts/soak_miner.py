"""The miner of ``make soak`` and ``make chaos``: the real one, registered on a chain in memory that can be taken away.

``python scripts/soak_miner.py SS58,SS58 FLAGS``: the validators of the subnet, then the miner's own flags. Only the
connection to the chain is replaced, at the seam that :func:`neurons.miner.main` has for it; everything else, the SDK's
client included, is what an operator runs. Standard input takes ``up``, ``down`` (calls fail) and ``hang`` (calls do
not return), each confirmed by a line of JSON; at its end the miner shuts down, so that it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neurons import miner
from neurons.chain import Chain
from neurons.settings import MinerSettings

STATES = ("up", "down", "hang")


class Switch:
    """Whether the chain is there; the reader of standard input moves it."""

    def __init__(self) -> None:
        self.state = "up"

    def fault(self, _operation: str) -> bool:
        """What :class:`FakeSubstrate` asks before each operation."""
        from bittensor.result import RpcConnectionError  # noqa: PLC0415 - the process' start is measured

        if self.state == "down":
            raise RpcConnectionError("the chain was taken away")
        return self.state == "hang"

    def obey(self) -> None:
        """Reads commands until the end of the input, then asks this process to stop."""
        # Not sys.stdin: a thread that sits in its lock while the interpreter ends would abort the process.
        while command := os.read(0, 64):
            words = command.decode().split()
            self.state = words[-1] if words and words[-1] in STATES else self.state
            sys.stdout.write(json.dumps({"event": "chain", "state": self.state}) + "\n")
            sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    validators, flags = sys.argv[1].split(","), sys.argv[2:]
    switch = Switch()
    threading.Thread(target=switch.obey, name="switch", daemon=True).start()

    def chain(settings: MinerSettings, hotkey: str) -> Chain:
        from tests.neurons.fake_substrate import FakeSubstrate, Row, client  # noqa: PLC0415

        shares = (validator.partition("=") for validator in validators)
        rows = [*(Row(name, True, float(stake or 1000.0)) for name, _, stake in shares), Row(hotkey)]
        substrate = FakeSubstrate(rows, step=1, fault=switch.fault)
        timeout_s = settings.subtensor.timeout_s
        return Chain(client(substrate), netuid=settings.netuid, hotkey=hotkey, timeout_s=timeout_s)

    return miner.main(flags, chains=chain)


if __name__ == "__main__":
    miner.leave(main())
