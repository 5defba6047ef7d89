"""Entry of the miner: ``python neurons/miner.py --netuid 34 --wallet.name NAME --axon.port 8091 [--offline]``.

Exit codes: 0 stopped as asked; 2 a flag, setting, wallet or configuration file is wrong; 4 the detector's weights do
not load; 5 the chain is needed and not there; 6 the address cannot be bound. When it serves it says so in one line of
JSON on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __package__ in (
    None,
    "",
):  # run as a script: the root belongs on the path, this folder with its short names does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neurons import logs
from neurons.settings import MinerSettings, SettingsError, load
from neurons.threads import THREAD, sleep_while_waiting

if TYPE_CHECKING:
    from detectors.types import Detector
    from neurons.httpd import Listen
    from neurons.keys import Keypair
    from neurons.pipeline import JudgesChallenges
    from neurons.server import App
    from neurons.wire.base import Wire

__all__ = ["build", "leave", "listen_of", "main", "wires"]

_USAGE, _WEIGHTS, _CHAIN, _BIND = 2, 4, 5, 6


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a miner until it is told to stop (SIGTERM, SIGINT) and returns the process' exit code."""
    try:
        settings = load(sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        return _fail(_USAGE, str(error))
    logs.configure(settings.logging.level, settings.logging.format)
    if not settings.offline:
        return _fail(_CHAIN, "this miner cannot reach a chain yet; start it with --offline")
    return _serve(settings)


def _serve(settings: MinerSettings) -> int:
    sleep_while_waiting()
    # From here on the heavy packages are needed; --help and a typo are answered without them.
    from detectors.errors import ConfigError, DetectorError  # noqa: PLC0415
    from neurons.httpd import serve  # noqa: PLC0415
    from neurons.keys import load_hotkey  # noqa: PLC0415
    from neurons.pipeline import Judge  # noqa: PLC0415

    try:
        key = load_hotkey(settings.wallet.name, settings.wallet.hotkey, settings.wallet.path)
        detector = _detector(settings)
        _warm_up(detector)
    except ConfigError as error:
        return _fail(_USAGE, str(error))
    except DetectorError as error:
        return _fail(_WEIGHTS, str(error))
    judge = Judge(detector)
    try:
        serve(build(settings, key, judge), listen_of(settings), _announce(key.ss58_address))
    except OSError as error:
        return _fail(_BIND, f"cannot listen on {settings.axon.ip}:{settings.axon.port}: {error.strerror or error}")
    finally:
        judge.close()
    return 0


def build(settings: MinerSettings, key: Keypair, judge: JudgesChallenges) -> App:
    """The application that `settings` describe, for the hotkey `key`.

    Args:
        settings: see :mod:`neurons.settings`.
        key: the miner's own; requests must be addressed to it.
        judge: answers the challenges.
    """
    from neurons import access, scheduler, server  # noqa: PLC0415

    rules = access.AccessRules(
        force_validator_permit=settings.blacklist.force_validator_permit,
        allow_non_registered=settings.blacklist.allow_non_registered,
        min_stake=settings.blacklist.min_stake,
        allow=frozenset(settings.blacklist.allow),
        deny=frozenset(settings.blacklist.deny),
        offline=settings.offline,
    )
    neuron, axon = settings.neuron, settings.axon
    queue = scheduler.Limits(
        deadline_s=neuron.deadline_s,
        margin_s=neuron.margin_s,
        max_batch=neuron.max_batch,
        queue_limit=neuron.queue_limit,
    )
    return server.build_app(
        wires=wires(key.ss58_address, body_timeout_s=axon.body_timeout_s),
        access=lambda caller: access.decide(caller, None, rules),
        scheduler=scheduler.Scheduler(judge, queue),
        hotkey=key.ss58_address,
        limits=server.BodyLimits(
            max_body_bytes=axon.max_body_bytes,
            max_buffered_bytes=axon.max_buffered_bytes,
            body_timeout_s=axon.body_timeout_s,
            max_in_flight=axon.max_in_flight,
        ),
    )


def wires(hotkey: str, *, body_timeout_s: float = 10.0) -> dict[str, Wire]:
    """The three dialects with one replay memory.

    Args:
        hotkey: our ss58 address.
        body_timeout_s: the server's; a request is remembered for longer than it can still be fresh.
    """
    from neurons import wire  # noqa: PLC0415
    from neurons.wire import btauth, dendrite, epistula, replay  # noqa: PLC0415

    longest = max(dialect.WINDOW_S + dialect.FUTURE_S for dialect in (btauth, dendrite, epistula))
    memory = replay.ReplayGuard(lifetime_s=longest + body_timeout_s + 5.0)
    # The memory starts empty: what was captured before a restart must not be accepted after it.
    return wire.build(hotkey, replay=memory, not_before_ns=time.time_ns())


def listen_of(settings: MinerSettings) -> Listen:
    """Where and how patiently a miner with `settings` listens."""
    from neurons.httpd import Listen  # noqa: PLC0415

    axon = settings.axon
    return Listen(
        ip=axon.ip,
        port=axon.port,
        header_timeout_s=axon.header_timeout_s,
        keep_alive_s=axon.keep_alive_s,
        max_connections=axon.max_connections,
        grace_s=axon.grace_s,
    )


def _detector(settings: MinerSettings) -> Detector:
    neuron = settings.neuron
    if neuron.detector == "trivial":
        from neurons.pipeline import TrivialDetector  # noqa: PLC0415

        return TrivialDetector()
    from detectors import camo, paths  # noqa: PLC0415

    config = neuron.camo or paths.configs() / "camo.yaml"
    return camo.load(config, device=neuron.device, threads=neuron.threads or None)


def _warm_up(detector: Detector) -> None:
    """One picture and one clip before anybody asks: the first inference is the slowest, and one that fails ends here.

    Raises:
        DetectorError: the detector cannot judge.
    """
    import numpy as np  # noqa: PLC0415

    from detectors.types import Media  # noqa: PLC0415

    pixels = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
    detector.predict([Media(pixels[0])])
    detector.predict([Media(pixels, rate=8.0)])


def _announce(hotkey: str) -> Callable[[str, int], None]:
    def ready(ip: str, port: int) -> None:
        line = json.dumps({"event": "serving", "ip": ip, "port": port, "hotkey": hotkey})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return ready


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"miner: {message}\n")
    return code


def leave(code: int) -> NoReturn:
    """Ends the process with `code`, also when an inference that never came back still holds its thread.

    Tearing the interpreter down under a thread that is inside torch aborts the process (SIGABRT instead of `code`), so
    then the process ends without teardown.
    """
    if any(thread.name == THREAD and thread.is_alive() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
