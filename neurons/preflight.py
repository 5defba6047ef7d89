"""What a miner needs before it can serve, one line a check, each failure with the command or flag that mends it.

``--preflight`` runs all of it alone (:func:`alone`). A normal start runs what is cheap (:func:`before_joining`,
:func:`after_joining`): the weights, which cost seconds, are verified by loading them, and nothing is waited for.

Nothing is asked of anybody but the operator's chain endpoint and the machine itself. The coldkey is never read.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from detectors.errors import ConfigError, DetectorError
from neurons import preflight_machine as machine
from neurons.chain import Chain, ChainError, Snapshot, Trouble, open_chain, wanted_endpoint
from neurons.exits import Exit
from neurons.keys import load_hotkey
from neurons.life import register_line
from neurons.redact import redact

if TYPE_CHECKING:
    from neurons.keys import Hotkey
    from neurons.life import Chains
    from neurons.settings import Axon, MinerSettings, Neuron

__all__ = ["Finding", "PreflightError", "Status", "after_joining", "alone", "before_joining", "enforce", "examine"]

_log = logging.getLogger(__name__)

#: What the wires forgive, seconds: btauth takes nothing that is more than 2 s ahead of us, the others 4 s; Epistula
#: nothing that is 8 s old. ``tests/neurons/test_preflight.py`` holds them against the wires.
AHEAD_LEAST_S, AHEAD_MOST_S, OLD_LEAST_S = 2.0, 4.0, 8.0
BLOCK_S = 12.0
_AUTHOR_S = 2.0  # by how much the clock of whoever made the block may be wrong
_TRAVEL_S = 4.0  # until a new block has reached our endpoint and we have asked for it
_LOOK_S = 1.0  # between two looks for a new block
_GLANCE_S = 5.0  # for the one look of a normal start: an endpoint that is slow must not hold up the service

Sleep = Callable[[float], Awaitable[None]]


class Status(StrEnum):
    """What became of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        status: ``warn`` lets the miner start, ``FAIL`` does not.
        found: in words.
        fix: the command or flag that mends it; empty where there is nothing to mend.
        code: of the process, where this ends it.
    """

    name: str
    status: Status
    found: str
    fix: str = ""
    code: Exit = Exit.STOPPED

    @property
    def text(self) -> str:
        """What was found and what mends it."""
        return f"{self.found}; {self.fix}" if self.fix else self.found

    def __str__(self) -> str:
        return f"{self.status:<7} {self.name:<10} {self.text}"


class PreflightError(Exception):
    """A check failed.

    Attributes:
        code: that the process should end with.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.code = finding.code


def enforce(findings: Iterable[Finding]) -> None:
    """Logs findings as they come, warnings as warnings.

    Raises:
        PreflightError: one failed; those after it are not looked for.
    """
    for finding in findings:
        if finding.status is Status.FAIL:
            raise PreflightError(finding)
        level = logging.WARNING if finding.status is Status.WARN else logging.INFO
        _log.log(level, "preflight %s", " ".join(str(finding).split()))


def alone(settings: MinerSettings, chains: Chains = open_chain, out: TextIO | None = None) -> Exit:
    """``--preflight``: every check, one line each on `out` (standard output), and the code of the first that failed."""
    out = out or sys.stdout
    code = Exit.STOPPED

    async def run() -> None:
        nonlocal code
        async for finding in examine(settings, chains):
            out.write(redact(str(finding)) + "\n")
            out.flush()
            if finding.status is Status.FAIL:
                code = code or finding.code

    asyncio.run(run())
    return code


