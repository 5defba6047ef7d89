"""The process in which targets run; ended and started again by ``tests.fuzz.supervise``.

Takes one JSON object as its argument and writes one a line: the counts so far of the target at hand.
"""

from __future__ import annotations

import base64
import dataclasses
import faulthandler
import importlib
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from tests.fuzz.blackbox import BlackBox
from tests.fuzz.engine import Fuzzer, Target

_ROOM = 8 << 30  # of address space beyond what the modules take: more is refused by the system
_STEP_S = 0.5


def _state(fuzzer: Fuzzer, seconds: float, done: bool) -> dict[str, Any]:
    findings = [
        {**dataclasses.asdict(found), "data": base64.b64encode(found.data).decode()}
        for found in fuzzer.findings.values()
    ]
    return {
        "target": fuzzer.target.name,
        "inputs": fuzzer.inputs,
        "accepted": fuzzer.accepted,
        "refused": dict(fuzzer.refused),
        "slowest_ms": fuzzer.slowest_s * 1000,
        "peak_mb": fuzzer.peak_mb,
        "seconds": seconds,
        "findings": findings,
        "done": done,
    }


def _feed(target: Target, plan: dict[str, Any], box: BlackBox) -> None:
    fuzzer = Fuzzer(target, plan["seed"], before=lambda data: box.note(target.name, data))
    allowed = float(plan["seconds"][target.name])
    start = time.monotonic()
    while True:
        left = allowed - (time.monotonic() - start)
        room = int(plan["count"]) - fuzzer.inputs
        fuzzer.run(min(left, _STEP_S), room)
        box.clear()
        spent = time.monotonic() - start
        done = spent >= allowed or fuzzer.inputs >= int(plan["count"])
        print(json.dumps(_state(fuzzer, spent, done)), flush=True)
        if done:
            return


def main() -> None:
    """See the module's docstring."""
    plan = json.loads(sys.argv[1])
    module, _, attribute = plan["table"].partition(":")
    log = Path(plan["log"]).open("a", buffering=1)  # noqa: SIM115 - faulthandler writes to it at the very end
    table = {target.name: target for target in getattr(importlib.import_module(module), attribute)()}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff alone would write megabytes of complaints
    faulthandler.enable(log)
    warnings.simplefilter("ignore", ResourceWarning)
    box = BlackBox(Path(plan["box"]))
    for name in plan["seconds"]:
        try:
            _feed(table[name], plan, box)
        finally:
            table[name].close()
    box.close()


if __name__ == "__main__":
    main()
