"""The chain as a miner sees it: one long-lived client, every call bounded in time, every failure one of five kinds.

The only module that imports bittensor's chain client, and only when it is used: importing it costs half a second.
Nothing here retries or decides; that is :mod:`neurons.chain_sync`. Nothing here touches a coldkey: the one call that is
signed (``ServeAxon``) is signed by the hotkey.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from detectors.errors import ConfigError
from neurons.access import Standing

if TYPE_CHECKING:
    from bittensor.client import Client
    from bittensor.metagraph import Metagraph

    from neurons.keys import Hotkey
    from neurons.settings import Axon, MinerSettings, Subtensor

__all__ = ["Chain", "ChainError", "Endpoint", "Snapshot", "Trouble", "open_chain", "open_client", "wanted_endpoint"]

T = TypeVar("T")

_SUBMIT = 3  # a submission waits for the block that includes it: this many times as long as a read may take
_DEAF = 2  # reads in a row that may time out before the connection itself is taken to be dead and is opened anew
_HANG_UP_S = 3.0  # for a goodbye that nobody waits for: a shutdown must not take longer because the chain is away
_DETAIL_CHARS = 300  # of a foreign error message; nodes put whole stack traces into some


class Trouble(StrEnum):
    """What kind of failure it was, for logs, metrics and whoever decides what to do next."""

    DOWN = "rpc_down"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    NOT_REGISTERED = "not_registered"
    OTHER = "other"


_OF_CODE = {"rate_limited": Trouble.RATE_LIMITED, "not_registered": Trouble.NOT_REGISTERED}  # of the client's codes


class ChainError(Exception):
    """A chain call failed.

    Attributes:
        trouble: the kind.
        retry_after_s: how long the endpoint asked us to stay away, seconds; None where it did not say.
    """

    def __init__(self, trouble: Trouble, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{trouble}: {detail}")
        self.trouble = trouble
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an axon is reached.

    Attributes:
        ip: IPv4 or IPv6 address in its canonical spelling; use :meth:`of` for text from elsewhere.
        port: 0 to 65535.
    """

    ip: str
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> Endpoint:
        """From any spelling of the address; raises ``ValueError`` for what is none."""
        return cls(str(ip_address(ip)), port)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From ``1.2.3.4:8091`` or ``[2001:db8::1]:8091``; raises ``ValueError`` for anything else."""
        ip, _, port = text.rpartition(":")
        return cls.of(ip.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The subnet at one block.

    Attributes:
        netuid: which subnet.
        block: number of the block it was read at.
        taken_at: when it was asked for, seconds of the clock that the :class:`Chain` was given.
        standings: every registered hotkey (ss58) with its standing. The stake is the metagraph's ``total_stake``, the
            subnet's own alpha plus the root TAO that the chain counts for it: what the subnet grants permits by.
        uid: our own slot, None where our hotkey is not registered.
        axon: what is published for our hotkey, None where nothing is.
        holders: the hotkey of each slot, by uid.
    """

    netuid: int
    block: int
    taken_at: float
    standings: Mapping[str, Standing]
    uid: int | None
    axon: Endpoint | None
    holders: tuple[str, ...] = ()

    def standing(self, hotkey: str) -> Standing | None:
        """Of any hotkey, None where it is not registered. One look-up in a table."""
        return self.standings.get(hotkey)

    def age(self, now: float) -> float:
        """Seconds since it was asked for; `now` in the clock of `taken_at`."""
        return now - self.taken_at


def open_client(subtensor: Subtensor) -> Client:
    """The client for the operator's network; it connects when it is first used.

    A given endpoint is the only one; a named network has the client's own list of alternatives.

    Raises:
        ConfigError: the network is not known, or the endpoint is no ``ws://`` or ``wss://`` address.
    """
    from bittensor.client import Client  # noqa: PLC0415 - see the module's docstring

    flag = "subtensor.network" if subtensor.chain_endpoint is None else "subtensor.chain_endpoint"
    try:
        return Client(subtensor.chain_endpoint or subtensor.network)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from error


def open_chain(settings: MinerSettings, hotkey: str) -> Chain:
    """The chain as `settings` describe it, for the hotkey with this ss58 address; it connects when it is first asked.

    Raises:
        ConfigError: as :func:`open_client`.
    """
    subtensor = settings.subtensor
    return Chain(open_client(subtensor), netuid=settings.netuid, hotkey=hotkey, timeout_s=subtensor.timeout_s)


def wanted_endpoint(axon: Axon, port: int) -> Endpoint:
    """What validators shall find on the chain.

    Args:
        axon: the settings; ``external_ip`` and ``external_port`` win where they are given.
        port: the one that is really bound.

    Raises:
        ConfigError: nobody said which address the world reaches us at. Nothing is ever looked up.
    """
    if axon.external_ip is not None:
        address = ip_address(axon.external_ip)
        if address.is_unspecified or address.is_multicast:
            raise ConfigError(f"axon.external_ip: nobody can reach {address}; give the address validators connect to")
    else:
        address = ip_address(axon.ip)
        if not address.is_global or address.is_multicast:
            raise ConfigError(
                f"axon.external_ip: {address} is not an address the world can reach;"
                " publish yours with --axon.external_ip"
            )
    return Endpoint(str(address), axon.external_port or port)


