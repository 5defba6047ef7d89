"""Training the content gate: which of the manifest's contents does a wire image show?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detectors import augment, datasets, media
from detectors.card import Card
from detectors.datasets import Item
from detectors.gates.content import CONTENTS, WEIGHTS, thumbnail
from detectors.gates.network import GateNet
from detectors.store import Store
from detectors.training.small import descend
from detectors.types import U8

__all__ = ["train_contents"]

_BATCH = 48
_Pools = Mapping[str, Mapping[str, Sequence[bytes]]]


def train_contents(
    data: Path, store: Store, *, version: str, steps: int = 1500, seed: int = 0, report: Callable[[str], None] = print
) -> Card:
    """Trains, measures on held-out groups, saves ``content`` and returns its card.

    Args:
        data: manifest with the column `content`.
        store: where it goes; not activated.
        version: of the weights.
        steps: of 48 pictures each, drawn evenly over contents, then over sources.
        seed: of everything.
        report: called with a line now and then.
    """
    training, held = datasets.split_by_group(datasets.read(data), 0.15, seed)
    torch.manual_seed(seed)
    network = GateNet(outputs=len(CONTENTS), side=64, width=16)
    pools = _pools(training)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        labels = rng.integers(len(CONTENTS), size=_BATCH)
        x = torch.cat([thumbnail(_view(_drawn(pools[CONTENTS[k]], rng), rng), network.side) for k in labels])
        return nn.functional.cross_entropy(network(x), torch.from_numpy(labels), label_smoothing=0.05)

    descend(network, loss_of, steps=steps, decay=1e-2, report=report)
    card = replace(
        GateNet.published,
        name=WEIGHTS,
        version=version,
        options={"outputs": len(CONTENTS), "side": 64, "width": 16},
        provenance="pictures of the training pool by content: " + ", ".join(CONTENTS),
        origin=f"detectors.training.contents, seed {seed}, {steps} steps of {_BATCH}",
        metrics=_measured(network, held, seed),
        command="deepfake-miner train configs/train/content.yaml",
    )
    return store.save(card, network)


def _pools(items: Sequence[Item]) -> _Pools:
    found: dict[str, dict[str, list[bytes]]] = {name: defaultdict(list) for name in CONTENTS}
    for item in items:
        if item.modality == "image" and item.content in found:
            found[item.content][item.source].append(item.path.read_bytes())
    return found


def _drawn(sources: Mapping[str, Sequence[bytes]], rng: np.random.Generator) -> U8:
    names = sorted(sources)
    members = sources[names[int(rng.integers(len(names)))]]
    return media.decode_image(members[int(rng.integers(len(members)))]).pixels


def _view(image: U8, rng: np.random.Generator) -> U8:
    """As on the wire, without the JPEG: at 64 px it leaves no trace."""
    drawn = augment.draw(rng, augment.sample_level(rng, "2.0"), (image.shape[0], image.shape[1]))
    return augment.apply(drawn, image)


def _measured(network: GateNet, held: Sequence[Item], seed: int) -> dict[str, float]:
    """Share judged right, by content and as the mean over contents, one wire view each."""
    rng = np.random.default_rng([seed, 10**6])
    right: dict[str, list[bool]] = {name: [] for name in CONTENTS}
    with torch.inference_mode():
        for content, sources in _pools(held).items():
            for data in (d for name in sorted(sources) for d in sources[name]):
                x = thumbnail(_view(media.decode_image(data).pixels, rng), network.side)
                right[content].append(CONTENTS[int(network(x)[0].argmax())] == content)
    shares = {name: round(float(np.mean(found)), 4) for name, found in right.items() if found}
    return {**shares, "balanced_accuracy": round(float(np.mean(list(shares.values()))), 4)}