async def examine(
    settings: MinerSettings,
    chains: Chains = open_chain,
    *,
    now: Callable[[], float] = time.time,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[Finding]:
    """Every check there is, thoroughly: waits for a block, loads the weights.

    Args:
        settings: the miner's.
        chains: makes the view of the chain.
        now: the wall clock, unix seconds.
        sleep: seconds.
    """
    found, key = wallet(settings)
    yield found
    yield address(settings)
    yield port(settings.axon, publishes=not settings.offline, thorough=True)
    if settings.offline:
        yield _skipped("registered", "offline")
        yield _skipped("clock", "offline")
    elif key is None:
        yield _skipped("registered", "needs the wallet")
        yield _skipped("clock", "needs the wallet")
    else:
        async for found in _of_chain(settings, key, chains, now, sleep):
            yield found
    yield open_files(settings.axon, raise_it=False)
    yield memory(settings.axon)
    usable = device(settings.neuron.device)
    yield usable
    yield weights(settings.neuron, settings.neuron.device if usable.status is Status.OK else "cpu")


def before_joining(settings: MinerSettings, key: Hotkey) -> Iterator[Finding]:
    """What a normal start looks at first: milliseconds, no chain (with a GPU: the time to import torch)."""
    yield _signs(settings, key)
    yield address(settings)
    yield port(settings.axon, publishes=not settings.offline)
    yield open_files(settings.axon, raise_it=True)
    yield memory(settings.axon)
    if settings.neuron.detector != "trivial":
        yield device(settings.neuron.device)


async def after_joining(
    settings: MinerSettings, chain: Chain, first: Snapshot, *, now: Callable[[], float] = time.time
) -> list[Finding]:
    """What a normal start looks at once the chain has been read: one more small read of it, five seconds at most."""
    findings = [slot(first), _published(settings, first)]
    try:
        async with asyncio.timeout(_GLANCE_S):
            findings.append(clock(now() - await chain.block_time()))
    except (ChainError, TimeoutError) as error:
        findings.append(Finding("clock", Status.WARN, f"the time of the newest block cannot be read ({error})"))
    return findings


def wallet(settings: MinerSettings) -> tuple[Finding, Hotkey | None]:
    """Whether the hotkey can sign."""
    try:
        key = load_hotkey(settings.wallet.name, settings.wallet.hotkey, settings.wallet.path)
    except ConfigError as error:
        return Finding("wallet", Status.FAIL, str(error), code=Exit.USAGE), None
    return _signs(settings, key), key


def _signs(settings: MinerSettings, key: Hotkey) -> Finding:
    return Finding("wallet", Status.OK, f"{settings.wallet.name}/{settings.wallet.hotkey} signs as {key.ss58_address}")


def address(settings: MinerSettings) -> Finding:
    """Whether it is known where validators reach us; flags win, nothing is looked up."""
    if settings.offline:
        return _skipped("address", "offline: nothing is published")
    try:
        wanted = wanted_endpoint(settings.axon, settings.axon.port)
    except ConfigError as error:
        return Finding("address", Status.FAIL, str(error), code=Exit.USAGE)
    if machine.is_public(wanted.ip):
        where = wanted if wanted.port else f"{wanted.ip}, at the port that is bound then"
        return Finding("address", Status.OK, f"validators are sent to {where}")
    return Finding(
        "address",
        Status.WARN,
        f"{wanted.ip} is no public address: only who is in the same network reaches it",
        "give the public one with --axon.external_ip",
    )


def port(axon: Axon, *, publishes: bool, thorough: bool = False) -> Finding:
    """Whether the port can be bound and reached from here.

    Args:
        axon: where to listen.
        publishes: whether there is an external address.
        thorough: also tries the external address where it belongs to another machine, a router for the most part.
    """
    outside = (axon.external_ip or axon.ip, axon.external_port or axon.port) if publishes else None
    try:
        reached = machine.reach(axon.ip, axon.port, outside, thorough=thorough)
    except machine.NotBoundError as error:
        fix = f"`ss -ltnp 'sport = :{axon.port}'` says who holds it; or take another with --axon.port and --axon.ip"
        return Finding("port", Status.FAIL, str(error), fix, Exit.BIND)
    except machine.NotReachedError as error:
        return Finding("port", Status.FAIL, str(error), "let it through the firewall of this machine", Exit.BIND)
    if reached.missed is None:
        return Finding("port", Status.OK, reached.text)
    ip, number = reached.missed
    return Finding(
        "port",
        Status.WARN,
        f"{reached.text}, but not through {ip}:{number}: closed, or a router that does not turn such connections round",
        f"try from elsewhere while the miner runs: nc -vz {ip} {number}",
    )


async def _of_chain(
    settings: MinerSettings, key: Hotkey, chains: Chains, now: Callable[[], float], sleep: Sleep
) -> AsyncIterator[Finding]:
    try:
        chain = chains(settings, key.ss58_address)
    except ConfigError as error:
        yield Finding("registered", Status.FAIL, str(error), code=Exit.USAGE)
        yield _skipped("clock", "needs the chain")
        return
    try:
        try:
            first = await chain.snapshot()
        except ChainError as error:
            yield _unread(settings, error)
            yield _skipped("clock", "needs the chain")
            return
        if first.uid is None:
            found = f"the hotkey {key.ss58_address} is not registered on subnet {settings.netuid}"
            yield Finding("registered", Status.FAIL, found, register_line(settings), Exit.REGISTRATION)
        else:
            yield slot(first)
            yield _published(settings, first)
        yield await watched_clock(chain, now, sleep)
    finally:
        await chain.close()


def _unread(settings: MinerSettings, error: ChainError) -> Finding:
    if error.trouble is Trouble.NOT_REGISTERED:
        return Finding("registered", Status.FAIL, str(error), "set another with --netuid", Exit.REGISTRATION)
    where = settings.subtensor.chain_endpoint or settings.subtensor.network
    fix = "try another node with --subtensor.chain_endpoint wss://..., or no chain with --offline"
    return Finding("registered", Status.FAIL, f"{where} cannot be read ({error})", fix, Exit.CHAIN)


def slot(snapshot: Snapshot) -> Finding:
    """Our place in a snapshot that has one."""
    found = f"uid {snapshot.uid} on subnet {snapshot.netuid} at block {snapshot.block}"
    return Finding("registered", Status.OK, found)


def _published(settings: MinerSettings, snapshot: Snapshot) -> Finding:
    has = snapshot.axon
    if has is not None and settings.axon.port and has == wanted_endpoint(settings.axon, settings.axon.port):
        return Finding("published", Status.OK, f"the chain has {has}")
    return Finding("published", Status.OK, f"the chain has {has or 'nothing'}; the start publishes our address")


async def watched_clock(chain: Chain, now: Callable[[], float], sleep: Sleep) -> Finding:
    """The clock against a block that has just been made; waits for one, for two blocks' time at most."""
    try:
        before = await chain.block_time()
        age_s = now() - before
        for _ in range(int(2 * BLOCK_S / _LOOK_S)):
            await sleep(_LOOK_S)
            newest = await chain.block_time()
            if newest != before:
                return clock(now() - newest, slack_s=_TRAVEL_S)
    except ChainError as error:
        return Finding("clock", Status.WARN, f"the time of the newest block cannot be read ({error})")
    return clock(age_s)


def clock(age_s: float, *, slack_s: float = BLOCK_S + _TRAVEL_S) -> Finding:
    """Our clock by the age of the newest block, as that clock shows it.

    A right clock shows 0 s to `slack_s`. Below that, ours is behind by at least the difference: beyond
    :data:`AHEAD_LEAST_S` one wire, beyond :data:`AHEAD_MOST_S` every wire takes honest requests for ones from the
    future. Above it, ours is ahead and honest requests look old, or the endpoint lags: only a warning.

    Args:
        age_s: seconds; negative where the block seems to come from the future.
        slack_s: oldest that the newest block can be: 4 s for one whose making was waited for, else 12 s more.
    """
    fix = "set the clock: timedatectl set-ntp true"
    if age_s < -(AHEAD_MOST_S + _AUTHOR_S):
        found = f"this clock is at least {-age_s:.0f} s behind the chain's: every request would come from the future"
        return Finding("clock", Status.FAIL, found, fix, Exit.USAGE)
    if age_s < -AHEAD_LEAST_S:
        found = f"this clock is at least {-age_s:.1f} s behind the chain's: btauth requests would come from the future"
        return Finding("clock", Status.WARN, found, fix)
    # Half of what the strictest wire forgives is left to the request's way here.
    if age_s > slack_s + OLD_LEAST_S / 2:
        found = f"the newest block is {age_s:.0f} s old by this clock: it is ahead, or the endpoint lags behind"
        return Finding("clock", Status.WARN, found, fix)
    return Finding("clock", Status.OK, f"the newest block is {age_s:.1f} s old, as it should be")


def open_files(axon: Axon, *, raise_it: bool) -> Finding:
    """Whether every connection that the settings allow can be held open."""
    needed = axon.max_connections + machine.OWN_FILES
    before, after = machine.file_limit(needed, raise_it=raise_it)
    if after >= needed:
        grown = "" if before >= needed else f", {'raised' if raise_it else 'the start raises it'} to {after}"
        return Finding("open files", Status.OK, f"{before} may be open{grown}; {needed} are needed at most")
    fix = f"`ulimit -Hn {needed}` as root, or --axon.max_connections {max(1, after - machine.OWN_FILES)}"
    return Finding("open files", Status.WARN, f"{after} may be open; {needed} are needed at most", fix)


def memory(axon: Axon) -> Finding:
    """Whether the bodies that may be held at once fit beside the networks."""
    free = machine.free_memory()
    if free is None:
        return _skipped("memory", "this system does not say how much is free")
    needed = axon.max_buffered_bytes + machine.OWN_BYTES
    found = f"{free / 2**30:.1f} GiB free; {needed / 2**30:.1f} GiB are needed at most"
    if free >= needed:
        return Finding("memory", Status.OK, found)
    return Finding("memory", Status.WARN, found, "hold less at once: --axon.max_buffered_bytes")


def device(name: str) -> Finding:
    """Whether torch can compute there."""
    try:
        return Finding("device", Status.OK, machine.describe_device(name))
    except DetectorError as error:
        return Finding("device", Status.FAIL, str(error), "--neuron.device cpu", Exit.USAGE)


def weights(neuron: Neuron, on: str) -> Finding:
    """Whether the detector loads: every file that it names has its card's sha256 and fits its network."""
    if neuron.detector == "trivial":
        return _skipped("weights", "the trivial detector has none")
    from detectors import camo_load, paths  # noqa: PLC0415 - torch

    fix = "`deepfake-miner weights verify` names every problem; put the published files back, or activate others"
    config = neuron.camo or paths.configs() / "camo.yaml"
    try:
        loaded = camo_load.load(config, device=on)
    except ConfigError as error:
        return Finding("weights", Status.FAIL, str(error), "mend it, or name another with --neuron.camo", Exit.USAGE)
    except DetectorError as error:
        return Finding("weights", Status.FAIL, str(error), fix, Exit.WEIGHTS)
    return Finding("weights", Status.OK, f"all of {config.name} have their cards' sha256 and load ({loaded.card.key})")


def _skipped(name: str, why: str) -> Finding:
    return Finding(name, Status.SKIPPED, why)
