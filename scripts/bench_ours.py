"""Our side of the service benchmark: the real server behind a judge that answers a constant and decodes no pixels.

Prints one line of JSON when it serves; ends when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neurons import keys, miner
from neurons.httpd import Listen, serve
from neurons.pipeline import TrivialJudge
from neurons.settings import Axon, Blacklist, MinerSettings


def main() -> None:
    key = keys.from_uri("//Miner")
    # One address and one key ask as fast as they can: every limit is looked at, none is reached.
    axon, blacklist = Axon(address_rate=1e6, address_burst=10**6), Blacklist(hotkey_rate=1e6, hotkey_burst=10**6)
    app = miner.build(MinerSettings(offline=True, axon=axon, blacklist=blacklist), key, TrivialJudge())

    def ready(ip: str, port: int) -> None:
        line = {"event": "serving", "ip": ip, "port": port, "hotkey": key.ss58_address}
        sys.stdout.write(json.dumps({**line, "version": version("deepfake-miner")}) + "\n")
        sys.stdout.flush()

    def until_closed() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=until_closed, daemon=True).start()
    serve(app, Listen(), ready)


if __name__ == "__main__":
    main()
