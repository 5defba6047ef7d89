"""The two kinds of bodies, whichever way their sender is authenticated: a synapse as JSON, or the bare media."""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from detectors.types import Modality, Prediction
from neurons.wire.base import Answer, Challenge, Refusal, Request, Response
from neurons.wire.encoding import MAX_INFLATED, decode_base64, inflate_base85, parse_object
from neurons.wire.routes import RAW, SEGMENT, SYNAPSES, json_response

__all__ = ["answer_value", "decode_raw", "decode_synapse", "encode_mask", "encode_raw", "synapse_challenge"]

# Of every synapse; what is left belongs to the class that the validator defined.
_FRAMEWORK: Final = frozenset(
    {"name", "timeout", "total_size", "header_size", "dendrite", "axon", "computed_body_hash", "required_hash_fields"}
)
_REQUIRED_PREFIX: Final = "bt_header_input_obj_"
_MAX_ECHO: Final = 256  # characters of one echoed text
_MASK_SIDE: Final = 256  # pixels, where nobody made a map: the side of SN34's challenge masks
_CONTAINERS: Final = ("image/gif", "image/webp", "image/apng")  # animated: sent to the video path as images


def decode_synapse(request: Request, max_inflated: int = MAX_INFLATED) -> Challenge:
    """Parses the body of an ``ImageSynapse`` or ``VideoSynapse``.

    Raises:
        Refusal: 404 for another path; 413 or 422 for a body that is no such synapse.
    """
    return synapse_challenge(request, parse_object(request.body), max_inflated)


def synapse_challenge(request: Request, synapse: dict[str, Any], max_inflated: int = MAX_INFLATED) -> Challenge:
    """Takes base64, or base85 and zlib, off the media of a parsed synapse.

    Raises:
        Refusal: 404 for another path; 413 or 422 for media that cannot be taken out.
    """
    modality = SYNAPSES.get(request.path)
    if modality is None:
        raise Refusal(404, "unknown_route", "there is nothing at this path")
    media = synapse.get(modality, "")
    if not isinstance(media, str):
        raise Refusal(422, "encoding", f"the field {modality} is not text")
    payload = decode_base64(media) if modality == "image" else inflate_base85(media, max_inflated)
    return Challenge(
        modality=modality,
        payload=payload,
        encoding="image" if modality == "image" else "jpeg-frames",
        answer=_answer(synapse.get("prediction")),
        testnet_label=_label(synapse.get("testnet_label")),
        echo=_echo(request, synapse, modality),
        id=request.id,
    )


def _answer(default: Any) -> Answer:
    """The form of the answer is that of the synapse's default (axon-wire.md): a list where it is one."""
    if default is None or (isinstance(default, int | float) and not isinstance(default, bool)):
        return "float"
    if isinstance(default, list):
        return "vector"
    raise Refusal(422, "prediction", "the default of the field prediction is neither a number nor a list")


def _label(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1, 2) else None


def _echo(request: Request, synapse: dict[str, Any], modality: Modality) -> dict[str, Any]:
    """The synapse's own fields without the media.

    The caller's Dendrite rebuilds its synapse from the answer: a field that is missing becomes its default, which is
    right for the media and would fail for a field that has none. Those are named in the headers together with an
    empty value of their type, so that even then nothing large travels back.
    """
    echo = {
        field: value
        for field, value in synapse.items()
        if field not in _FRAMEWORK and field not in (modality, "prediction") and _is_small(value)
    }
    for header, encoded in request.headers.items():
        if header.startswith(_REQUIRED_PREFIX):
            required = header.removeprefix(_REQUIRED_PREFIX)
            # Header names are case-insensitive and arrive in lower case; the body knows the right spelling.
            for field in (f for f in synapse if f.lower() == required and f not in echo and f not in _FRAMEWORK):
                try:
                    echo[field] = orjson.loads(binascii.a2b_base64(encoded[:_MAX_ECHO], strict_mode=True))
                except ValueError:
                    continue  # a broken hint harms nobody but its sender
    return echo


def _is_small(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _MAX_ECHO)


def answer_value(prediction: Prediction, answer: Answer) -> float | list[float]:
    """P(fake), or (real, synthetic, semi-synthetic) summing to 1 within a few ulp, tighter than any wire asks.

    Written with all their digits: rounding could move a number across a validator's threshold at 0.5.
    """
    if answer == "float":
        return prediction.p_fake
    total = math.fsum(prediction.probabilities)
    return [p / total for p in prediction.probabilities]


def decode_raw(request: Request, paths: Mapping[str, Modality] = RAW) -> Challenge:
    """Takes the body of ``/detect_image`` or its like as it is; the bytes are judged when they are decoded.

    Args:
        request: what came.
        paths: those that the wire knows, each with what its body is.

    Raises:
        Refusal: 404 for another path, 415 for a content type that cannot be meant, 422 for an empty body.
    """
    modality = paths.get(request.path)
    if modality is None:
        raise Refusal(404, "unknown_route", "there is nothing at this path")
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fits = content in ("", "application/octet-stream") or content.startswith(f"{modality}/")
    if not (fits or (modality == "video" and content in _CONTAINERS)):
        raise Refusal(415, "content_type", f"this path takes {modality}/*")
    if not request.body:
        raise Refusal(422, "empty", f"the {modality} is empty")
    label = request.headers.get("x-testnet-label", "")
    return Challenge(
        modality=modality,
        payload=request.body,
        encoding="image" if modality == "image" else "container",
        answer="vector",
        testnet_label=int(label) if label in ("0", "1", "2") else None,
        wants="mask" if request.path == SEGMENT else "prediction",
        id=request.id,
    )


def encode_raw(prediction: Prediction, challenge: Challenge) -> Response:
    """``{"status": "success", "prediction": …}``, with whatever there is to echo."""
    value = answer_value(prediction, challenge.answer)
    return json_response(200, {**challenge.echo, "status": "success", "prediction": value})


def encode_mask(prediction: Prediction) -> Response:
    """The heat map as raw float16, little-endian and row by row, with ``X-Mask-Shape: H,W`` and ``X-Mask-Dtype``.

    Of a prediction that came without a map (a stand-in's) P(fake) everywhere: values in [0, 1] in any case.
    """
    mask = prediction.heat_map
    if mask is None:
        mask = np.full((_MASK_SIDE, _MASK_SIDE), prediction.p_fake, np.float32)
    headers = {
        "content-type": "application/octet-stream",
        "x-mask-shape": f"{mask.shape[0]},{mask.shape[1]}",
        "x-mask-dtype": "float16",
    }
    return Response(200, mask.astype("<f2").tobytes(), headers)
