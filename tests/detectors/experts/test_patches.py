"""Patch scores: their mean over places is what the network says, on every architecture that has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detectors import registry
from detectors.experts.efficientnet_lite import EfficientNetLite
from detectors.experts.patches import HasPatches, class_activation, spread_out
from tests.detectors.experts.variants import small_card, small_network

PATCHY = [name for name in registry.names() if isinstance(small_network(name), HasPatches)]


def test_every_head_behind_a_mean_tells_its_places() -> None:
    assert PATCHY == ["efficientnet-lite", "mobilenetv2", "npr", "tall", "xception"]


@pytest.mark.parametrize("name", PATCHY)
def test_the_mean_over_places_is_the_networks_answer(name: str) -> None:
    network, card = small_network(name), small_card(name)
    frames = () if card.frames == 1 else (card.frames,)
    x = torch.randn(
        (2, *frames, 3, card.preprocess.size, card.preprocess.size), generator=torch.Generator().manual_seed(1)
    )
    assert isinstance(network, HasPatches)
    with torch.no_grad():
        patches, logits = network.patch_logits(x), network(x)
    wanted = (2, *frames, logits.shape[1])
    assert patches.shape[: len(wanted)] == wanted
    assert patches.shape[-1] * patches.shape[-2] > 4
    assert patches.std() > 0
    mean = patches.mean((-2, -1))
    assert torch.allclose(mean if not frames else mean.mean(1), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hidden", [0, 8])
def test_texture_pooled_on_the_way_has_its_places_too(hidden: int) -> None:
    torch.manual_seed(3)
    network = EfficientNetLite("lite0", num_classes=3, pooling="stages", hidden=hidden).eval()
    x = torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        patches, logits = network.patch_logits(x), network(x)
    assert patches.shape == (2, 3, 4, 4)
    assert torch.allclose(patches.mean((2, 3)), logits, atol=1e-4)
    assert patches.std() > 0.01


def test_a_part_of_the_first_order_view_that_has_no_place_is_spread_evenly() -> None:
    maps = torch.zeros(1, 1, 2, 2)
    maps[0, 0, 0, 0] = 4.0  # mean 1, deviation 2
    head = nn.Linear(2, 1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.bias.fill_(5.0)
    found = spread_out(head, [(maps, False), (maps, True)])[0, 0]
    # mean: (4, 0, 0, 0). Deviation: (9, 1, 1, 1) / 2 * 10, of mean 15; its n / (n - 1) and the bias belong to no place.
    assert torch.allclose(found - found[1, 1], torch.tensor([[44.0, 0.0], [0.0, 0.0]]))
    assert float(found.detach().mean()) == pytest.approx(1.0 + 20.0 + 5.0)
    assert head.weight.grad is None


def test_a_linear_head_acts_on_every_place() -> None:
    head = nn.Linear(2, 3)
    maps = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    found = class_activation(head, maps)
    assert found.shape == (1, 3, 4, 5)
    assert torch.allclose(found[0, :, 2, 3], head(maps[0, :, 2, 3]))
