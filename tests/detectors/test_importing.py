from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from detectors import registry
from detectors.card import Card
from detectors.errors import ConfigError, WeightsError
from detectors.experts.npr import NPR
from detectors.experts.tall import TALL
from detectors.experts.ucf import UCF
from detectors.experts.xception import Xception
from detectors.importing import KeysRefusedError, import_weights, read_checkpoint
from detectors.store import Store
from tests.detectors.experts.variants import SMALL, small_network

XCEPTION: dict[str, Any] = {"widths": [8, 8, 16, 16, 16, 32], "middle": 1}
State = dict[str, torch.Tensor]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "weights")


@pytest.fixture(scope="module")
def npr() -> State:
    torch.manual_seed(4)
    return NPR().state_dict()


def _prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def _same(store: Store, card: Card | None, state: State) -> None:
    assert card is not None
    found = store.load(card.key).network.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in found)


LAYOUTS: dict[str, tuple[Any, str]] = {
    "raw": (lambda s: s, "state dict"),
    "ordered": (OrderedDict, "state dict"),
    "parallel": (lambda s: _prefixed(s, "module."), "'module.'"),
    "compiled": (lambda s: _prefixed(s, "module._orig_mod."), "'module._orig_mod.'"),
    "backbone": (lambda s: _prefixed(s, "backbone."), "'backbone.'"),
    "model": (lambda s: {"model": s, "epoch": 3}, "['model']"),
    "state_dict": (lambda s: {"state_dict": s, "optimizer": {"lr": 0.1}}, "['state_dict']"),
    "model_state_dict": (lambda s: {"model_state_dict": s}, "['model_state_dict']"),
    "nested": (lambda s: {"net": {"params": _prefixed(s, "module.")}}, "['net']['params'] without 'module.'"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(layout: str, npr: State, store: Store, tmp_path: Path) -> None:
    wrap, words = LAYOUTS[layout]
    path = tmp_path / "NPR.pth"
    torch.save(wrap(npr), path)
    report = import_weights(path, store=store, preset="npr", version="1")
    assert words in report.layout
    assert report.fits
    assert report.loaded == len(npr)
    assert report.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    _same(store, report.card, npr)
    assert store.verify() == []
    assert store.pointer() == {}


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".tar"])
def test_suffixes(suffix: str, npr: State, store: Store, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    torch.save(npr, path)
    _same(store, import_weights(path, store=store, architecture="npr", version="1").card, npr)


def test_files_from_before_torch_1_6(npr: State, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(npr, path, _use_new_zipfile_serialization=False)
    _same(store, import_weights(path, store=store, preset="npr", version="1").card, npr)


def test_safetensors(npr: State, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "npr.safetensors"
    safetensors.torch.save_file(npr, path)
    report = import_weights(path, store=store, preset="npr-bitmind", version="1", name="npr-general")
    assert report.card is not None
    assert report.card.key == "npr-general@1"
    assert report.card.preprocess == registry.published_cards()["npr-bitmind"].preprocess
    assert report.source_sha256 in report.card.origin
    assert "npr.safetensors" in report.card.origin


@pytest.mark.parametrize("name", registry.names())
def test_every_architecture_imports_its_own_file(name: str, store: Store, tmp_path: Path) -> None:
    state = small_network(name).state_dict()
    path = tmp_path / "file.pth"
    torch.save(_prefixed(state, "module."), path)
    report = import_weights(path, store=store, architecture=name, version="1", options=SMALL.get(name))
    _same(store, report.card, state)


def test_ucf_leaves_its_training_parts_out(store: Store, tmp_path: Path) -> None:
    full = UCF(**XCEPTION, specific_task_number=7).state_dict()
    path = tmp_path / "ucf_best.pth"
    torch.save(full, path)
    report = import_weights(path, store=store, preset="ucf", version="1", options=XCEPTION)
    assert set(report.ignored) == {k for k in full if k.startswith(UCF.training_only)}
    assert report.card is not None
    assert report.card.options == {**XCEPTION, "inference_only": True}
    _same(store, report.card, full)


def test_ucf_with_the_wrong_number_of_methods_names_the_key(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ucf_best.pth"
    torch.save(UCF(**XCEPTION, specific_task_number=7).state_dict(), path)
    options = {**XCEPTION, "inference_only": False}
    with pytest.raises(KeysRefusedError, match=r"head_spe\.mlp\.2\.weight: file \[7, 512\], network \[5, 512\]"):
        import_weights(path, store=store, preset="ucf", version="1", options=options)
    options["specific_task_number"] = 7
    assert import_weights(path, store=store, preset="ucf", version="1", options=options).ignored == ()


def test_refusal_lists_every_key(npr: State, store: Store, tmp_path: Path) -> None:
    state = {**npr, "layer3.0.conv1.weight": torch.zeros(2), "fc1.bias": torch.zeros(4)}
    del state["conv1.weight"], state["bn1.num_batches_tracked"]
    path = tmp_path / "file.pth"
    torch.save(state, path)
    with pytest.raises(KeysRefusedError) as caught:
        import_weights(path, store=store, preset="npr", version="1")
    report = caught.value.report
    assert report.missing == ("conv1.weight",)
    assert report.unexpected == ("layer3.0.conv1.weight",)
    assert report.mismatched == ("fc1.bias: file [4], network [1]",)
    assert report.defaulted == ("bn1.num_batches_tracked",)
    assert report.card is None
    for words in ("conv1.weight", "layer3.0.conv1.weight", "fc1.bias", "npr@1"):
        assert words in str(caught.value)
    assert not store.root.exists()


def test_counters_that_old_files_lack_are_filled(npr: State, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({k: v for k, v in npr.items() if not k.endswith("num_batches_tracked")}, path)
    report = import_weights(path, store=store, preset="npr", version="1")
    assert len(report.defaulted) == 24
    _same(store, report.card, npr)


def test_tall_may_lack_its_tables_but_not_its_weights(store: Store, tmp_path: Path) -> None:
    state = TALL(**SMALL["tall"]).state_dict()
    path = tmp_path / "tall.pth"
    torch.save({k: v for k, v in state.items() if not k.endswith(TALL.derived)}, path)
    report = import_weights(path, store=store, preset="tall-bitmind", version="1", options=SMALL["tall"])
    assert any(key.endswith("attn_mask") for key in report.defaulted)
    assert report.card is not None
    assert report.card.options == {**SMALL["tall"], "padding": "zero"}


def test_a_prefix_that_belongs_to_the_keys_stays(store: Store, tmp_path: Path) -> None:
    state = Xception(**XCEPTION).state_dict()
    path = tmp_path / "xception_best.pth"
    torch.save(state, path)
    report = import_weights(path, store=store, preset="xception", version="1", options=XCEPTION)
    assert report.layout == "state dict"
    _same(store, report.card, state)


def test_half_precision_files_become_single(npr: State, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in npr.items()}, path)
    report = import_weights(path, store=store, preset="npr", version="1")
    assert report.card is not None
    assert {p.dtype for p in store.load(report.card.key).network.parameters()} == {torch.float32}


def test_a_pickled_module_is_refused_with_the_recipe(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(NPR(), path)
    with pytest.raises(WeightsError, match="weights_only=False") as caught:
        import_weights(path, store=store, preset="npr", version="1")
    assert "safetensors.torch.save_file" in str(caught.value)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_hostile_pickle_is_not_run(npr: State, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": npr, "args": _Bomb()}, "bomb.pth")
    with pytest.raises(WeightsError, match="would run code"):
        import_weights(Path("bomb.pth"), store=store, preset="npr", version="1")
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pth", None, "No such file"),
        ("empty.pth", b"", "not a file that torch.save wrote"),
        ("noise.pth", bytes(np.random.RandomState(0).bytes(500)), "noise.pth"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a safetensors file"),
        ("Meso4.h5", b"\x89HDF", r"\.h5 is not a kind"),
        ("noname", b"", "no suffix is not a kind"),
    ],
)
def test_unreadable_files(name: str, content: bytes | None, words: str, store: Store, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        import_weights(tmp_path / name, store=store, preset="npr", version="1")


def test_truncated_file(npr: State, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save(npr, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        read_checkpoint(path)


@pytest.mark.parametrize("found", [{"epoch": 3}, {"model": 3}, [1, 2], {}, {"optimizer": {"state": {}}}])
def test_files_without_a_state_dict(found: object, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(found, path)
    with pytest.raises(WeightsError, match="state dict"):
        read_checkpoint(path)


def test_empty_safetensors_is_missing_everything(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    safetensors.torch.save_file({}, path)
    with pytest.raises(KeysRefusedError, match="missing"):
        import_weights(path, store=store, preset="npr", version="1")


@pytest.mark.parametrize("chosen", [{}, {"preset": "npr", "architecture": "npr"}, {"preset": "nprr"}])
def test_preset_or_architecture(chosen: dict[str, str], store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preset"):
        import_weights(
            tmp_path / "file.pth",
            store=store,
            version="1",
            preset=chosen.get("preset"),
            architecture=chosen.get("architecture"),
        )
