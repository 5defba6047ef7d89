"""The challenge routes as an OpenAPI document, for schemathesis. Not published: a stranger is told no routes."""

from __future__ import annotations

from typing import Any

from neurons.wire.routes import INFO, MEDIA, SEGMENT, SYNAPSES

__all__ = ["description"]

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_PREDICTION = {"anyOf": [_PROBABILITY, {"type": "array", "items": _PROBABILITY, "minItems": 3, "maxItems": 3}]}
_REFUSAL = {"type": "object", "required": ["reason"], "properties": {"reason": {"type": "string", "minLength": 1}}}
_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503)
_TYPES = {"image": ("image/jpeg", "application/octet-stream"), "video": ("application/octet-stream",)}


def _answers(success: dict[str, Any]) -> dict[str, Any]:
    def answer(schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": "JSON, always", "content": {"application/json": {"schema": schema}}}

    return {"200": answer(success), **{str(status): answer(_REFUSAL) for status in _STATUSES}}


def _synapse(modality: str) -> dict[str, Any]:
    encoded = {"anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "string"}, {}]}
    fields = {
        "name": {"type": "string"},
        "timeout": {"type": "number"},
        modality: encoded,
        "testnet_label": {"type": "integer"},
        "prediction": {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]},
    }
    schema = {"type": "object", "properties": fields, "required": [modality]}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _raw(modality: str) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {"required": True, "content": dict.fromkeys(_TYPES[modality], binary)}


def description() -> dict[str, Any]:
    """OpenAPI 3.1. What a signature needs is left to the test: no schema can say it."""
    judged = {"type": "object", "required": ["prediction"], "properties": {"prediction": _PREDICTION}}
    named = {"type": "object", "required": ["miner_type", "uid", "hotkey"]}
    alive = {"type": "object", "required": ["status"]}
    paths: dict[str, Any] = {"/": {"get": {"responses": _answers(alive)}}}
    paths[INFO] = {"get": {"responses": _answers(named)}}
    for path, modality in SYNAPSES.items():
        paths[path] = {"post": {"requestBody": _synapse(modality), "responses": _answers(judged)}}
    for path, modality in MEDIA.items():
        label = {"name": "X-Testnet-Label", "in": "header", "schema": {"type": "string"}}
        answers = _answers(judged)
        if path == SEGMENT:
            binary = {"schema": {"type": "string", "format": "binary"}}
            answers["200"] = {"description": "raw float16", "content": {"application/octet-stream": binary}}
        paths[path] = {"post": {"parameters": [label], "requestBody": _raw(modality), "responses": answers}}
    return {"openapi": "3.1.0", "info": {"title": "challenges", "version": "1"}, "paths": paths}
