"""Which path means what, which wire a request speaks, and the few answers that need no wire of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import orjson

from detectors.types import Modality
from neurons.wire.base import Refusal, Request, Response

__all__ = [
    "INFO",
    "MEDIA",
    "RAW",
    "SEGMENT",
    "SYNAPSES",
    "WireName",
    "expect",
    "json_response",
    "miner_info_response",
    "refusal_response",
    "root_response",
    "wire_name",
]

WireName = Literal["dendrite", "btauth", "epistula"]

SYNAPSES: Final[Mapping[str, Modality]] = MappingProxyType({"/ImageSynapse": "image", "/VideoSynapse": "video"})
"""Paths whose body is a synapse as JSON."""

RAW: Final[Mapping[str, Modality]] = MappingProxyType({"/detect_image": "image", "/detect_video": "video"})
"""Paths whose body is the media itself."""

INFO: Final = "/miner_info"
SEGMENT: Final = "/segment_image"

MEDIA: Final[Mapping[str, Modality]] = MappingProxyType({**RAW, SEGMENT: "image"})
"""Paths whose body is the media itself, with the one that is answered with a mask."""

_JSON: Final = "application/json"


def wire_name(headers: Mapping[str, str]) -> WireName:
    """The wire that a request claims to speak; what carries no other wire's version header is taken for a synapse.

    Args:
        headers: by lower-case name.
    """
    if "x-bittensor-version" in headers:
        return "btauth"
    return "epistula" if "epistula-version" in headers else "dendrite"


def expect(request: Request, paths: tuple[str, ...]) -> None:
    """Checks path and method.

    Raises:
        Refusal: 404 ``unknown_route`` (telling nothing of the routes there are), or 405 ``method``.
    """
    if request.path not in paths:
        raise Refusal(404, "unknown_route", "there is nothing at this path")
    if request.method != ("GET" if request.path == INFO else "POST"):
        raise Refusal(405, "method", "this method is not allowed here")


def json_response(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, orjson.dumps(content), {"content-type": _JSON, **(headers or {})})


def refusal_response(refusal: Refusal, request: Request, content: Any, headers: Mapping[str, str]) -> Response:
    """What the three wires' refusals share."""
    allow = {"allow": "GET" if request.path == INFO else "POST"} if refusal.status == 405 else {}
    return json_response(refusal.status, content, {**headers, **allow})


def root_response() -> Response:
    """``GET /``: that something is alive, and no more."""
    return json_response(200, {"status": "ok"})


def miner_info_response(hotkey: str, uid: int | None) -> Response:
    """``GET /miner_info``, for a verified caller.

    Args:
        hotkey: our ss58 address.
        uid: our number in the subnet, or None where it is unknown (offline).
    """
    return json_response(200, {"miner_type": "DETECTOR", "uid": uid, "hotkey": hotkey})
