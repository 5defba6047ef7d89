"""Our networks against numbers that the official classes gave for the same formula-made weights."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors.experts.base import Architecture, fake_logit
from detectors.experts.npr import NPR
from detectors.experts.tall import TALL, thumbnail
from detectors.experts.ucf import UCF, Disentangled
from detectors.experts.xception import Xception
from detectors.features.npr import npr_residual
from tests.detectors.experts import golden

ARCHITECTURES: dict[str, type[Architecture]] = {"npr": NPR, "dfb_xception": Xception, "dfb_ucf": UCF, "dfb_tall": TALL}


@dataclass
class Case:
    record: dict[str, Any]
    network: Architecture
    x: Tensor
    tolerance: float


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest) -> Case:
    record = golden.record(request.param)
    network = ARCHITECTURES[request.param]().eval()
    return Case(record, network, golden.uniform(record["input"]["shape"]), record["tolerance_of_max_abs"])


def test_keys_shapes_and_order_are_the_published_ones(case: Case) -> None:
    found = {key: list(value.shape) for key, value in case.network.state_dict().items()}
    wanted = golden.manifest(case.record["manifest"].removesuffix(".json"))
    assert list(found.items()) == list(wanted.items())
    assert sum(p.numel() for p in case.network.parameters()) == case.record["parameters"]


def test_norm_layers_have_the_published_eps(case: Case) -> None:
    """Outputs cannot tell LayerNorm's eps of 1e-5 from 1e-6."""
    norms = [m for m in case.network.modules() if type(m).__name__.endswith(("Norm", "Norm2d", "AdaIN"))]
    found = Counter(f"{type(m).__name__.lstrip('_')} eps={m.eps:g}" for m in norms)
    assert found == case.record["norm_layers"]


def test_constructed_buffers_are_the_published_ones(case: Case) -> None:
    state = case.network.state_dict()
    for key, wanted in case.record["kept_buffers_fingerprints"].items():
        assert str(state[key].dtype).removeprefix("torch.") == wanted["dtype"]
        assert f"{zlib.crc32(state[key].numpy().tobytes()):08x}" == wanted["crc32"], key


def test_outputs_and_inner_tensors(case: Case) -> None:
    kept = case.record["kept_buffers"]
    weights = golden.filled(case.network.state_dict(), case.record["gain"], kept)
    assert golden.fill_crc(weights, kept) == case.record["fill_crc32_sorted_keys"]
    assert f"{zlib.crc32(case.x.numpy().tobytes()):08x}" == case.record["input"]["crc32"]
    case.network.load_state_dict(weights)
    inner: dict[str, float] = {}
    handles = [
        case.network.get_submodule(wanted["module"]).register_forward_hook(_recorder(inner, name, wanted))
        for name, wanted in case.record["checkpoints"].items()
    ]
    with torch.inference_mode():
        logits = case.network(case.x)
        _SPECIFIC.get(type(case.network), lambda _: None)(case)
    for handle in handles:
        handle.remove()
    assert {name: gap for name, gap in inner.items() if gap > case.tolerance} == {}
    assert set(inner) == set(case.record["checkpoints"])
    outputs = case.record["outputs"]
    assert golden.difference(logits, outputs.get("cls") or outputs["logit"]) <= case.tolerance
    if "prob_fake" in outputs:
        found = torch.sigmoid(fake_logit(logits, case.network.published.fake_index))
        assert golden.difference(found, outputs["prob_fake"]) <= case.tolerance


def _recorder(into: dict[str, float], name: str, wanted: dict[str, Any]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        into[name] = golden.difference(output, wanted)

    return hook


def _npr_extra(case: Case) -> None:
    wanted = case.record["extra"]["residual_x_minus_up2down2"]
    assert golden.difference(npr_residual(case.x), wanted) <= case.tolerance


def _ucf_extra(case: Case) -> None:
    network, record = case.network, case.record
    assert isinstance(network, UCF)
    parts = network.disentangle(case.x)
    last = Disentangled(parts.specific[1:], parts.shared[1:], parts.content[1:])
    found = {
        "feat": (parts.shared.mean((2, 3)), record["outputs"]["feat"]),
        "cls_spe": (network.method_logits(parts), record["outputs"]["cls_spe"]),
        "self": (network.reconstruct(last, last.content), record["extra"]["self_reconstruction_1_f1c1"]),
        "cross": (network.reconstruct(last, parts.content[:1]), record["extra"]["reconstruction_1_f1c2"]),
    }
    gaps = {name: golden.difference(tensor, wanted) for name, (tensor, wanted) in found.items()}
    assert {name: gap for name, gap in gaps.items() if gap > case.tolerance} == {}


def _tall_extra(case: Case) -> None:
    network, extra = case.network, case.record["extra"]
    assert isinstance(network, TALL)
    layout = thumbnail(case.x, 224)
    resized = nn.functional.interpolate(layout, size=(224, 224), mode="bilinear", align_corners=False)
    found = {
        "thumbnail_448": layout,
        "thumbnail_resized_224": resized,
        "frame_pos_embed_map": network.model.frame_positions()[0],
    }
    gaps = {name: golden.difference(tensor, extra[name]) for name, tensor in found.items()}
    assert {name: gap for name, gap in gaps.items() if gap > case.tolerance} == {}


_SPECIFIC = {NPR: _npr_extra, UCF: _ucf_extra, TALL: _tall_extra}
