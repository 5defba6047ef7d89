"""Our side of the service benchmark: the real server behind a judge that answers a constant and decodes no pixels.

With everything that a miner does beside answering: a line of the log for each answer, written to nowhere, and metrics.

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

from neurons import keys, logs, miner
from neurons.httpd import Listen, serve
from neurons.pipeline import TrivialJudge
from neurons.settings import Axon, Blacklist, MinerSettings
from neurons.telemetry import Metrics


def main() -> None:
    key = keys.from_uri("//Miner")
    # One address and one key ask as fast as they can: every limit is looked at, none is reached.
    axon, blacklist = Axon(address_rate=1e6, address_burst=10**6), Blacklist(hotkey_rate=1e6, hotkey_burst=10**6)
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    logs.configure("info", "json")
    settings = MinerSettings(offline=True, axon=axon, blacklist=blacklist)
    app = miner.build(settings, key, TrivialJudge(), observers=(Metrics().observe,))

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
