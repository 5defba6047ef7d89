from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detectors import registry
from detectors.errors import ConfigError, WeightsError
from neurons.commands import weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NPR checkpoint as its authors publish it: a raw state dict."""
    path = tmp_path_factory.mktemp("published") / "NPR.pth"
    torch.save(registry.architecture("npr")().state_dict(), path)
    return path


def import_file(checkpoint: Path, store: Path, *options: str) -> str:
    return weights.import_file(checkpoint, preset="npr", version="1.0.0", name=None, options=options, store=store)


def test_import_list_activate_verify(checkpoint: Path, tmp_path: Path) -> None:
    assert "stored as npr@1.0.0" in import_file(checkpoint, tmp_path)
    assert [line[0] for line in weights.listing(tmp_path)] == [" "]
    assert weights.activate("npr@1.0.0", tmp_path) == "active: npr@1.0.0"
    assert [line[0] for line in weights.listing(tmp_path)] == ["*"]
    assert weights.problems(tmp_path) == []
    (tmp_path / "npr-1.0.0.safetensors").write_bytes(b"cut short")
    assert len(weights.problems(tmp_path)) == 1


def test_options_reach_the_constructor_and_are_refused_where_they_do_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    assert "stored" in import_file(checkpoint, tmp_path, "num_classes=1")
    with pytest.raises(WeightsError, match="fc1"):
        import_file(checkpoint, tmp_path, "num_classes=2")
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        import_file(checkpoint, tmp_path, "num_classes")
    with pytest.raises(ConfigError, match="nonsense"):
        import_file(checkpoint, tmp_path, "nonsense=1")


def test_activation_needs_name_and_version(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NAME@VERSION"):
        weights.activate("npr", tmp_path)
    with pytest.raises(WeightsError):
        weights.activate("npr@9", tmp_path)
