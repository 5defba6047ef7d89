"""What an operator's disk may hold: settings, configurations, recipes, cards, pointers, weights, manifests."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from detectors import datasets, importing, paths
from detectors.camo_config import load_config
from detectors.card import Card
from detectors.errors import ConfigError, WeightsError
from detectors.store import Store
from detectors.training.fit import MergeRecipe
from detectors.training.recipe import Recipe, load_as
from neurons.settings import MinerSettings, SettingsError, load
from tests.fuzz.engine import Outcome, Target
from tests.fuzz.mutate import mixed
from tests.fuzz.mutate_text import csv, json_text, lines, safetensors_header, yaml

__all__ = ["targets"]

_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None

_SETTINGS = b"""netuid: 34
offline: false
wallet: {name: default, hotkey: default}
subtensor:
  network: finney
  chain_endpoint: ws://127.0.0.1:9944
axon:
  ip: 0.0.0.0
  port: 8091
  external_ip: null
  max_body_bytes: 33554432
  grace_s: 10.0
blacklist:
  force_validator_permit: true
  min_stake: 1000.5
  allow: [5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY]
  deny: "a, b"
logging: {level: INFO, format: json}
neuron:
  detector: camo
  camo: configs/camo.yaml
  device: cuda:0
  deadline_s: 8
"""

_CAMO = b"""merge: learned
merge_calibration: {method: isotonic, knots: [[-1.0, 0.2], [0.5, 0.5], [2, 0.9]]}
gate_calibration:
  face: {method: platt, slope: 1.2, intercept: -0.1}
gates:
  face: {}
  people: {kind: content, content: people}
experts:
  general: &g
    weights: general
    weight: 0.6
    calibration: {method: temperature, slope: 1.1}
  face:
    <<: *g
    weights: face@1.0.0
    content: face
    gate: face
    media: image
semisynthetic: {general: 0.25}
video: {frames: 8, gate_frames: 4, clip_frames: null, merge_spread: 0.5}
deadline: {margin_ms: 20, smoothing: 0.2}
"""


@functools.cache
def _folder() -> Path:
    """One folder for the process, in memory where there is one; a media file of every manifest lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_MEMORY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    return folder


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _refused(error: Exception) -> Outcome:
    text = str(error)
    assert text, "a refusal that says nothing"
    return Outcome(False, type(error.__cause__).__name__)


def _settings(data: bytes) -> Outcome:
    try:
        found = load(["--config", str(_file("miner.yaml", data))], {})
    except SettingsError as error:
        return _refused(error)
    assert isinstance(found, MinerSettings)
    return Outcome(True, "settings")


def _flags(data: bytes) -> Outcome:
    """The same as flags and environment: one a line, ``NAME=VALUE`` being the environment's."""
    texts = data.decode("utf-8", "surrogateescape").split("\n")
    argv = [text for text in texts if not text.startswith("DEEPFAKE_MINER_")]
    environ = dict(text.partition("=")[::2] for text in texts if text.startswith("DEEPFAKE_MINER_"))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            load([*argv, "--config", os.devnull], environ)
    except SettingsError as error:
        return _refused(error)
    except SystemExit as end:
        assert end.code == 0
        return Outcome(True, "help")
    return Outcome(True, "settings")


def _camo(data: bytes) -> Outcome:
    try:
        config = load_config(_file("camo.yaml", data))
    except ConfigError as error:
        return _refused(error)
    curves = [config.curve("image"), config.curve("video", tuple(config.gates))]
    assert all(float(curve.logits(0.25)) == float(curve.logits(0.25)) for curve in curves)
    for expert in config.experts.values():
        assert isinstance(expert.calibrated(0.5, "video"), float)
    return Outcome(True, f"{config.merge} {len(config.experts)}")


def _recipe(data: bytes) -> Outcome:
    path = _file("recipe.yaml", data)
    try:
        found = load_as(MergeRecipe, path) if b"kind: merge" in data else Recipe.load(path)
    except ConfigError as error:
        return _refused(error)
    return Outcome(True, type(found).__name__)


def _card(data: bytes) -> Outcome:
    try:
        card = Card.load(_file("card.json", data))
    except WeightsError as error:
        return _refused(error)
    assert Card.from_json(card.to_json()) == card
    assert isinstance(card.name, str)
    assert isinstance(card.frames, int)
    return Outcome(True, "card")


def _pointer(data: bytes) -> Outcome:
    _file("active.json", data)
    store = Store(_folder())
    try:
        found = store.pointer()
    except WeightsError as error:
        return _refused(error)
    json.dumps(found, allow_nan=False)
    for name in list(found)[:3]:
        with contextlib.suppress(WeightsError):
            store.active(name)
    return Outcome(True, f"{min(len(found), 3)} names")


@functools.cache
def _gate() -> tuple[Card, bytes]:
    """The smallest set of weights that ships, as card and bytes."""
    folder = paths.weights()
    card = Card.load(min(folder.glob("*.safetensors"), key=lambda p: p.stat().st_size).with_suffix(".json"))
    return card, (folder / f"{card.stem}.safetensors").read_bytes()


