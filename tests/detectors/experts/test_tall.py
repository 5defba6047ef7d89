from __future__ import annotations

import pytest
import torch

from detectors.experts.tall import TALL, thumbnail
from tests.detectors.experts import golden


def test_layout_of_a_tiny_thumbnail() -> None:
    record = golden.preprocessing("tall_thumbnail")["outputs"]
    frames = torch.tensor([[[i + 10.0 * c for c in range(3)] for i in range(1, 5)]])[..., None, None].expand(
        1, 4, 3, 4, 4
    )
    found = thumbnail(frames, 4)
    assert golden.difference(found[0, 0], record["tiny_layout_channel0_8x8"]) == 0
    assert golden.difference(found[0, 2, 0], record["tiny_layout_channel2_row0"]) == 0


@pytest.mark.parametrize(("entry", "prefix"), [("frames_224", ""), ("frames_112", "from_112_")])
def test_thumbnail_is_the_official_one(entry: str, prefix: str) -> None:
    record = golden.preprocessing("tall_thumbnail")
    layout = thumbnail(golden.uniform(record["inputs"][entry]["shape"]), 224)
    resized = torch.nn.functional.interpolate(layout, size=(224, 224), mode="bilinear", align_corners=False)
    assert golden.difference(layout, record["outputs"][f"{prefix}layout_448"]) <= 2e-5
    assert golden.difference(resized, record["outputs"][f"{prefix}resized_224"]) <= 2e-5


def _small(drop_path: float) -> TALL:
    torch.manual_seed(0)
    return TALL(image_size=56, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_sizes=[7, 7], drop_path=drop_path)


def test_stochastic_depth_acts_in_training_only() -> None:
    network, x = _small(0.9), torch.randn(4, 4, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(network.eval()(x), network(x))
        assert not torch.equal(network.train()(x), network(x))


def test_order_of_frames_matters() -> None:
    network, x = _small(0.0).eval(), torch.randn(1, 4, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert not torch.allclose(network(x), network(x.flip(1)))
