from __future__ import annotations

import pytest
import torch

from detectors.experts.npr import NPR
from detectors.features.npr import npr_residual
from tests.detectors.experts import golden


@pytest.mark.parametrize("entry", ["small", "batch"])
def test_residual_is_the_official_one(entry: str) -> None:
    record = golden.preprocessing("npr_residual")
    x = golden.uniform(record["inputs"][entry]["shape"])
    assert golden.difference(npr_residual(x), record["outputs"][entry]) <= 2e-5


def test_residual_equals_nearest_resampling() -> None:
    x = golden.uniform((1, 3, 10, 14))
    half = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="nearest")
    assert torch.equal(npr_residual(x), x - torch.nn.functional.interpolate(half, scale_factor=2.0, mode="nearest"))


@pytest.mark.parametrize("shape", [(7, 6), (6, 7), (7, 7)])
def test_residual_refuses_odd_sides(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even sides"):
        npr_residual(torch.zeros(1, 3, *shape))


def test_network_drops_the_odd_row_and_column() -> None:
    network = NPR().eval()
    x = golden.uniform((1, 3, 65, 67))
    with torch.inference_mode():
        assert torch.equal(network(x), network(x[..., :64, :66]))
