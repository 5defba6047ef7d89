from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from detectors.experts.ucf import UCF
from tests.detectors.experts import golden


def _small(**options: Any) -> UCF:
    return UCF(widths=[8, 8, 16, 16, 16, 32], middle=1, **options).eval()


def _touched(network: UCF, x: torch.Tensor) -> set[str]:
    """Top-level parts that a forward pass runs."""
    seen: set[str] = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: seen.add(name.split(".")[0]))
        for name, module in network.named_modules()
        if name
    ]
    with torch.inference_mode():
        network(x)
    for handle in handles:
        handle.remove()
    return seen


def test_inference_computes_neither_content_nor_method() -> None:
    assert _touched(_small(), torch.zeros(1, 3, 64, 64)) == {"encoder_f", "block_sha", "head_sha"}


def test_inference_only_holds_half_and_says_the_same() -> None:
    full = _small()
    half = _small(inference_only=True)
    wanted = half.state_dict()
    assert set(full.state_dict()) - set(wanted) == {k for k in full.state_dict() if k.startswith(UCF.training_only)}
    half.load_state_dict({k: v for k, v in full.state_dict().items() if k in wanted})
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(half(x), full(x))


def test_published_size_of_the_inference_part() -> None:
    with torch.device("meta"):
        network = UCF(inference_only=True)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    kept = ("encoder_f.", "block_sha.", "head_sha.")
    shapes = [v for k, v in golden.manifest("dfb_ucf").items() if k.startswith(kept) and not k.endswith(statistics)]
    found = sum(p.numel() for p in network.parameters())
    assert found == sum(math.prod(shape) for shape in shapes)
    assert found < golden.record("dfb_ucf")["parameters"] / 2


@pytest.mark.parametrize("number", [2, 7])
def test_method_head_width(number: int) -> None:
    network = _small(specific_task_number=number)
    with torch.inference_mode():
        parts = network.disentangle(torch.zeros(2, 3, 64, 64))
        assert network.method_logits(parts).shape == (2, number)
        assert network.reconstruct(parts, parts.content).shape == (2, 3, 64, 64)


def test_training_parts_are_missed_clearly() -> None:
    network = _small(inference_only=True)
    with pytest.raises(RuntimeError, match="inference_only"):
        network.disentangle(torch.zeros(1, 3, 64, 64))
