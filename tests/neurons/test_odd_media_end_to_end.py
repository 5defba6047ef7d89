"""Odd but valid, and plainly broken media, over HTTP to the CAMO that ships: a right answer or a clear 4xx, always."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from detectors import camo, media
from neurons.demo_media import photographs
from neurons.pipeline import Judge
from tests.neurons.loopback import Client, ask, png_header, served

PHOTO = Image.fromarray(dict(photographs())["chelsea"][:256, :256])
CLIP = np.stack([np.roll(np.asarray(PHOTO.resize((96, 96))), k, axis=1) for k in range(6)])


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(PHOTO, "JPEG", exif=exif)


def sixteen_bit() -> bytes:
    grey = np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(frame) for frame in CLIP]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


GOOD: dict[str, Callable[[], bytes]] = {
    "plain JPEG": lambda: saved(PHOTO, "JPEG"),
    "CMYK JPEG": lambda: saved(PHOTO.convert("CMYK"), "JPEG"),
    "grey JPEG": lambda: saved(PHOTO.convert("L"), "JPEG"),
    "progressive JPEG": lambda: saved(PHOTO, "JPEG", progressive=True),
    "EXIF-rotated JPEG": rotated,
    "16-bit PNG": sixteen_bit,
    "palette PNG": lambda: saved(PHOTO.convert("P"), "PNG"),
    "alpha PNG": lambda: saved(PHOTO.convert("RGBA"), "PNG"),
    "animated GIF": lambda: animated("GIF"),
    "animated WebP": lambda: animated("WEBP"),
    "wide strip": lambda: saved(PHOTO.resize((320, 16)), "PNG"),
}

BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "zero bytes": (lambda: b"", 422, "empty"),
    "no image": (lambda: b"this is no image at all", 422, "undecodable"),
    "truncated": (lambda: saved(PHOTO, "JPEG")[:3000], 422, "truncated"),
    "1 x 1": (lambda: saved(PHOTO.resize((1, 1)), "PNG"), 422, "too_small"),
    "20,000 x 20,000": (lambda: png_header(20_000, 20_000), 413, "too_large"),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, dict[str, object]]]:
    """Every case among others, on the three wires, against one server: what is bad must not harm what is good."""
    wires = ("dendrite", "btauth", "epistula")
    # Few at once: on a busy machine the scheduler would rightly say that the last of fifty will be late.
    turns = asyncio.Semaphore(4)

    async def run() -> dict[str, tuple[int, dict[str, object]]]:
        async with served(Judge(camo.load())) as client:
            asked = {f"{wire} {name}": (wire, make()) for name, make in GOOD.items() for wire in wires}
            asked |= {f"{wire} {name}": (wire, make()) for name, (make, _, _) in BAD.items() for wire in wires}
            return dict(await asyncio.gather(*(one(client, key, *what) for key, what in asked.items())))

    async def one(client: Client, key: str, wire: str, payload: bytes) -> tuple[str, tuple[int, dict[str, object]]]:
        async with turns:
            status, _, body = await client.send(ask(wire, payload))
        return key, (status, json.loads(body))

    return asyncio.run(run())


@pytest.mark.parametrize("wire", ["dendrite", "btauth", "epistula"])
@pytest.mark.parametrize("name", GOOD)
def test_odd_but_valid_media_get_a_probability(
    answers: dict[str, tuple[int, dict[str, object]]], wire: str, name: str
) -> None:
    status, body = answers[f"{wire} {name}"]
    assert status == 200, body
    prediction = body["prediction"]
    if isinstance(prediction, list):
        assert sum(prediction) == pytest.approx(1.0, abs=1e-6)
        assert all(0.0 <= p <= 1.0 for p in prediction)
    else:
        assert isinstance(prediction, float)
        assert 0.0 <= prediction <= 1.0


@pytest.mark.parametrize("wire", ["dendrite", "btauth", "epistula"])
@pytest.mark.parametrize("name", BAD)
def test_broken_media_get_a_reason(answers: dict[str, tuple[int, dict[str, object]]], wire: str, name: str) -> None:
    status, body = answers[f"{wire} {name}"]
    assert status == BAD[name][1], body
    assert status < 500
    reason = str(body["reason"])
    assert reason == BAD[name][2] or (name == "zero bytes" and 400 <= status < 500)


def test_orientation_is_undone() -> None:
    upright = media.decode_image(saved(PHOTO, "JPEG")).pixels
    turned = media.decode_image(rotated()).pixels
    assert np.array_equal(np.rot90(upright, -1), turned)
