"""Entry of the miner: ``python neurons/miner.py --netuid 34 --wallet.name NAME --axon.port 8091 [--offline]``.

``--preflight`` runs the checks of :mod:`neurons.preflight` alone, one line each, and exits with 0 or the code of the
first that failed. A start runs the quick ones of them: warnings are logged, a failure ends it.

Exit codes, for process managers:

====  ================================================================================================
0     stopped as asked; with --preflight: nothing failed
1     a bug; its traceback is in the log
2     a flag, setting, wallet or configuration file is wrong, the device is not there, or the clock is wrong
4     the detector's weights do not load
5     the chain is needed and cannot be read at the start
6     the address cannot be bound, or what is bound cannot be reached from the machine itself
7     the hotkey is not registered on the subnet, or no longer; the message has the command that registers
8     a task that must live as long as the process died; the server was stopped gracefully
130   a second signal, SIGINT, cut the grace period short
143   the same with SIGTERM
====  ================================================================================================

After 1, 5 and 8 a restart may help, after the others it does not. When the miner serves it says so in one line of JSON
on standard output; everything else goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
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
from neurons.exits import Exit
from neurons.redact import redact
from neurons.settings import PREFLIGHT, MinerSettings, SettingsError, load
from neurons.threads import sleep_while_waiting

if TYPE_CHECKING:
    from detectors.types import Detector
    from neurons.chain_sync import ChainSync
    from neurons.httpd import Listen
    from neurons.keys import Keypair
    from neurons.life import Chains, Membership
    from neurons.pipeline import JudgesChallenges
    from neurons.seen import Observer
    from neurons.server import App
    from neurons.wire.base import Wire

__all__ = ["build", "leave", "listen_of", "main", "wires"]

_log = logging.getLogger(__name__)
_STARTED_NS = time.time_ns()  # see :func:`wires`


class _BindError(Exception):
    """The address cannot be bound."""


def main(argv: Sequence[str] | None = None, *, chains: Chains | None = None) -> int:
    """Runs a miner until it is told to stop (SIGTERM, SIGINT) and returns the process' exit code.

    Args:
        argv: the flags; None takes the process' own.
        chains: makes the view of the chain; None the one that connects to the network of the settings.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        settings = load(argv)
    except SettingsError as error:
        return _fail(Exit.USAGE, str(error))
    logs.configure(settings.logging.level, settings.logging.format)
    sleep_while_waiting()
    # From here on the heavy packages are needed; --help and a typo are answered without them.
    from detectors.errors import ConfigError, DetectorError  # noqa: PLC0415
    from neurons import preflight  # noqa: PLC0415
    from neurons.chain import ChainError, open_chain  # noqa: PLC0415
    from neurons.chain_sync import NotRegisteredError  # noqa: PLC0415
    from neurons.supervision import TaskDiedError  # noqa: PLC0415

    codes: dict[type[Exception], Exit] = {
        ConfigError: Exit.USAGE,
        DetectorError: Exit.WEIGHTS,
        ChainError: Exit.CHAIN,
        _BindError: Exit.BIND,
        NotRegisteredError: Exit.REGISTRATION,
        TaskDiedError: Exit.DIED,
    }
    code = Exit.STOPPED
    try:
        if PREFLIGHT in argv:
            code = preflight.alone(settings, chains or open_chain)
        else:
            _run(settings, chains or open_chain)
    except preflight.PreflightError as error:
        return _fail(error.code, str(error))
    except tuple(codes) as error:
        return _fail(next(code for kind, code in codes.items() if isinstance(error, kind)), str(error))
    except KeyboardInterrupt:  # before it serves; from then on the server takes the signal
        pass
    except Exception:  # noqa: BLE001 - the process' edge: what Python would print itself is neither JSON nor redacted
        _log.critical("a bug ended the miner", exc_info=True)
        code = Exit.BUG
    return code


def _run(settings: MinerSettings, chains: Chains) -> None:
    """Offline: load, serve. Else: find our slot first, because without one the rest is in vain; one loop for all."""
    import uvloop  # noqa: PLC0415

    from neurons import preflight  # noqa: PLC0415
    from neurons.keys import load_hotkey  # noqa: PLC0415
    from neurons.life import Membership  # noqa: PLC0415

    key = load_hotkey(settings.wallet.name, settings.wallet.hotkey, settings.wallet.path)
    preflight.enforce(preflight.before_joining(settings, key))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.offline:
            _serve(settings, key, runner, None)
            return
        chain = chains(settings, key.ss58_address)
        member = Membership(settings, key, chain)
        try:
            sync = runner.run(member.join())
            preflight.enforce(runner.run(preflight.after_joining(settings, chain, sync.snapshot)))
            _serve(settings, key, runner, member)
        finally:
            runner.run(member.leave())


def _serve(settings: MinerSettings, key: Keypair, runner: asyncio.Runner, member: Membership | None) -> None:
    from neurons.httpd import Server, freeze_heap  # noqa: PLC0415
    from neurons.station import Station  # noqa: PLC0415
    from neurons.supervision import supervise  # noqa: PLC0415

    station = Station(settings)
    try:
        _warm_up(station.live)
        sync = None if member is None else member.sync
        app = build(settings, key, station.judge, sync, station.observers)
        station.attach(app, sync)
        try:
            server = Server(app, listen_of(settings), _announce(key.ss58_address))
        except OSError as error:
            where = f"{settings.axon.ip}:{settings.axon.port}"
            raise _BindError(f"cannot listen on {where}: {error.strerror or error}") from error
        station.open()
        freeze_heap()
        beside = station.tasks()
        if member is None:
            runner.run(supervise(server.run_until_stopped(), server.stop, beside))
        else:
            runner.run(member.serve(server, app, beside))
    finally:
        station.close()


