# mypy: ignore-errors
"""The peer of the service benchmark: a real Axon of bittensor 10.5 with a trivial forward function.

Runs in the conformance environment, so it imports nothing of this project and its types are another bittensor's.
Prints one line of JSON when it serves.
"""

# No `from __future__ import annotations` here: the Axon needs the annotation of `forward` as a class, not as text.
import json
import socket
import sys
import tempfile
import time

import bittensor
from bittensor.utils import networking


class ImageSynapse(bittensor.Synapse):
    testnet_label: int = -1
    image: str = ""
    prediction: float = -1.0


async def forward(synapse: ImageSynapse) -> ImageSynapse:
    synapse.prediction = 0.5
    return synapse


def main() -> None:
    networking.get_external_ip = lambda: "127.0.0.1"  # the Axon looks it up at start and fails without a network
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        wallet = bittensor.Wallet(name="bench", hotkey="bench", path=folder)
        wallet.create_new_hotkey(use_password=False, overwrite=True, suppress=True)
        axon = bittensor.Axon(wallet=wallet, port=port, ip="127.0.0.1")
        axon.attach(forward_fn=forward)
        axon.start()
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        ready = {"event": "serving", "ip": "127.0.0.1", "port": port, "hotkey": wallet.hotkey.ss58_address}
        sys.stdout.write(json.dumps({**ready, "version": bittensor.__version__}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()  # until the benchmark closes it
        axon.stop()


if __name__ == "__main__":
    sys.argv = sys.argv[:1]  # the Axon parses the process' arguments itself
    main()
