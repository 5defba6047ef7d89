"""The groups of settings: what an operator can set, with defaults, ranges and one line of explanation each."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Axon", "Blacklist", "Console", "Logging", "Neuron", "Subtensor", "Telemetry", "Wallet", "Weights"]

_MIB = 1024 * 1024

Hotkeys = tuple[str, ...]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Wallet(_Group):
    """Which key signs for the miner."""

    name: str = Field(default="default", min_length=1, description="name of the wallet (the coldkey's folder)")
    hotkey: str = Field(default="default", min_length=1, description="name of the hotkey in that wallet")
    path: str = Field(default="~/.bittensor/wallets", min_length=1, description="folder that holds the wallets")


class Subtensor(_Group):
    """Which chain the miner belongs to."""

    network: str = Field(
        default="finney", min_length=1, description="finney, test, local, or a name the chain client knows"
    )
    chain_endpoint: str | None = Field(default=None, description="ws:// or wss:// address; overrides the network's own")
    refresh_s: float = Field(default=120.0, gt=0, description="time between two looks at the metagraph")
    timeout_s: float = Field(
        default=30.0, gt=0, description="longest time one chain call may take; publishing gets three"
    )
    max_age_s: float = Field(
        default=3600.0, gt=0, description="without news from the chain for this long, nobody who needs it is served"
    )


class Axon(_Group):
    """Where the miner listens and what one connection may cost."""

    ip: str = Field(default="0.0.0.0", description="address to bind, exactly this one")  # noqa: S104 - a miner serves the net
    port: int = Field(default=8091, ge=0, le=65535, description="port to bind; 0 takes a free one and reports it")
    external_ip: str | None = Field(
        default=None, description="address to publish; null publishes `ip`, where that is a public one"
    )
    external_port: int | None = Field(
        default=None, ge=1, le=65535, description="port to publish; null publishes `port`"
    )
    max_body_bytes: int = Field(default=32 * _MIB, ge=1024, description="largest request body; more gets 413")
    max_buffered_bytes: int = Field(default=512 * _MIB, ge=1024, description="all bodies held at once; more gets 503")
    header_timeout_s: float = Field(
        default=5.0, gt=0, description="a connection without complete headers is closed after this"
    )
    body_timeout_s: float = Field(default=10.0, gt=0, description="a body that is not complete by then gets 408")
    keep_alive_s: float = Field(default=75.0, gt=0, description="an idle connection is closed after this")
    max_connections: int = Field(
        default=8192, ge=1, description="connections open at once; more are closed as they come"
    )
    max_per_address: int = Field(
        default=1024, ge=1, description="of those, from one IPv4 address or IPv6 /64; more are closed as they come"
    )
    require_body_hash: bool = Field(
        default=False,
        description="refuse Dendrite bodies that the signature does not cover; SN34's does not cover them",
    )
    max_in_flight: int = Field(default=4096, ge=1, description="requests between body and answer; more get 503")
    address_rate: float = Field(
        default=1000.0, ge=0, description="requests a second of one IPv4 address or IPv6 /64; more get 429; 0 for any"
    )
    address_burst: int = Field(default=2000, ge=1, description="requests that an address may send at once")
    grace_s: float = Field(default=10.0, ge=0, description="time to finish what was admitted, after SIGTERM")

    @field_validator("ip", "external_ip")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            ip_address(value)
        return value


class Blacklist(_Group):
    """Who may ask; see ``neurons.access``."""

    force_validator_permit: bool = Field(default=True, description="only hotkeys with a validator permit may ask")
    allow_non_registered: bool = Field(default=False, description="hotkeys outside the metagraph may ask")
    min_stake: float = Field(default=0.0, ge=0, description="least stake, in the unit of the subnet's metagraph")
    allow: Hotkeys = Field(default=(), description="ss58 hotkeys that may always ask (comma separated)")
    deny: Hotkeys = Field(default=(), description="ss58 hotkeys that may never ask (comma separated)")
    hotkey_rate: float = Field(
        default=500.0, ge=0, description="requests a second of one proven hotkey; more get 429; 0 for any"
    )
    hotkey_burst: int = Field(default=1000, ge=1, description="requests that a hotkey may send at once")

    @field_validator("allow", "deny", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


class Logging(_Group):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is written"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console for people, json for collectors; auto is console on a terminal, else json"
    )

    @field_validator("level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class Neuron(_Group):
    """The detector and the queue before it."""

    detector: Literal["camo", "trivial"] = Field(
        default="camo", description="trivial answers a constant: for benchmarks only"
    )
    camo: Path | None = Field(default=None, description="path of camo.yaml; null takes configs/camo.yaml")
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$", description="cpu, cuda, cuda:N or mps")
    threads: int = Field(default=0, ge=0, description="threads of one inference; 0 leaves it to torch")
    deadline_s: float = Field(
        default=8.0, gt=0, description="longest time an answer may take, whatever the caller says"
    )
    margin_s: float = Field(default=0.5, ge=0, description="kept back from the caller's timeout for the way home")
    max_batch: int = Field(default=8, ge=1, description="images in one batch; a video counts as four")
    queue_limit: int = Field(
        default=4096,
        ge=1,
        description="challenges that may wait, a bound on memory; who would be late gets 503 long before",
    )


class Weights(_Group):
    """Where weights are, and what new ones must hold before they answer; see ``detectors.live``."""

    store: Path | None = Field(default=None, description="folder of the weights; null takes weights/")
    watch: bool = Field(default=True, description="take up changes of active.json and camo.yaml while serving")
    poll_s: float = Field(default=2.0, gt=0, description="time between two looks where the system tells of no changes")
    probe_budget_ms: float = Field(
        default=2000.0, gt=0, description="new weights that need longer for a batch of eight pictures stay out"
    )
    reserve_mib: int = Field(default=512, ge=0, description="memory that must stay free while two sets are loaded")


class Telemetry(_Group):
    """Prometheus metrics; see ``neurons.telemetry``."""

    enabled: bool = Field(default=True, description="serve Prometheus metrics")
    ip: str = Field(default="127.0.0.1", description="address that metrics are served at")
    port: int = Field(default=9108, ge=0, le=65535, description="port of /metrics; 0 takes a free one and reports it")


class Console(_Group):
    """The operator's page; see ``neurons.console``."""

    enabled: bool = Field(default=False, description="serve the operator's page")
    ip: str = Field(default="127.0.0.1", description="address that the console is served at")
    port: int = Field(default=9109, ge=0, le=65535, description="port of the page; 0 takes a free one and reports it")
    token_file: Path = Field(
        default=Path("~/.deepfake-miner/console-token"),
        description="file with the console's token; made where there is none",
    )
    thumbnails: int = Field(
        default=48, ge=0, le=500, description="last challenges that are kept to look at; 0 for none"
    )
