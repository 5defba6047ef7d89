"""The ``btauth/1`` wire of bittensor 11: any HTTP request, proven by ``X-Bittensor-*`` headers, body always covered.

Serves what the other two serve: media as the body of ``/detect_*``, and synapses as JSON.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from detectors.types import Prediction
from neurons.keys import is_address
from neurons.wire.base import Caller, Challenge, Refusal, Replay, Request, Response
from neurons.wire.bodies import decode_raw, decode_synapse, encode_raw
from neurons.wire.encoding import MAX_INFLATED
from neurons.wire.replay import Freshness
from neurons.wire.routes import INFO, RAW, SYNAPSES, expect, refusal_response

__all__ = ["FUTURE_S", "WINDOW_S", "BtAuthWire"]

WINDOW_S: Final = 10.0  # both as the protocol has them
FUTURE_S: Final = 2.0

_PREFIX: Final = "x-bittensor-"
_SCHEMES: Final = ("sr25519", "ed25519")
_NONCE: Final = re.compile(r"[1-9][0-9]{0,19}")
_ADDRESS: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,48}")
_SIGNATURE: Final = re.compile(r"0x[0-9a-fA-F]{128}")


class BtAuthWire:
    """Answers ``btauth/1`` requests; see :class:`neurons.wire.base.Wire`.

    Args:
        hotkey: our ss58 address; a request that is bound to no receiver is refused.
        replay: memory of accepted (hotkey, nonce).
        window_s: seconds that a nonce may be old.
        future_s: seconds that a nonce may be ahead.
        not_before_ns: see :class:`~neurons.wire.replay.Freshness`.
        max_inflated: bytes that the video of a synapse may have after zlib.
        clock: nanoseconds since the epoch, for the age of the memory.
    """

    def __init__(
        self,
        hotkey: str,
        replay: Replay,
        *,
        window_s: float = WINDOW_S,
        future_s: float = FUTURE_S,
        not_before_ns: int = 0,
        max_inflated: int = MAX_INFLATED,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._hotkey = hotkey
        self._freshness = Freshness(window_s, future_s, not_before_ns)
        self._max_inflated = max_inflated
        self._nonces = _Nonces(replay, self.name, clock)

    @property
    def name(self) -> str:
        return "btauth"

    def claim(self, request: Request) -> str:
        """Checks route, headers, receiver and freshness.

        Raises:
            Refusal: 404, 405 or 401.
        """
        expect(request, (*RAW, *SYNAPSES, INFO))
        # An unknown version or scheme is refused by the proof as well; here, because the proof may not be reached.
        headers = request.headers
        if headers.get(_PREFIX + "version") != "1" or headers.get(_PREFIX + "crypto", "sr25519") not in _SCHEMES:
            raise Refusal(401, "malformed_header", "the authentication headers are malformed")
        for field, form in (("hotkey", _ADDRESS), ("nonce", _NONCE), ("signature", _SIGNATURE)):
            value = headers.get(_PREFIX + field)
            if value is None:
                raise Refusal(401, "missing_header", f"the header {_PREFIX}{field} is missing")
            if not form.fullmatch(value):
                raise Refusal(401, "malformed_header", f"the header {_PREFIX}{field} is malformed")
        if not is_address(headers[_PREFIX + "hotkey"]):
            raise Refusal(401, "malformed_header", f"the header {_PREFIX}hotkey is not a bittensor address")
        if headers.get(_PREFIX + "receiver") != self._hotkey:
            raise Refusal(401, "wrong_receiver", "the request is not bound to this hotkey")
        # Checked here as well as there, because this refusal says by how much two clocks differ.
        self._freshness.check(int(headers[_PREFIX + "nonce"]), request.received_ns)
        return headers[_PREFIX + "hotkey"]

    def unproven(self) -> Refusal:
        return Refusal(401, "bad_signature", "the signature does not hold")

    def verify(self, request: Request) -> Caller:
        """Leaves the proof of the claim to bittensor's own implementation.

        Raises:
            Refusal: 404, 405 or 401.
        """
        self.claim(request)
        return self._prove(request)

    def _prove(self, request: Request) -> Caller:
        """The one call of ``bittensor.http_auth.verify``; later releases want to be told the accepted schemes."""
        from bittensor import http_auth  # noqa: PLC0415 - half a second that --help need not pay

        try:
            proven = http_auth.verify(
                {name: value for name, value in request.headers.items() if name.startswith(_PREFIX)},
                request.body,
                method=request.method,
                path=request.target,
                self_hotkey_ss58=self._hotkey,
                max_age=self._freshness.window_s,
                allowed_skew=self._freshness.future_s,
                nonce_store=self._nonces,
                now_ns=request.received_ns,
            )
        except http_auth.ReplayedRequest as error:
            raise Refusal(401, "replayed_nonce", "this nonce was accepted before") from error
        except (http_auth.AuthError, UnicodeEncodeError) as error:
            # The claim was well-formed, so whatever else it finds is wrong with the signature (or with a path that
            # nobody can have signed), and is told like any other signature that does not hold.
            raise self.unproven() from error
        return Caller(proven.hotkey_ss58, self.name, proven.nonce_ns)

    def decode(self, request: Request) -> Challenge:
        """Reads the body as its path says.

        Raises:
            Refusal: 404, 413, 415 or 422.
        """
        if request.path in SYNAPSES:
            return decode_synapse(request, self._max_inflated)
        return decode_raw(request)

    def encode(self, prediction: Prediction, challenge: Challenge, request: Request, seconds: float) -> Response:
        """JSON with ``prediction``; for a synapse in the form its default shows, beside its other fields."""
        return encode_raw(prediction, challenge)

    def refuse(self, refusal: Refusal, request: Request) -> Response:
        content = {"status": "error", "reason": refusal.reason, "message": refusal.detail}
        return refusal_response(refusal, request, content, {})


class _Nonces:
    """Our bounded memory in the shape of bittensor's ``NonceStore``, which by itself grows without limit."""

    def __init__(self, replay: Replay, wire: str, clock: Callable[[], int]) -> None:
        self._replay = replay
        self._wire = wire
        self._clock = clock

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        return self._replay.admit((hotkey_ss58, self._wire, str(nonce_ns)), self._clock())
