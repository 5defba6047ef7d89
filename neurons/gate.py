"""Who comes in: the address' rate, the claimed hotkey, the proof, access and the hotkey's rate, in the order of cost.

What a stranger may learn. Nobody is told the verdict of :func:`neurons.access.decide` on a hotkey that is not proven to
be theirs. A request whose claimed hotkey cannot be served is refused without hashing its body, without checking its
signature and without keeping or parsing a byte of what it sent, and the refusal is, byte for byte and at the same
point of the exchange, the one that a wrong signature gets on that wire. What comes before the signature on a wire
(route, form, receiver, age) is checked for everybody alike, so it tells nothing about a hotkey either.

So that the honest owner of a refused hotkey still learns why, a few such signatures a second are checked after all
(`RateLimits.proofs`, counted over all callers): who proves the key gets 403 and the reason. Within that budget a
stranger cannot tell a refused hotkey from a served one by any means. A flood of forged names uses the budget up and is
cheap from then on; what is left to measure is the tens of microseconds of a proof that does not happen. The budget also
bounds what keys that anybody makes up can do with valid signatures: only so many of them a second are verified, and
only what is verified enters the replay memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from neurons.access import Decision
from neurons.limits import Buckets, RateLimited, RateLimits, address_key
from neurons.scheduler import Overloaded
from neurons.wire.base import Caller, Refusal, Request, Wire

__all__ = ["Gate"]

_RETRY_STALE_S = 60.0  # half of the usual time between two looks at the metagraph


class Gate:
    """See the module's docstring. All methods are free of I/O and safe to call from several threads.

    Args:
        access: the decision on a hotkey, whether proven or only claimed.
        rates: see :class:`~neurons.limits.RateLimits`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        access: Callable[[str], Decision],
        rates: RateLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rates = rates or RateLimits()
        self._access = access
        self._addresses = Buckets(rates.address, capacity=rates.capacity, known=rates.known, clock=clock)
        self._hotkeys = Buckets(rates.hotkey, capacity=rates.capacity, known=rates.known, clock=clock)
        self._proofs = Buckets(rates.proofs, capacity=1, known=1, clock=clock)

    def held(self) -> int:
        """Addresses and hotkeys in memory; bounded by twice (capacity + known)."""
        return len(self._addresses) + len(self._hotkeys)

    def knock(self, address: str) -> None:
        """Counts a request of `address`, the other end of the socket.

        Raises:
            RateLimited: 429, too many.
        """
        wait = self._addresses.take(address_key(address))
        if wait:
            raise RateLimited("address_rate", wait)

    def foresee(self, wire: Wire, head: Request) -> Refusal | None:
        """What the headers alone decide: the refusal that the request will get, or None where its body matters.

        A refusal is answered once the body has been read and dropped, when a wrong signature would be.

        Args:
            wire: that the request claims to speak.
            head: the request without its body.
        """
        if head.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            # Before the proof, because no wire has a coding: nobody learns more than that.
            return Refusal(415, "content_coding", "bodies are taken without a content coding")
        try:
            hotkey = wire.claim(head)
        except Refusal as refusal:
            return refusal
        decision = self._access(hotkey)
        if decision.reason == "stale_metagraph":
            # Whoever it is: this is no verdict on a hotkey, and a validator must not read of a bad signature for it.
            return _stale()
        if decision.allowed or not self._proofs.take():
            return None
        return wire.unproven()

    def admit(self, wire: Wire, request: Request) -> tuple[Caller, Decision]:
        """The verified caller and the decision that lets it in, with its priority in the queue.

        Raises:
            Refusal: it is not verified, may not ask (403, or 503 where only an old metagraph stands against it), or
                asks too often (429).
        """
        caller = wire.verify(request)
        decision = self._access(caller.hotkey)
        if decision.reason == "stale_metagraph":
            raise _stale()
        if not decision.allowed:
            raise Refusal(403, decision.reason, "this hotkey is not served")
        key = caller.hotkey.encode()
        if decision.known:
            # Nobody can make such a caller up, so neither can forged ones crowd it out.
            self._hotkeys.vouch(key)
            self._addresses.vouch(address_key(request.client))
        wait = self._hotkeys.take(key)
        if wait:
            raise RateLimited("hotkey_rate", wait)
        return caller, decision


def _stale() -> Overloaded:
    return Overloaded("stale_metagraph", "this miner has not heard from the chain for too long", _RETRY_STALE_S)
