"""A small chain in memory behind the SDK's documented ``substrate=`` seam: the real client runs on top of it.

It keeps the rules that matter to a miner: only a registered hotkey may publish its axon, only so often, and only over
its own signature. Faults are the ones the real backend raises, or none at all for ever (a hung call).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from bittensor.balance import Balance
from bittensor.client import Client
from bittensor.result import ChainError, ExtrinsicResult

from neurons import keys

__all__ = ["NETUID", "FakeSubstrate", "Row", "client"]

NETUID = 34
SERVING_RATE_LIMIT_BLOCKS = 50
GENESIS_S = 1_700_000_000
BLOCK_S = 12.0
RAO = 10**9


@dataclass
class Row:
    """One slot of the subnet."""

    hotkey: str
    validator_permit: bool = False
    total_stake: float = 0.0
    axon: dict[str, int] | None = None
    served_at: int | None = None


@dataclass
class FakeSubstrate:
    """Implements what ``Client`` needs of ``bittensor.Substrate`` for a miner's calls.

    Attributes:
        rows: the subnet's slots, by uid.
        block: the head; advance it by hand, or set `step` to let every read of the head advance it.
        fault: asked before every operation with its name; raises, or gives True to make the operation hang.
        calls: names of the operations that were started.
        served: set when an axon was published.
        exists: whether there is such a subnet at all.
    """

    rows: list[Row] = field(default_factory=list)
    block: int = 1000
    step: int = 0
    fault: Callable[[str], bool | None] | None = None
    calls: list[str] = field(default_factory=list)
    served: threading.Event = field(default_factory=threading.Event)
    exists: bool = True
    registrations: dict[str, int] | None = None  # overrides what `rows` say, for nodes that contradict themselves
    token_symbols: dict[int, str] = field(default_factory=dict)
    connections: int = 0

    def uid(self, hotkey: str) -> int | None:
        return next((uid for uid, row in enumerate(self.rows) if row.hotkey == hotkey), None)

    async def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.fault is not None and self.fault(name):
            await asyncio.Event().wait()

    def balance(self, rao: int, netuid: int = 0) -> Balance:
        return Balance(int(rao), netuid, None)

    async def connect(self) -> None:
        await self._enter("connect")
        self.connections += 1

    async def close(self) -> None:
        await self._enter("close")

    async def block_hash(self, block: int | None = None) -> str:
        return f"0x{self.block if block is None else block:064x}"

    async def block_number(self) -> int:
        await self._enter("block_number")
        self.block += self.step
        return self.block

    async def block_time(self) -> float:
        return BLOCK_S

    async def query(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> Any:
        await self._enter(storage_function)
        if (module, storage_function) == ("Timestamp", "Now"):
            return int((GENESIS_S + self.block * BLOCK_S) * 1000)
        if (module, storage_function) == ("SubtensorModule", "Uids"):
            assert params is not None
            netuid, hotkey = params
            assert netuid == NETUID
            return self.uid(hotkey) if self.registrations is None else self.registrations.get(hotkey)
        raise NotImplementedError(f"{module}.{storage_function}")

    async def query_map(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> list[tuple[Any, Any]]:
        await self._enter(storage_function)
        assert (module, storage_function) == ("SubtensorModule", "TokenSymbol")
        return [(NETUID, b"x")]

    async def runtime_call(self, api: str, method: str, params: list[Any], block_hash: str | None = None) -> Any:
        await self._enter(method)
        assert (api, method, params) == ("SubnetInfoRuntimeApi", "get_metagraph", [NETUID])
        assert block_hash is not None
        return self._graph(int(block_hash, 16)) if self.exists else None

    def _graph(self, block: int) -> dict[str, Any]:
        rows = self.rows
        return {
            "netuid": NETUID,
            "name": "subnet",
            "symbol": "x",
            "block": block,
            "tempo": 360,
            "last_step": block - 5,
            "blocks_since_last_step": 5,
            "owner_hotkey": "owner",
            "owner_coldkey": "owner",
            "network_registered_at": 1,
            "num_uids": len(rows),
            "max_uids": 256,
            "tao_in": 1,
            "alpha_in": 1,
            "hotkeys": [row.hotkey for row in rows],
            "coldkeys": ["coldkey" for _ in rows],
            "axons": [row.axon or {"ip": 0, "port": 0, "ip_type": 4} for row in rows],
            "active": [True for _ in rows],
            "validator_permit": [row.validator_permit for row in rows],
            "total_stake": [int(row.total_stake * RAO) for row in rows],
        }

    async def compose(self, call: Any) -> Any:
        return call

    async def estimate_fee(self, call: Any, keypair: Any) -> Balance:
        return Balance.from_rao(0)

    async def submit(self, call: Any, keypair: Any, **options: Any) -> ExtrinsicResult:
        await self._enter("submit")
        module, function, params = call
        assert (module, function) == ("SubtensorModule", "serve_axon")
        payload = repr(call).encode()
        assert keys.verify(keypair.ss58_address, payload, keypair.sign(payload))
        uid = self.uid(keypair.ss58_address)
        if uid is None:
            return _rejected("HotKeyNotRegisteredInNetwork")
        row = self.rows[uid]
        if row.served_at is not None and self.block - row.served_at < SERVING_RATE_LIMIT_BLOCKS:
            return _rejected("ServingRateLimitExceeded")
        row.axon = {"ip": params["ip"], "port": params["port"], "ip_type": params["ip_type"]}
        row.served_at = self.block
        self.served.set()
        return ExtrinsicResult(success=True, message="Success")

    def published(self, hotkey: str) -> tuple[str, int] | None:
        """What a validator would find."""
        uid = self.uid(hotkey)
        axon = None if uid is None else self.rows[uid].axon
        return None if axon is None else (str(ip_address(axon["ip"])), axon["port"])


def _rejected(name: str) -> ExtrinsicResult:
    error = ChainError(f"rejected: {name}", name)
    return ExtrinsicResult(success=False, message=error.message, error=error)


def client(substrate: FakeSubstrate) -> Client:
    """The SDK's real client on top of `substrate`."""
    return Client("local", substrate=substrate)  # type: ignore[arg-type]  # the part of the protocol that a miner uses
