# mypy: ignore-errors
"""The peer of the service benchmark: a real Axon of bittensor 10.5 with a trivial forward function.

Runs in the conformance environment, so it imports nothing of this project and its types are another bittensor's.
Prints one line of JSON when it serves.
"""

# No `from __future__ import annotations` here: the Axon needs the annotation of `forward` as a class, not as text.
import json
import os
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


def wallet_in(folder):
    """The wallet of `folder`, made where there is none."""
    wallet = bittensor.Wallet(name="bench", hotkey="bench", path=folder)
    if not wallet.hotkey_file.exists_on_device():
        wallet.create_new_hotkey(use_password=False, overwrite=True, suppress=True)
    return wallet


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def serve_until_closed(wallet, port, **attached):
    """An Axon with what `attach` takes, until standard input ends."""
    networking.get_external_ip = lambda: "127.0.0.1"  # the Axon looks it up at start and fails without a network
    sys.argv = sys.argv[:1]  # the Axon parses the process' arguments itself
    axon = bittensor.Axon(wallet=wallet, port=port, ip="127.0.0.1")
    axon.attach(**attached)
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
    # It logs every refusal to standard output, where nobody reads on: a full pipe would keep the lines in its memory.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    sys.stdin.read()  # until the benchmark closes it
    axon.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as wallets:
        serve_until_closed(wallet_in(wallets), free_port(), forward_fn=forward)
