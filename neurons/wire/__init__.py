"""Three dialects on one server: the Dendrite wire, ``btauth/1`` and Epistula v2, each verify, decode and encode."""

from __future__ import annotations

from collections.abc import Mapping

from neurons.wire.base import Replay, Wire

__all__ = ["build", "select"]


def build(
    hotkey: str, *, replay: Replay | None = None, not_before_ns: int = 0, require_body_hash: bool = False
) -> dict[str, Wire]:
    """All wires of one miner, by name, sharing one replay memory.

    Args:
        hotkey: the miner's ss58 address; requests must be signed for it.
        replay: a :class:`~neurons.wire.replay.ReplayGuard` of the usual size by default.
        not_before_ns: nonces before this time are stale; see :class:`~neurons.wire.replay.Freshness`.
        require_body_hash: refuse Dendrite requests whose signature does not cover the media.
    """
    # Imported late: whoever only needs the nouns of `base` gets them without the decoders.
    from neurons.wire.btauth import BtAuthWire  # noqa: PLC0415
    from neurons.wire.dendrite import DendriteWire  # noqa: PLC0415
    from neurons.wire.epistula import EpistulaWire  # noqa: PLC0415
    from neurons.wire.replay import ReplayGuard  # noqa: PLC0415

    memory = ReplayGuard() if replay is None else replay
    wires: tuple[Wire, ...] = (
        DendriteWire(hotkey, memory, not_before_ns=not_before_ns, require_body_hash=require_body_hash),
        BtAuthWire(hotkey, memory, not_before_ns=not_before_ns),
        EpistulaWire(hotkey, memory, not_before_ns=not_before_ns),
    )
    return {wire.name: wire for wire in wires}


def select(wires: Mapping[str, Wire], headers: Mapping[str, str]) -> Wire | None:
    """The wire that a request's `headers` (lower-case names) claim to speak, None where it is not served."""
    from neurons.wire.routes import wire_name  # noqa: PLC0415

    return wires.get(wire_name(headers))