def _weights(data: bytes) -> Outcome:
    """A weights file behind a card whose hash is right, all the way to a detector; and as a checkpoint to import."""
    shipped, _ = _gate()
    card = Card(shipped.name, shipped.version, shipped.architecture, shipped.options, hashlib.sha256(data).hexdigest())
    folder = _folder() / "weights"
    folder.mkdir(exist_ok=True)
    (folder / f"{card.stem}.json").write_text(card.to_json())
    (folder / f"{card.stem}.safetensors").write_bytes(data)
    keys = []
    for read in (
        lambda: Store(folder).load(card.key),
        lambda: importing.read_checkpoint(folder / f"{card.stem}.safetensors"),
    ):
        try:
            read()
            keys.append("ok")
        except (WeightsError, ConfigError) as error:
            keys.append(_refused(error).key)
    return Outcome("ok" in keys, " ".join(keys))


def _checkpoint(data: bytes) -> Outcome:
    path = _file("model.pth", data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensors, wrapper = importing.read_checkpoint(path)
    except WeightsError as error:
        return _refused(error)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    return Outcome(True, wrapper)


def _manifest(data: bytes) -> Outcome:
    try:
        found = datasets.read_manifest(_file("manifest.csv", data))
    except ConfigError as error:
        return _refused(error)
    assert all(item.path.is_relative_to(_folder().resolve()) for item in found)
    return Outcome(True, f"{min(len(found), 3)} rows {found.description[:0]}")


def _shipped(folder: str, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((paths.home() / folder).glob(pattern))]


def _flag_seeds() -> Sequence[bytes]:
    flags = b"--netuid 34 --wallet.name a --axon.port=8091 --offline --no-offline --blacklist.min_stake 5 --help"
    environment = (
        b"DEEPFAKE_MINER_AXON__PORT=1\nDEEPFAKE_MINER_LOGGING__LEVEL=debug\nDEEPFAKE_MINER_BLACKLIST__ALLOW=a,b"
    )
    listed = flags.replace(b" ", b"\n")
    return [
        listed.replace(b"\n--help", b""),
        environment,
        environment + b"\n" + listed,
        b"--netuid\n1",
        b"--axon.grace_s\n1e3",
    ]


def _weight_seeds() -> Sequence[bytes]:
    small = {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.int64), "c": torch.full((2,), float("nan"))}
    return [safetensors.torch.save(small), safetensors.torch.save({"x": torch.zeros(0)}), _gate()[1]]


def _checkpoint_seeds() -> Sequence[bytes]:
    state = {"module.weight": torch.zeros(2, 2), "module.bias": torch.zeros(2)}
    found = []
    for content, zipped in ((state, True), ({"model": state, "epoch": 3}, True), (state, False), ([1, 2], True)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return found


def _manifest_seeds() -> Sequence[bytes]:
    head = ",".join(datasets.COLUMNS)
    row = "a.jpg,image,real,general,camera,web,g1,64,48,JPEG,none,CC0-1.0,0123456789abcdef"
    other = row.replace("real", "synthetic").replace("g1", '"g,2"')
    return [f"{head}\n{row}\n".encode(), f"{head}\r\n{row}\r\n{other}\r\n".encode(), f"\ufeff{head}\n{row}".encode()]


def targets() -> tuple[Target, ...]:
    """YAML is parsed in Python, at some milliseconds a page: its targets see the fewest inputs."""

    def cards() -> Sequence[bytes]:
        return [t for t in _shipped("weights", "*.json") if b'"architecture"' in t]

    def pointers() -> Sequence[bytes]:
        return [*_shipped("weights", "active.json"), b"{}", json.dumps({"a": "1.0.0", "b": "2"}).encode()]

    return (
        Target(
            "settings-yaml", lambda: [_SETTINGS, *_shipped("configs", "miner.yaml")], _settings, mixed(yaml, share=0.8)
        ),
        Target("settings-flags", _flag_seeds, _flags, mixed(lines, yaml)),
        Target("camo-yaml", lambda: [_CAMO, *_shipped("configs", "camo.yaml")], _camo, mixed(yaml, share=0.8)),
        Target(
            "recipe-yaml",
            lambda: sorted(_shipped("configs/train", "*.yaml"), key=len)[:10],
            _recipe,
            mixed(yaml, share=0.8),
        ),
        Target("card-json", cards, _card, mixed(json_text, share=0.8)),
        Target("active-json", pointers, _pointer, mixed(json_text, share=0.7), share=0.5),
        Target("safetensors", _weight_seeds, _weights, mixed(safetensors_header), share=0.7),
        Target("checkpoint", _checkpoint_seeds, _checkpoint, mixed(), share=0.5),
        Target("manifest-csv", _manifest_seeds, _manifest, mixed(csv), share=0.5),
    )