class Chain:
    """What a miner asks of the chain and tells it. One object, one connection, for the life of the process.

    Every method raises :class:`ChainError` and nothing else; after a failure the same object works again as soon as
    the chain does. Use it on one event loop, one call at a time.

    Args:
        client: bittensor's; see :func:`open_client`.
        netuid: the subnet.
        hotkey: our ss58 address.
        timeout_s: of one call, seconds; publishing may take three times as long, because it waits for a block.
        clock: seconds; dates the snapshots.
    """

    def __init__(
        self,
        client: Client,
        *,
        netuid: int,
        hotkey: str,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.netuid = netuid
        self.hotkey = hotkey
        self.clock = clock
        self._client = client
        self._timeout_s = timeout_s
        self._open = False
        self._opening: asyncio.Future[Client] | None = None
        self._timeouts = 0

    async def connect(self) -> None:
        """Opens the connection, if it is not open. The other methods do it by themselves."""

        async def nothing() -> None:
            return None

        await self._call("connect", nothing)

    async def uid(self) -> int | None:
        """Our slot at the head of the chain, None where our hotkey is not registered; one small read."""
        return await self._call("uid", lambda: self._client.neurons.uid(hotkey_ss58=self.hotkey, netuid=self.netuid))

    async def block_time(self) -> float:
        """When the head block was made, unix seconds: at most a few blocks behind a clock that is right."""

        async def read() -> float:
            return (await self._client.timestamp()).timestamp()

        return await self._call("clock", read)

    async def snapshot(self) -> Snapshot:
        """The subnet at the head of the chain.

        A metagraph that lacks us is believed only where the registration table says so too; `uid` is None then.

        Raises:
            ChainError: also with ``NOT_REGISTERED`` where there is no such subnet, and with ``OTHER`` where the
                metagraph and the registration table disagree.
        """
        began = self.clock()

        async def read() -> Snapshot:
            graph = await self._client.subnets.metagraph(self.netuid, commitments=False)
            if graph is None:
                raise ChainError(Trouble.NOT_REGISTERED, f"there is no subnet {self.netuid} on this chain")
            return _snapshot(graph, self.netuid, self.hotkey, began)

        snapshot = await self._call("metagraph", read)
        if snapshot.uid is None and (uid := await self.uid()) is not None:
            raise ChainError(Trouble.OTHER, f"the metagraph lacks our hotkey, the registrations have it as uid {uid}")
        return snapshot

    async def publish(self, endpoint: Endpoint, key: Hotkey) -> None:
        """Writes where we are reached to the chain, signed by the hotkey, and waits until a block includes it."""
        from bittensor.intents.serving import ServeAxon  # noqa: PLC0415 - see the module's docstring

        intent = ServeAxon(self.netuid, endpoint.ip, endpoint.port)

        async def submit() -> None:
            # Inclusion is enough: the next snapshots show whether it stayed.
            result = await self._client.execute(intent, key, wait_for_finalization=False)
            if not result.success:
                raise result.error or RuntimeError(result.message)

        await self._call("serve_axon", submit, self._timeout_s * _SUBMIT)

    async def close(self) -> None:
        """Ends the connection; never raises, takes a few seconds at most."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening}, timeout=_HANG_UP_S)
            self._opening = None
        await self._hang_up()

    async def _call(self, what: str, make: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        try:
            await self._connected()
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the result.
            async with asyncio.timeout(timeout_s or self._timeout_s):
                result = await make()
        except Exception as error:  # the client's edge: a node's odd answer can raise anything in it
            failure = _classified(what, error)
            self._timeouts = self._timeouts + 1 if failure.trouble is Trouble.TIMEOUT else 0
            if self._timeouts >= _DEAF and self._open:
                await self._hang_up()
            raise failure from error
        self._timeouts = 0
        return result

    async def _connected(self) -> None:
        """Waits for the connection, but never breaks its building off.

        The client leaves a socket behind where its ``connect`` is cancelled; so a slow one goes on in the background,
        and the next call waits for the same one.
        """
        if self._open:
            return
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._client.connect())
        done, _ = await asyncio.wait({self._opening}, timeout=self._timeout_s)
        if not done:
            raise TimeoutError
        opening, self._opening = self._opening, None
        opening.result()
        self._open = True

    async def _hang_up(self) -> None:
        self._open = False
        self._timeouts = 0
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.close(), min(self._timeout_s, _HANG_UP_S))


def _snapshot(graph: Metagraph, netuid: int, hotkey: str, taken_at: float) -> Snapshot:
    standings = {row.hotkey: Standing(row.uid, row.validator_permit, row.total_stake.amount) for row in graph.neurons}
    ours = graph.by_hotkey(hotkey)
    return Snapshot(
        netuid=netuid,
        block=graph.block,
        taken_at=taken_at,
        standings=MappingProxyType(standings),
        uid=None if ours is None else ours.uid,
        axon=None if ours is None or ours.axon is None else Endpoint.parse(ours.axon),
        holders=tuple(graph.hotkeys),
    )


def _classified(what: str, error: Exception) -> ChainError:
    from bittensor import result  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, ChainError):
        return error
    detail = f"{what}: {' '.join(str(error).split())[:_DETAIL_CHARS] or type(error).__name__}"
    retry_after_s = None
    if isinstance(error, TimeoutError):
        trouble, detail = Trouble.TIMEOUT, f"{what}: no answer in time"
    elif isinstance(error, result.RpcPolicyError):
        trouble, retry_after_s = Trouble.RATE_LIMITED, _seconds(error.retry_after)
    elif isinstance(error, result.RpcConnectionError | result.ConnectionNotReady | OSError):
        trouble = Trouble.DOWN
    elif isinstance(error, result.ChainError):
        trouble = _OF_CODE.get(error.code.value, Trouble.OTHER)
    else:
        trouble = Trouble.OTHER
    return ChainError(trouble, detail, retry_after_s)


def _seconds(text: str | None) -> float | None:
    """A ``Retry-After`` in seconds; None for the form with a date, which endpoints of the chain do not use."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
