from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from detectors import registry
from detectors.card import Preprocess
from detectors.errors import ConfigError
from detectors.preprocess import clahe, geometry, pad_frames, tensor
from tests.detectors.experts import golden

BITMIND = golden.preprocessing("bitmind_transforms")
IMAGES = ("noise_300x400", "smooth_300x400", "noise_180x240", "smooth_180x240")
_LEVEL = 1 / 255 + 1e-6  # one step of uint8: what another version of PIL or OpenCV may round differently


def _gap(found: Any, wanted: dict[str, Any]) -> float:
    """The largest absolute difference."""
    return golden.difference(found, wanted) * max(float(np.abs(np.asarray(found)).max()), 1e-12)


@pytest.mark.parametrize("name", IMAGES)
def test_standard_images_are_the_recorded_ones(name: str) -> None:
    found = golden.standard_image(name)
    wanted = golden.preprocessing("_standard_images")["fingerprints"][name]
    assert list(found.shape) == wanted["shape"]
    assert f"{zlib.crc32(found.tobytes()):08x}" == wanted["crc32"]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(("preset", "prefix"), [("npr-bitmind", "base_"), ("tall-bitmind", "tall_")])
def test_bitmind_transforms(name: str, preset: str, prefix: str) -> None:
    card = registry.published_cards()[preset]
    found = tensor([golden.standard_image(name)], card.preprocess, card.residual)[0]
    assert _gap(found, BITMIND["outputs"][prefix + name]) <= _LEVEL


@pytest.mark.parametrize("name", IMAGES)
def test_bitmind_ucf_training_equalisation(name: str) -> None:
    card = registry.published_cards()["ucf-bitmind-training"]
    image = golden.standard_image(name)
    assert _gap(clahe(geometry(image, card.preprocess)), BITMIND["outputs"][f"clahe_uint8_{name}"]) <= 1
    found = tensor([image], card.preprocess, card.residual)[0]
    assert _gap(found, BITMIND["outputs"][f"ucf_clahe_{name}"]) <= _LEVEL / min(card.preprocess.std)


@pytest.mark.parametrize("name", IMAGES)
def test_bitmind_ucf_inference(name: str) -> None:
    card = registry.published_cards()["ucf-bitmind"]
    wanted = golden.preprocessing("bitmind_ucf_inference_preprocess")["outputs"][name]
    assert _gap(tensor([golden.standard_image(name)], card.preprocess, card.residual), wanted) <= 2 * _LEVEL


def test_zero_padding_of_frames_is_bitminds() -> None:
    record = golden.preprocessing("bitmind_pad_frames")
    frames = golden.uniform(record["inputs"]["frames"]["shape"])
    found = pad_frames(frames[0], 4, "zero")[None]
    assert golden.difference(found, record["outputs"]["padded"]) <= 2e-5
    assert golden.difference(found.abs().sum((0, 2, 3, 4)), record["outputs"]["frame_abs_sums"]) <= 2e-5


@pytest.mark.parametrize(("count", "length"), [(1, 4), (4, 4), (5, 8), (9, 12)])
def test_repeat_padding(count: int, length: int) -> None:
    frames = torch.arange(1.0, count + 1)
    assert pad_frames(frames, 4).tolist() == [*range(1, count + 1), *[count] * (length - count)]


_ROW = np.arange(10, dtype=np.uint8).reshape(1, 10, 1).repeat(6, 0).repeat(3, 2)  # 6 high, 10 wide, value = column


def test_centre_square_and_crop() -> None:
    square = geometry(_ROW, Preprocess(size=6, mode="centre_square"))
    assert square[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert geometry(_ROW, Preprocess(size=4, mode="centre_crop"))[0, :, 0].tolist() == [3, 4, 5, 6]


def test_small_images_are_reflected_up_to_the_crop() -> None:
    found = geometry(_ROW, Preprocess(size=14, mode="centre_crop"))
    assert found.shape == (14, 14, 3)
    assert found[0, :, 0].tolist() == [2, 1, *range(10), 8, 7]


@pytest.mark.parametrize("mode", ["resize", "centre_square", "centre_crop", "native"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (300, 2), (31, 33)])
def test_any_size_becomes_input(mode: Any, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 9, np.uint8)
    found = tensor([image], Preprocess(size=48, mode=mode, scale="byte"))
    side = (48, 48) if mode != "native" else tuple(max(n, 32) for n in shape)
    assert found.shape == (1, 3, *side)
    assert (found == 9).all()


def test_native_leaves_the_pixels_alone() -> None:
    image = golden.standard_image("noise_33x47")
    found = tensor([image], Preprocess(mode="native", scale="byte"))
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), image)


def test_statistics_follow_the_colour_order() -> None:
    image = np.zeros((4, 4, 3), np.uint8) + np.array([255, 51, 0], np.uint8)
    rule = Preprocess(size=4, mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))
    assert tensor([image], rule)[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    swapped = tensor([image], dataclasses.replace(rule, channels="BGR"))
    assert swapped[0, :, 0, 0].tolist() == pytest.approx([-1.0, 0.0, 0.5], abs=1e-6)


def test_unknown_front_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="clahe"):
        tensor([_ROW], Preprocess(), "clae")
