"""The real Dendrite of bittensor 10.5.0, driven by a job on stdin, reporting JSON on stdout.

Runs in its own environment. Nothing of the project is imported here: this is the other side of the wire.
"""
# mypy: ignore-errors

import asyncio
import base64
import json
import random
import sys
import time
import zlib
from typing import Any, ClassVar

REPORT, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints stays out of the report

import bittensor.utils.networking as networking  # noqa: E402

networking.get_external_ip = lambda: "203.0.113.7"  # it would ask the internet

from bittensor.core.chain_data import AxonInfo  # noqa: E402
from bittensor.core.dendrite import Dendrite  # noqa: E402
from bittensor.core.synapse import Synapse  # noqa: E402
from bittensor_wallet import Keypair  # noqa: E402

VECTOR = [-1.0, -1.0, -1.0]


class FloatImage(Synapse):
    testnet_label: int = -1
    image: str = ""
    prediction: float = -1.0

    def deserialize(self) -> Any:
        return self.prediction


class FloatVideo(Synapse):
    testnet_label: int = -1
    video: str = ""
    prediction: float = -1.0


class VectorImage(Synapse):
    testnet_label: int = -1
    image: str = ""
    prediction: float | list[float] = VECTOR


class VectorVideo(Synapse):
    testnet_label: int = -1
    video: str = ""
    prediction: float | list[float] = VECTOR


class HashedImage(FloatImage):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("image",)


class BothHashedImage(FloatImage):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("testnet_label", "image")


class HashedVideo(FloatVideo):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("video",)


class RequiredImage(Synapse):
    image: str
    prediction: float = -1.0


def _named(cls: type[Synapse], name: str) -> type[Synapse]:
    """A class of the name that goes into the path."""
    return type(name, (cls,), {"__module__": cls.__module__})


KINDS = {
    "image": _named(FloatImage, "ImageSynapse"),
    "video": _named(FloatVideo, "VideoSynapse"),
    "image-vector": _named(VectorImage, "ImageSynapse"),
    "video-vector": _named(VectorVideo, "VideoSynapse"),
    "image-hashed": _named(HashedImage, "ImageSynapse"),
    "image-both-hashed": _named(BothHashedImage, "ImageSynapse"),
    "video-hashed": _named(HashedVideo, "VideoSynapse"),
    "image-required": _named(RequiredImage, "ImageSynapse"),
    "unknown": _named(FloatImage, "PoemSynapse"),
}


class Mischief(Dendrite):
    """A Dendrite that does one thing wrong, or late, after the real one has signed."""

    def __init__(self, keypair: Keypair, action: str, jitter_ms: float, seed: int) -> None:
        super().__init__(keypair)
        self.action = action
        self.jitter_ms = jitter_ms
        self.random = random.Random(seed)
        self.nonce: int | None = None

    def preprocess_synapse_for_request(self, target_axon_info: Any, synapse: Any, timeout: float = 12.0) -> Any:
        shift = {"stale": -60, "future": 60, "year": 365 * 86400}.get(self.action)
        if shift is not None:
            return self._signed_at(time.time_ns() + shift * 10**9, target_axon_info, synapse, timeout)
        if self.action in ("replay", "fixed") and self.nonce is not None:
            return self._signed_at(self.nonce, target_axon_info, synapse, timeout)
        if self.action == "old-version":
            synapse = self._signed_at(time.time_ns() - 60 * 10**9, target_axon_info, synapse, timeout)
            synapse.dendrite.version = 7001000
            return synapse
        synapse = super().preprocess_synapse_for_request(target_axon_info, synapse, timeout)
        self.nonce = synapse.dendrite.nonce
        if self.action == "tamper":
            text = synapse.dendrite.signature
            synapse.dendrite.signature = text[:-1] + ("0" if text[-1] != "0" else "1")
        elif self.action == "unsigned":
            synapse.dendrite.signature = None
        elif self.action == "redirect":
            synapse.axon.hotkey = synapse.dendrite.hotkey  # says it is for another, after signing
        return synapse

    def _signed_at(self, nonce: int, target: Any, synapse: Any, timeout: float) -> Any:
        real = time.time_ns
        time.time_ns = lambda: nonce
        try:
            return super().preprocess_synapse_for_request(target, synapse, timeout)
        finally:
            time.time_ns = real


def _install_transport(dendrite: Mischief) -> None:
    """Jitter, and an altered body, happen on the line: between signing and sending."""

    async def prepare() -> None:
        session = await dendrite.session
        post = session.post

        def late(*args: Any, **options: Any) -> Any:
            if dendrite.action == "alter":
                options["json"] = {**options["json"], "image": base64.b64encode(b"another image").decode()}
            request = post(*args, **options)

            class Delayed:
                async def __aenter__(self) -> Any:
                    await asyncio.sleep(dendrite.random.uniform(0, dendrite.jitter_ms) / 1000)
                    return await request.__aenter__()

                async def __aexit__(self, *reason: Any) -> Any:
                    return await request.__aexit__(*reason)

            return Delayed()

        session.post = late

    dendrite.prepare = prepare


async def _run(case: dict[str, Any]) -> dict[str, Any]:
    dendrite = Mischief(
        Keypair.create_from_uri(case.get("key", "//Alice")),
        case.get("action", ""),
        case.get("jitter_ms", 0.0),
        case.get("seed", 1),
    )
    dendrite.nonce = case.get("nonce")
    dendrite.uuid = case.get("uuid", dendrite.uuid)
    _install_transport(dendrite)
    await dendrite.prepare()
    kind = case["kind"]
    media = bytes.fromhex(case["payload"]) * case.get("repeat", 1)
    if "video" in kind:
        fields = {"video": base64.b85encode(zlib.compress(media, 1)).decode()}
    else:
        fields = {"image": base64.b64encode(media).decode()}
    if kind != "image-required":
        fields["testnet_label"] = case.get("label", -1)
    axons = [
        AxonInfo(version=1, ip="127.0.0.1", port=port, ip_type=4, hotkey=hotkey, coldkey=hotkey)
        for port, hotkey in case["axons"]
    ]
    gathered = []
    try:
        started = time.perf_counter()
        for _ in range(case.get("rounds", 1)):
            gathered += await asyncio.gather(
                *(
                    dendrite.forward(
                        axons=axons,
                        synapse=KINDS[kind](**fields),
                        timeout=case.get("timeout", 9.0),
                        deserialize=False,
                    )
                    for _ in range(case.get("count", 1))
                )
            )
        seconds = time.perf_counter() - started
    finally:
        await dendrite.aclose_session()
    answers = [answer for group in gathered for answer in (group if isinstance(group, list) else [group])]
    return {
        "seconds": seconds,
        "answers": [
            {
                "is_success": answer.is_success,
                "prediction": answer.prediction,
                "status": answer.dendrite.status_code,
                "message": answer.dendrite.status_message,
                "label": getattr(answer, "testnet_label", None),
                "failed_verification": answer.failed_verification,
            }
            for answer in answers
        ],
    }


async def _main(cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {case["name"]: await _run(case) for case in cases}


if __name__ == "__main__":
    json.dump(asyncio.run(_main(json.load(sys.stdin))), REPORT)