def build(
    settings: MinerSettings,
    key: Keypair,
    judge: JudgesChallenges,
    sync: ChainSync | None = None,
    observers: Sequence[Observer] = (),
) -> App:
    """The application that `settings` describe, for the hotkey `key`.

    Args:
        settings: see :mod:`neurons.settings`.
        key: the miner's own; requests must be addressed to it.
        judge: answers the challenges.
        sync: the view of the chain; None offline.
        observers: told of every request to a challenge path.

    Raises:
        ConfigError: a list of hotkeys holds something that is no address.
    """
    from detectors.errors import ConfigError  # noqa: PLC0415
    from neurons import access, bodies, keys, life, scheduler, server  # noqa: PLC0415
    from neurons import limits as ratings  # noqa: PLC0415

    for flag in ("allow", "deny"):
        for hotkey in getattr(settings.blacklist, flag):
            if not keys.is_address(hotkey):  # it would never match: a denied hotkey would be served
                raise ConfigError(f"blacklist.{flag}: {hotkey!r} is not a hotkey's address (48 characters, 5…)")
    rules = access.AccessRules(
        force_validator_permit=settings.blacklist.force_validator_permit,
        allow_non_registered=settings.blacklist.allow_non_registered,
        min_stake=settings.blacklist.min_stake,
        allow=frozenset(settings.blacklist.allow),
        deny=frozenset(settings.blacklist.deny),
        offline=settings.offline,
        own=key.ss58_address,
    )
    may_ask = life.admission(rules, sync)
    neuron, axon = settings.neuron, settings.axon
    queue = scheduler.Limits(
        deadline_s=neuron.deadline_s,
        margin_s=neuron.margin_s,
        max_batch=neuron.max_batch,
        queue_limit=neuron.queue_limit,
    )
    return server.build_app(
        wires=wires(
            key.ss58_address,
            body_timeout_s=axon.body_timeout_s,
            started_ns=None if settings.offline else _STARTED_NS,
            require_body_hash=axon.require_body_hash,
        ),
        access=may_ask,
        scheduler=scheduler.Scheduler(judge, queue),
        hotkey=key.ss58_address,
        uid=None if sync is None else sync.snapshot.uid,
        limits=bodies.BodyLimits(
            max_body_bytes=axon.max_body_bytes,
            max_buffered_bytes=axon.max_buffered_bytes,
            body_timeout_s=axon.body_timeout_s,
            max_in_flight=axon.max_in_flight,
        ),
        rates=ratings.RateLimits(
            address=ratings.Rate(axon.address_rate, axon.address_burst),
            hotkey=ratings.Rate(settings.blacklist.hotkey_rate, settings.blacklist.hotkey_burst),
        ),
        observers=observers,
    )


def wires(
    hotkey: str, *, body_timeout_s: float = 10.0, started_ns: int | None = None, require_body_hash: bool = False
) -> dict[str, Wire]:
    """The three dialects with one replay memory.

    Args:
        hotkey: our ss58 address.
        body_timeout_s: the server's; a request is remembered for longer than it can still be fresh.
        started_ns: when this process started, nanoseconds since the epoch. An earlier one may have accepted a nonce
            that was ahead of its clock, so what is older than the start *and* what is ahead allows is refused: nothing
            that was accepted before a restart is accepted after it, and a start that took as long as that costs nobody
            an answer. None leaves it at the present: nothing that was *sent* before is accepted.
        require_body_hash: see :func:`neurons.wire.build`.
    """
    from neurons import wire  # noqa: PLC0415
    from neurons.wire import btauth, dendrite, epistula, replay  # noqa: PLC0415

    longest = max(dialect.WINDOW_S + dialect.FUTURE_S for dialect in (btauth, dendrite, epistula))
    memory = replay.ReplayGuard(lifetime_s=longest + body_timeout_s + 5.0)
    # The memory starts empty: what was captured before a restart must not be accepted after it.
    not_before_ns = time.time_ns()
    if started_ns is not None:
        ahead = max(dialect.FUTURE_S for dialect in (btauth, dendrite, epistula))
        not_before_ns = max(not_before_ns, started_ns + int(ahead * 1e9))
    return wire.build(hotkey, replay=memory, not_before_ns=not_before_ns, require_body_hash=require_body_hash)


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
        max_per_address=axon.max_per_address,
        grace_s=axon.grace_s,
    )


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


def _fail(code: Exit, message: str) -> Exit:
    sys.stderr.write(f"miner: {redact(message)}\n")
    return code


def leave(code: int) -> NoReturn:
    """Ends the process with `code` and without the interpreter's teardown, which has nothing left to do.

    Under a thread that is inside torch (an inference that never came back, a candidate that is loading) it aborts the
    process, SIGABRT instead of `code`; and compiled packages that torch brings along fill the log with what they leak.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
