"""What the three wires have in common: a raw request comes in, a typed caller and challenge come out, or a refusal.

A wire is stateless apart from the replay guard it is given, never touches pixels and knows no policy: whether a
verified caller *may* ask is ``neurons.access``' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from detectors.types import Modality, Prediction

__all__ = ["Answer", "Caller", "Challenge", "Refusal", "Replay", "Request", "Response", "Wire"]

Answer = Literal["float", "vector"]
Encoding = Literal["image", "jpeg-frames", "container"]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it came off the socket.

    Attributes:
        method: upper case.
        target: the raw path with its query, exactly as sent (btauth signs it).
        headers: by lower-case name; of a repeated header the first.
        body: complete; already within the server's cap.
        received_ns: wall clock when the headers were complete, nanoseconds since the epoch.
        client: address of the socket's other end, for logs and for counting requests; never identity.
        id: given by the server; see :func:`neurons.seen.new_id`.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    received_ns: int
    client: str = ""
    id: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer, complete."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, proven by a signature. Nothing in here comes from an unsigned place except what says so.

    Attributes:
        hotkey: ss58 address whose key signed.
        wire: name of the dialect.
        nonce_ns: the signed time, nanoseconds since the epoch.
        timeout_s: how long the caller says it waits; *unsigned* on the Dendrite wire, so only ever a hint for the
            deadline, never for freshness. None where the wire carries none.
    """

    hotkey: str
    wire: str
    nonce_ns: int
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is asked, transport encoding (JSON, base64, base85, zlib) removed, media encoding still on.

    Attributes:
        modality: image or video.
        payload: an encoded image; or concatenated JPEG frames; or a video container.
        encoding: which of the three `payload` is.
        answer: whether the caller reads a float or a three-vector.
        testnet_label: the truth where a test network sends it along, else None. For statistics only.
        echo: what the wire must send back beside the prediction (Dendrite: the synapse without its media).
        wants: a prediction, or a mask of what in the image is fake (Epistula's ``/segment_image``).
        id: of the request.
    """

    modality: Modality
    payload: bytes
    encoding: Encoding
    answer: Answer
    testnet_label: int | None = None
    echo: Mapping[str, Any] = field(default_factory=dict)
    wants: Literal["prediction", "mask"] = "prediction"
    id: str = ""


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error of ours
    """A request that is not served.

    Args:
        status: HTTP status, 4xx or 5xx.
        reason: short and stable, for metrics and clients, e.g. ``"stale_nonce"``.
        detail: one sentence that a caller may read; never a list of routes, never a signature of ours.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


class Replay(Protocol):
    """Remembers what was seen for longer than any freshness window; bounded in memory."""

    def admit(self, key: tuple[str, ...], now_ns: int) -> bool:
        """True the first time `key` is seen, False for a repetition. Called only after the signature held."""
        ...


class Wire(Protocol):
    """One dialect. All steps are synchronous, free of I/O and safe to call from several threads."""

    @property
    def name(self) -> str: ...

    def claim(self, request: Request) -> str:
        """The hotkey that a request says it is from; proves nothing and reads no body.

        Everything that can be checked without the signature is: route, form, receiver, freshness. So a request that
        passes here is refused by :meth:`verify` only with :meth:`unproven` or as a repetition.

        Raises:
            Refusal: as :meth:`verify` has it.
        """
        ...

    def unproven(self) -> Refusal:
        """How a signature that does not hold is refused."""
        ...

    def verify(self, request: Request) -> Caller:
        """Proves who asks, that it is fresh, meant for us and seen for the first time.

        Raises:
            Refusal: the status and reason that the reference of this wire gives.
        """
        ...

    def decode(self, request: Request) -> Challenge:
        """Takes the transport encoding off; bounded in depth and size.

        Raises:
            Refusal: 4xx with the reason.
        """
        ...

    def encode(self, prediction: Prediction, challenge: Challenge, request: Request, seconds: float) -> Response:
        """The answer in the caller's dialect; `seconds` is the time spent on it."""
        ...

    def refuse(self, refusal: Refusal, request: Request) -> Response:
        """The refusal in the caller's dialect."""
        ...
