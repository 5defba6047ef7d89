"""``/segment_image`` from a signed request to the mask that is read, through the real server and a real network."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from contextlib import closing
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from detectors.camo import Camo
from detectors.camo_config import CamoConfig
from neurons.pipeline import Judge, TrivialJudge
from neurons.wire.client import read_answer, read_mask
from tests.detectors.reddish import centre_of_mass, reddish, spotted
from tests.neurons.loopback import ALICE, BOB, GOOD, Client, P, against, ask

Wants = Literal["prediction", "mask"]


def camo() -> Camo:
    """The gating network around one network whose opinion is known."""
    return Camo(CamoConfig.model_validate({"experts": {"reddish": {"weights": "reddish"}}}), {"reddish": reddish()}, {})


def picture(top: int, left: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(spotted(top, left, height=256, width=256, side=64)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("at", [(32, 32), (160, 96)])
def test_a_validator_gets_a_mask_of_what_is_fake(at: tuple[int, int]) -> None:
    async def body(client: Client) -> None:
        answer = read_answer("epistula", *await client.send(ask("epistula", picture(*at))))
        status, headers, raw = await client.send(ask("epistula", picture(*at), wants="mask"))
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert headers["x-mask-shape"] == "256,256"
        assert len(raw) == 2 * 256 * 256
        mask = read_mask(status, headers, raw)
        assert mask is not None
        assert isinstance(answer, tuple)
        assert mask.max() == pytest.approx(1.0 - answer[0], abs=1e-3)
        assert centre_of_mass(mask) == pytest.approx((at[0] + 32, at[1] + 32), abs=1.0)

    with closing(Judge(camo())) as judge:
        against(body, judge)


def test_masks_and_answers_asked_for_at_once_are_not_mixed_up() -> None:
    async def body(client: Client) -> None:
        wanted: list[Wants] = ["prediction", "mask"] * 6
        sent = await asyncio.gather(*(client.send(ask("epistula", picture(96, 96), wants=kind)) for kind in wanted))
        for kind, found in zip(wanted, sent, strict=True):
            assert (read_mask(*found) is not None) == (kind == "mask")
            assert found[0] == 200

    with closing(Judge(camo())) as judge:
        against(body, judge)


def test_a_judge_without_maps_answers_p_fake_everywhere() -> None:
    async def body(client: Client) -> None:
        mask = read_mask(*await client.send(ask("epistula", GOOD, wants="mask")))
        assert mask is not None
        assert mask.shape == (256, 256)
        assert np.all(mask == 0.75)

    against(body, TrivialJudge(P))


def test_what_is_no_image_is_refused_as_ever() -> None:
    async def body(client: Client) -> None:
        status, _, answer = await client.send(ask("epistula", b"no image", wants="mask"))
        assert (status, json.loads(answer)["status"]) == (422, "error")
        status, _, answer = await client.send(ask("epistula", b"", wants="mask"))
        assert (status, json.loads(answer)["reason"]) == (422, "empty")

    against(body)


def test_the_path_is_nothing_to_who_proved_nothing() -> None:
    async def body(client: Client) -> None:
        honest = ask("epistula", GOOD, key=ALICE, wants="mask")
        forged = {**honest.headers, "epistula-signed-by": BOB.ss58_address}
        assert (await client.send(dataclasses.replace(honest, headers=forged)))[0] == 400
        for wire in ("dendrite", "btauth"):
            other = dataclasses.replace(ask(wire, GOOD), target="/segment_image")
            assert (await client.send(other))[0] == 404

    against(body)
