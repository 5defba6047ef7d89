"""Where a request's processor time goes: each step of the Dendrite wire alone, on the benchmark's own requests.

``python scripts/bench_steps.py`` prints microseconds a request, the least of several repetitions.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import orjson
from rich.console import Console
from rich.table import Table

from detectors.types import Prediction
from neurons import keys, wire
from neurons.wire.base import Request
from neurons.wire.encoding import decode_base64, parse_object
from scripts.bench_load import Requests
from scripts.bench_serve import IMAGE_BYTES


def parsed(raw: bytes) -> Request:
    """A request as the server hands it to the wire."""
    head, body = raw.split(b"\r\n\r\n", 1)
    lines = (line.split(": ", 1) for line in head.decode("ascii").split("\r\n")[1:])
    return Request("POST", "/ImageSynapse", {name.lower(): value for name, value in lines}, body, time.time_ns())


def least(step: Callable[[Request], object], requests: Sequence[Request], repetitions: int = 5) -> float:
    """Microseconds of processor time a request."""
    share = len(requests) // repetitions
    times = []
    for start in range(0, share * repetitions, share):
        part = requests[start : start + share]
        before = time.process_time()
        for request in part:
            step(request)
        times.append((time.process_time() - before) / share)
    return 1e6 * min(times)


def main() -> int:
    caller, receiver = keys.from_uri("//Alice"), keys.from_uri("//Miner")
    make = Requests(caller, receiver.ss58_address, os.urandom(IMAGE_BYTES)).make
    dendrite = wire.build(receiver.ss58_address)["dendrite"]
    requests = [parsed(make()) for _ in range(500)]
    text = orjson.loads(requests[0].body)["image"]
    assert len(base64.b64decode(text)) == IMAGE_BYTES
    challenge = dendrite.decode(requests[0])
    prediction = Prediction((0.5, 0.5, 0.0))
    steps: dict[str, Callable[[Request], object]] = {
        "verify (headers, freshness, signature, replay)": dendrite.verify,
        "decode (all of it)": dendrite.decode,
        "… bounded JSON": lambda request: parse_object(request.body),
        "… JSON without its bound": lambda request: orjson.loads(request.body),
        "… base64": lambda request: decode_base64(text),
        "encode": lambda request: dendrite.encode(prediction, challenge, request, 0.01),
    }
    shown = Table(title=f"Dendrite wire, {IMAGE_BYTES // 1000} KB image")
    shown.add_column("step")
    shown.add_column("µs CPU", justify="right")
    for name, step in steps.items():
        shown.add_row(name, f"{least(step, requests):.0f}")
    Console(width=None if sys.stdout.isatty() else 100).print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
