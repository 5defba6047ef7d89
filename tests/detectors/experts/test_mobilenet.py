from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectors.errors import WeightsError
from detectors.experts.mobilenet import MobileNetV2


def _shared() -> Path:
    chosen = os.environ.get("DEEPFAKE_MINER_SHARED")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[4] / "shared"


TRUNK = _shared() / "backbones" / "mobilenet_v2_100_ptq"


@pytest.mark.skipif(not TRUNK.is_dir(), reason="../shared/backbones is not at hand (DEEPFAKE_MINER_SHARED)")
@pytest.mark.parametrize("size", [224, 251])
def test_pooled_features_equal_the_graph_runner(size: int) -> None:
    spec = importlib.util.spec_from_file_location("load_example", TRUNK.parent / "load_example.py")
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the example leaves its graph file to the collector
        spec.loader.exec_module(example)
        runner = example.TFLiteNet(str(TRUNK)).eval()
    pooled = next(o["out"][0] for o in runner.g["ops"] if o["op"] == "MEAN")
    network = MobileNetV2.from_tflite_npz(TRUNK).eval()
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.inference_mode():
        _, taps = runner(x, taps=[pooled])
        gap = (taps[pooled].flatten(1) - network.features(x)).abs().max().item()
    assert gap <= 1e-4


def _write(folder: Path, network: MobileNetV2, *, classifier: bool = True) -> None:
    """The network as a converted graph, in TFLite's layout of tensors."""
    operations: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    convolutions: list[Any] = [m for m in network.modules() if hasattr(m, "kernel")]
    for k, module in enumerate(convolutions):
        weight, depthwise = module.weight.detach().numpy(), module.groups > 1
        arrays[f"w{k}"] = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        arrays[f"b{k}"] = module.bias.detach().numpy()
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        operations.append({"op": name, "inp": [k, f"w{k}", f"b{k}"], "strideH": module.stride})
    if classifier:
        arrays |= {"w": np.zeros((1001, 1, 1, 1280), np.float32), "b": np.zeros(1001, np.float32)}
        operations.append({"op": "CONV_2D", "inp": [99, "w", "b"], "strideH": 1})
    (folder / "graph.json").write_text(json.dumps({"ops": operations}))
    np.savez(folder / "weights.npz", **arrays)


def test_reads_a_converted_trunk(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = MobileNetV2().eval()
    _write(tmp_path, source)
    network = MobileNetV2.from_tflite_npz(tmp_path, num_classes=3, dropout=0.5).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        assert torch.equal(network.features(x), source.features(x))
        assert network(x).shape == (1, 3)


def test_refuses_another_graph(tmp_path: Path) -> None:
    _write(tmp_path, MobileNetV2(), classifier=False)
    with pytest.raises(WeightsError, match="52 convolutions"):
        MobileNetV2.from_tflite_npz(tmp_path)


def test_refuses_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a converted TFLite graph"):
        MobileNetV2.from_tflite_npz(tmp_path)


def test_same_padding_at_stride_two_puts_the_odd_pixel_right_and_below() -> None:
    stem = MobileNetV2().stem
    with torch.no_grad():
        stem.weight.zero_()
        stem.weight[0, 0, 0, 0] = 1.0  # picks the top-left tap
        x = torch.arange(36.0).view(1, 1, 6, 6).expand(1, 3, 6, 6) / 36
        assert torch.equal(stem(x)[0, 0], x[0, 0, ::2, ::2])
