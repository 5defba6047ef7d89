"""The Epistula v2 wire (SN34 v3.x and many other subnets): bare media, proven by ``Epistula-*`` headers.

Signed are ``{sha256 of the body}.{uuid}.{timestamp}.{receiver}``. The sender's address is not in the text: it is proven
by the key alone, so only one spelling of an address may count (:func:`neurons.keys.is_address`).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from detectors.types import Prediction
from neurons.keys import verify as verify_signature
from neurons.wire.base import Caller, Challenge, Refusal, Replay, Request, Response
from neurons.wire.bodies import decode_raw, encode_mask, encode_raw
from neurons.wire.replay import Freshness
from neurons.wire.routes import INFO, MEDIA, expect, refusal_response

__all__ = ["FUTURE_S", "WINDOW_S", "EpistulaWire"]

WINDOW_S: Final = 8.0  # as the protocol has it
FUTURE_S: Final = 4.0

_MILLISECOND: Final = 1_000_000
_VERSION: Final = "2"
_HEADERS: Final[Mapping[str, re.Pattern[str]]] = {
    "epistula-timestamp": re.compile(r"[1-9][0-9]{0,14}"),
    "epistula-uuid": re.compile(r"[0-9A-Za-z_-]{1,64}"),  # no dot: it joins the parts of the signed text
    "epistula-signed-by": re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,48}"),
    "epistula-signed-for": re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,48}"),
    "epistula-request-signature": re.compile(r"0x[0-9a-fA-F]{128}"),
}


class EpistulaWire:
    """Answers Epistula v2 requests; see :class:`neurons.wire.base.Wire`.

    ``GET /`` and what ``GET /miner_info`` answers are in :mod:`neurons.wire.routes`.

    Args:
        hotkey: our ss58 address: the receiver that callers must have signed for.
        replay: memory of accepted (hotkey, uuid, timestamp).
        window_s: seconds that a timestamp may be old.
        future_s: seconds that a timestamp may be ahead.
        not_before_ns: see :class:`~neurons.wire.replay.Freshness`.
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
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._hotkey = hotkey
        self._replay = replay
        self._freshness = Freshness(window_s, future_s, not_before_ns)
        self._clock = clock

    @property
    def name(self) -> str:
        return "epistula"

    def claim(self, request: Request) -> str:
        """Checks route, version, headers, receiver and freshness, in the order of their cost.

        Raises:
            Refusal: 404, 405, or 400 as the reference has it.
        """
        expect(request, (*MEDIA, INFO))
        headers = request.headers
        if headers.get("epistula-version") != _VERSION:
            raise Refusal(400, "unknown_version", "the header epistula-version is missing or not 2")
        for header, form in _HEADERS.items():
            value = headers.get(header)
            if value is None:
                raise Refusal(400, "missing_header", f"the header {header} is missing")
            if not form.fullmatch(value):
                raise Refusal(400, "malformed_header", f"the header {header} is malformed")
        if headers["epistula-signed-for"] != self._hotkey:
            raise Refusal(400, "wrong_receiver", "the request is meant for another hotkey")
        self._freshness.check(int(headers["epistula-timestamp"]) * _MILLISECOND, request.received_ns, status=400)
        return headers["epistula-signed-by"]

    def unproven(self) -> Refusal:
        return Refusal(400, "bad_signature", "the signature does not hold")

    def verify(self, request: Request) -> Caller:
        """Proves the claim, the body included, and sees to it that it is made once.

        Raises:
            Refusal: 404, 405, or 400 as the reference has it.
        """
        caller = self.claim(request)
        headers = request.headers
        uuid, timestamp = headers["epistula-uuid"], headers["epistula-timestamp"]
        message = f"{hashlib.sha256(request.body).hexdigest()}.{uuid}.{timestamp}.{self._hotkey}"
        signature = bytes.fromhex(headers["epistula-request-signature"][2:])
        if not verify_signature(caller, message.encode(), signature):
            raise self.unproven()
        if not self._replay.admit((caller, self.name, uuid, timestamp), self._clock()):
            raise Refusal(400, "replayed_nonce", "this request was accepted before")
        return Caller(caller, self.name, int(timestamp) * _MILLISECOND)

    def decode(self, request: Request) -> Challenge:
        """Takes the body as it is.

        Raises:
            Refusal: 404, 415 or 422.
        """
        return decode_raw(request, MEDIA)

    def encode(self, prediction: Prediction, challenge: Challenge, request: Request, seconds: float) -> Response:
        """``{"status": "success", "prediction": [real, synthetic, semi-synthetic]}``; to ``/segment_image`` a mask."""
        return encode_mask(prediction) if challenge.wants == "mask" else encode_raw(prediction, challenge)

    def refuse(self, refusal: Refusal, request: Request) -> Response:
        content = {"status": "error", "reason": refusal.reason, "detail": refusal.detail}
        return refusal_response(refusal, request, content, {})
