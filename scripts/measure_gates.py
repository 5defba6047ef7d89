"""How often the face gate fires, where it should and where not, and what it costs; on a manifest's images as sent.

.venv/bin/python scripts/measure_gates.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.stats import binomtest

from detectors import augment, datasets, media, paths
from detectors.datasets import Item
from detectors.gates.content import WEIGHTS as CONTENT_WEIGHTS
from detectors.gates.content import ContentGate
from detectors.gates.face import FaceGate
from detectors.store import Store
from detectors.training.samples import wire_view
from detectors.types import U8


def sent(item: Item, level: int = 0) -> U8:
    """The wire image: at level 0 the centre square at 256 px, JPEG 75."""
    frame = media.decode_image(item.path.read_bytes()).pixels
    rng = np.random.default_rng([level, zlib.crc32(item.path.name.encode())])
    return wire_view(frame, augment.draw(rng, level, (frame.shape[0], frame.shape[1])))


def share(fired: list[bool]) -> str:
    """Share with its 95 % Wilson interval."""
    test = binomtest(sum(fired), len(fired)).proportion_ci(method="wilson")
    return f"{sum(fired) / len(fired):.3f} [{test.low:.3f}, {test.high:.3f}] of {len(fired)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=150, help="images of a source, drawn with seed 0")
    parser.add_argument("--held-out", action="store_true", help="only the groups that training never saw")
    parser.add_argument("--out", type=Path, default=Path("build/gates.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    items = [i for i in datasets.read(options.data) if i.modality == "image"]
    if options.held_out:
        items = datasets.split_by_group(items, 0.15, 0)[1]
    store = Store(paths.weights())
    face = FaceGate.load(store)
    content = ContentGate.load(store) if CONTENT_WEIGHTS in store.pointer() else None
    sources: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        sources[item.content, item.source].append(item)
    fired: dict[str, list[bool]] = defaultdict(list)
    by_source: dict[str, list[bool]] = defaultdict(list)
    named: dict[str, list[bool]] = defaultdict(list)
    by_level: dict[str, list[bool]] = defaultdict(list)
    face_ms, content_ms = [], []
    for (kind, source), members in sorted(sources.items()):
        order = np.random.default_rng(0).permutation(len(members))[: options.most]
        for index in order:
            image = sent(members[int(index)])
            started = time.perf_counter()
            found = face(image) is not None
            face_ms.append((time.perf_counter() - started) * 1e3)
            fired[kind].append(found)
            by_source[source].append(found)
            if kind in ("face", "general"):
                for level in (1, 2, 3):
                    by_level[f"{kind}, level {level}"].append(face(sent(members[int(index)], level)) is not None)
            if content is not None:
                started = time.perf_counter()
                said = content.probabilities(image)
                content_ms.append((time.perf_counter() - started) * 1e3)
                named[kind].append(max(said, key=lambda name: said[name]) == kind)
    report = {
        "face_gate_fires": {kind: share(found) for kind, found in sorted(fired.items())},
        "face_gate_fires_by_source": {name: share(found) for name, found in sorted(by_source.items())},
        "face_gate_fires_by_level": {name: share(found) for name, found in sorted(by_level.items())},
        "face_gate_ms": {name: round(float(np.quantile(face_ms, q)), 1) for name, q in (("p50", 0.5), ("p99", 0.99))},
        "content_right": {kind: share(found) for kind, found in sorted(named.items())},
        "content_gate_ms": {"p50": round(float(np.median(content_ms)), 1)} if content_ms else {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
