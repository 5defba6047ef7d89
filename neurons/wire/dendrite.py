"""The Dendrite wire of bittensor 6 to 10: synapses as JSON, the proof in ``bt_header_*`` headers.

A signature covers ``{nonce}.{caller}.{receiver}.{uuid}.{body hash}`` and nothing else: path, name, timeout and version
are anybody's to change, so none of them decides over anything but the deadline. No answer is ever signed.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from detectors.types import Prediction
from neurons.keys import verify as verify_signature
from neurons.wire.base import Caller, Challenge, Refusal, Replay, Request, Response
from neurons.wire.bodies import answer_value, synapse_challenge
from neurons.wire.encoding import MAX_INFLATED, parse_object
from neurons.wire.replay import Freshness
from neurons.wire.routes import SYNAPSES, expect, json_response, refusal_response

__all__ = ["EMPTY_BODY_HASH", "FUTURE_S", "WINDOW_S", "DendriteWire"]

WINDOW_S: Final = 12.0  # the longest a validator waits (9 s), and 3 s for clocks that differ
FUTURE_S: Final = 4.0

EMPTY_BODY_HASH: Final = hashlib.sha3_256().hexdigest()
"""The body hash of a synapse that names no hash fields: sha3-256 of nothing."""

_ADDRESS: Final = r"[1-9A-HJ-NP-Za-km-z]{46,48}"
# The signed text joins its parts by dots, so a part that held one could be cut in another place and the same signature
# would serve for a second (uuid, hash). These forms leave exactly one way to read it.
_SIGNED: Final[Mapping[str, re.Pattern[str]]] = {
    "bt_header_dendrite_nonce": re.compile(r"[1-9][0-9]{0,19}"),
    "bt_header_dendrite_uuid": re.compile(r"[0-9A-Za-z_-]{1,64}"),
    "bt_header_dendrite_hotkey": re.compile(_ADDRESS),
    "bt_header_dendrite_signature": re.compile(r"0x[0-9a-fA-F]{128}"),
    "bt_header_axon_hotkey": re.compile(_ADDRESS),
    "computed_body_hash": re.compile(r"[0-9a-f]{64}"),
}
_UNSIGNED: Final[Mapping[str, re.Pattern[str]]] = {
    "bt_header_dendrite_ip": re.compile(r"[0-9a-fA-F.:]{1,45}"),
    "bt_header_dendrite_version": re.compile(r"[0-9]{1,10}"),
    "bt_header_axon_ip": re.compile(r"[0-9a-fA-F.:]{1,45}"),
    "bt_header_axon_port": re.compile(r"[0-9]{1,5}"),
}
_NUMBERS: Final = frozenset({"nonce", "version", "port"})
_DEFAULT_TIMEOUT_S: Final = 12.0  # of a synapse that says nothing


class DendriteWire:
    """Answers a real Dendrite; see :class:`neurons.wire.base.Wire`.

    Freshness is judged at the time the headers arrived, so a large body on a slow line makes nobody stale.

    Args:
        hotkey: our ss58 address: the receiver that callers must have signed for.
        replay: memory of accepted (hotkey, uuid, nonce); exact, so requests may overtake each other.
        window_s: seconds that a nonce may be old, whatever the caller's `timeout` and `version` say.
        future_s: seconds that a nonce may be ahead.
        not_before_ns: see :class:`~neurons.wire.replay.Freshness`.
        require_body_hash: refuse bodies that the signature does not cover. Validators of SN34 do not cover them.
        max_inflated: bytes that a video may have after zlib.
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
        require_body_hash: bool = False,
        max_inflated: int = MAX_INFLATED,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._hotkey = hotkey
        self._replay = replay
        self._freshness = Freshness(window_s, future_s, not_before_ns)
        self._require_body_hash = require_body_hash
        self._max_inflated = max_inflated
        self._clock = clock

    @property
    def name(self) -> str:
        return "dendrite"

    def claim(self, request: Request) -> str:
        """Checks route, headers, receiver and freshness, the cheap before the expensive.

        Raises:
            Refusal: 404, 405, or 401 as a 10.5 Axon has it.
        """
        expect(request, tuple(SYNAPSES))
        for header, form in _SIGNED.items():
            value = request.headers.get(header)
            if value is None:
                raise Refusal(401, "missing_header", f"the header {header} is missing")
            if not form.fullmatch(value):
                raise Refusal(401, "malformed_header", f"the header {header} is malformed")
        headers = request.headers
        if headers["bt_header_axon_hotkey"] != self._hotkey:
            raise Refusal(401, "wrong_receiver", "the request is meant for another hotkey")
        if self._require_body_hash and headers["computed_body_hash"] == EMPTY_BODY_HASH:
            raise Refusal(401, "unsigned_body", "the signature does not cover the body")
        self._freshness.check(int(headers["bt_header_dendrite_nonce"]), request.received_ns)
        return headers["bt_header_dendrite_hotkey"]

    def unproven(self) -> Refusal:
        return Refusal(401, "bad_signature", "the signature does not hold")

    def verify(self, request: Request) -> Caller:
        """Proves the claim and sees to it that it is made once.

        The body is not read here: where it is signed, :meth:`decode` compares it, once access has let the caller in.

        Raises:
            Refusal: 404, 405, or 401 as a 10.5 Axon has it.
        """
        caller = self.claim(request)
        headers = request.headers
        nonce, uuid = headers["bt_header_dendrite_nonce"], headers["bt_header_dendrite_uuid"]
        message = f"{nonce}.{caller}.{self._hotkey}.{uuid}.{headers['computed_body_hash']}"
        signature = bytes.fromhex(headers["bt_header_dendrite_signature"][2:])
        if not verify_signature(caller, message.encode(), signature):
            raise self.unproven()
        if not self._replay.admit((caller, self.name, uuid, nonce), self._clock()):
            raise Refusal(401, "replayed_nonce", "this nonce was accepted before")
        return Caller(caller, self.name, int(nonce), _timeout(headers))

    def decode(self, request: Request) -> Challenge:
        """Parses the synapse and, where its hash is signed, compares the two.

        Raises:
            Refusal: 401 ``altered_body``; 413 or 422 for a body that is no synapse.
        """
        synapse = parse_object(request.body)
        claimed = request.headers.get("computed_body_hash", EMPTY_BODY_HASH)
        if claimed != EMPTY_BODY_HASH:
            self._compare(request, synapse, claimed)
        return synapse_challenge(request, synapse, self._max_inflated)

    def _compare(self, request: Request, synapse: dict[str, Any], claimed: str) -> None:
        """Recomputes the hash; which fields the caller's class hashes is not told, so each plausible list is tried."""
        media = SYNAPSES.get(request.path, "image")
        hashes = {field: _sha3(str(synapse[field])) for field in (media, "testnet_label") if field in synapse}
        orders: list[tuple[str, ...]] = [(media,), (media, "testnet_label"), ("testnet_label", media)]
        if not self._require_body_hash:
            orders.append(("testnet_label",))  # leaves the media uncovered
        for order in orders:
            if all(field in hashes for field in order) and _sha3("".join(hashes[f] for f in order)) == claimed:
                return
        raise Refusal(401, "altered_body", "the body is not the one that was signed")

    def encode(self, prediction: Prediction, challenge: Challenge, request: Request, seconds: float) -> Response:
        """The synapse without its media, the prediction filled in, and what ``is_success`` looks at."""
        status = {"status_code": 200, "status_message": "Success", "process_time": round(seconds, 6)}
        axon = {**status, **_terminal(request, "axon")}
        dendrite = _terminal(request, "dendrite")
        timeout = _timeout(request.headers) or _DEFAULT_TIMEOUT_S
        name = request.path[1:]
        content = {
            **challenge.echo,
            "name": name,
            "timeout": timeout,
            "dendrite": dendrite,
            "axon": axon,
            "prediction": answer_value(prediction, challenge.answer),
        }
        headers = {"name": name, "timeout": str(timeout)}
        headers |= {f"bt_header_axon_{field}": str(value) for field, value in axon.items()}
        headers |= {f"bt_header_dendrite_{field}": str(value) for field, value in dendrite.items()}
        return json_response(200, content, headers)

    def refuse(self, refusal: Refusal, request: Request) -> Response:
        """``{"message": …}`` and the two headers from which a Dendrite takes its status."""
        headers = {
            "bt_header_axon_status_code": str(refusal.status),
            "bt_header_axon_status_message": _one_line(refusal.detail),
        }
        return refusal_response(refusal, request, {"message": refusal.detail, "reason": refusal.reason}, headers)


def _sha3(text: str) -> str:
    return hashlib.sha3_256(text.encode()).hexdigest()


def _timeout(headers: Mapping[str, str]) -> float | None:
    """The caller's `timeout` in seconds where it is a sane number; unsigned, so only a hint."""
    try:
        seconds = float(headers.get("timeout", ""))
    except ValueError:
        return None
    return seconds if 0.0 < seconds < 3600.0 else None  # also refuses NaN


def _terminal(request: Request, side: str) -> dict[str, Any]:
    """The caller's own description of one side, each value only in its proper form: it goes into response headers."""
    prefix = f"bt_header_{side}_"
    found: dict[str, Any] = {}
    for header, form in (*_SIGNED.items(), *_UNSIGNED.items()):
        value = request.headers.get(header)
        if header.startswith(prefix) and value is not None and form.fullmatch(value):
            field = header.removeprefix(prefix)
            found[field] = int(value) if field in _NUMBERS else value
    return found


def _one_line(text: str) -> str:
    """Text that is safe in a header: printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
