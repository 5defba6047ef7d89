"""The demo's media: real photographs that came with declared dependencies, and fakes made from them.

Nothing is fetched. The photographs are those that scikit-image, scikit-learn and matplotlib install; what no camera
took of things in daily life (logos, charts, phantoms, microscopes, telescopes) is left out. Square parts of them are
the real images; pans over them, with sensor noise, the real videos. Every fake is made by ``detectors.training.fakes``
from such a part, and saved exactly as the real ones are. The set is a smoke test: a dozen photographs say whether the
whole way works, not how well a detector generalises.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from detectors import datasets, media
from detectors.training import fakes
from detectors.types import U8, Label
from neurons.challenges import MediaSet

__all__ = ["DESCRIPTION", "build", "media_set", "photographs"]

DESCRIPTION = (
    "demo set: parts of photographs that arrive with scikit-image, scikit-learn and matplotlib, and fakes made from "
    "them by detectors.training.fakes; a smoke test, it says nothing about fakes from the field"
)

_FILES = {
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/rocket.jpg",
        "data/motorcycle_left.png",
        "data/camera.png",
        "data/coins.png",
        "data/brick.png",
        "data/grass.png",
        "data/gravel.png",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}

_SHORT = 480  # pixels: larger photographs are brought down to this short side first
_PARTS = 4  # real images a photograph gives
_CLIP = (24, 256, 25)  # frames, side in pixels, frames a second
_QUALITY = 92  # of every image saved, real or fake


def media_set(data: Path | None, scratch: Path, seed: int) -> MediaSet:
    """The user's media, or the demo's, made below `scratch`.

    Args:
        data: folder with ``real/ synthetic/ semisynthetic/``, a manifest, or None for the demo's.
        scratch: where the demo's are made.
        seed: of what is made.

    Raises:
        ConfigError: `data` is not usable.
    """
    if data is not None:
        return MediaSet.of(datasets.read(data))
    dataset = datasets.read(build(scratch / "media", seed))
    return MediaSet(dataset.items, f"{DESCRIPTION} ({dataset.description})")


def photographs() -> Iterator[tuple[str, U8]]:
    """(name, ``uint8 [H, W, 3]`` RGB) of every photograph that is installed, in a fixed order.

    Raises:
        FileNotFoundError: fewer than ten are there: the packages were installed without their data.
    """
    found = 0
    for package, files in _FILES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in files:
            path = Path(spec.origin).parent / name
            if path.is_file():
                found += 1
                yield path.stem, _bounded(media.decode_image(path.read_bytes()).pixels)
    if found < 10:
        raise FileNotFoundError(f"only {found} photographs came with the installed packages; reinstall scikit-image")


def build(out: Path, seed: int = 0) -> Path:
    """Writes ``real/ synthetic/ semisynthetic/`` below `out`, images and videos, and returns `out`.

    Args:
        out: a folder of its own; what an earlier call wrote there is replaced.
        seed: of every part, pan and fake; the same seed writes the same pixels.
    """
    for label in ("real", "synthetic", "semisynthetic"):
        shutil.rmtree(out / label, ignore_errors=True)
    for number, (name, photo) in enumerate(photographs()):
        rng = np.random.default_rng([seed, number])
        for k in range(_PARTS):
            part = _part(photo, rng)
            _write_image(out / "real" / name / f"{name}-{k}.jpg", part)
            for kind in rng.permutation(list(fakes.KINDS))[:3]:
                made = fakes.make(part, rng, str(kind))
                _write_image(out / _folder(made.label) / kind / f"{name}-{k}-{kind}.jpg", made.pixels)
        clip = _pan(photo, rng)
        _write_video(out / "real" / name / f"{name}-pan.mp4", clip)
        kind = str(rng.permutation(list(fakes.KINDS))[0])
        choices = int(rng.integers(2**63))  # one set of choices for the clip: the trace moves with nothing
        frames = [fakes.make(frame, np.random.default_rng(choices), kind) for frame in clip]
        _write_video(out / _folder(frames[0].label) / kind / f"{name}-pan-{kind}.mp4", [f.pixels for f in frames])
    return out


def _folder(label: Label) -> str:
    return "synthetic" if label == Label.SYNTHETIC else "semisynthetic"


def _bounded(photo: U8) -> U8:
    scale = _SHORT / min(photo.shape[:2])
    if scale >= 1:
        return photo
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)


def _part(photo: U8, rng: np.random.Generator) -> U8:
    """A square of 60 to 100 % of the short side, at native resolution."""
    height, width = photo.shape[:2]
    side = round(min(height, width) * float(rng.uniform(0.6, 1.0)))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return np.ascontiguousarray(photo[y : y + side, x : x + side])


def _pan(photo: U8, rng: np.random.Generator) -> list[U8]:
    """A slow pan and zoom over the photograph, with fresh sensor noise in every frame."""
    count, side, _ = _CLIP
    height, width = photo.shape[:2]
    ends = []
    for _ in range(2):
        part = min(height, width) * float(rng.uniform(0.6, 0.95))
        ends.append(np.array([rng.uniform(part / 2, width - part / 2), rng.uniform(part / 2, height - part / 2), part]))
    frames = []
    for k in range(count):
        x, y, part = ends[0] + (ends[1] - ends[0]) * (k / (count - 1))
        scale = side / part
        matrix = np.array([[scale, 0.0, side / 2 - x * scale], [0.0, scale, side / 2 - y * scale]])
        frame = cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        noisy = np.asarray(frame, np.float32) + rng.normal(0.0, 1.5, frame.shape)
        frames.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return frames


def _write_image(path: Path, pixels: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(media.encode_jpeg(pixels, quality=_QUALITY))


def _write_video(path: Path, frames: list[U8]) -> None:
    """H.264 at a constant quality; the same frames give the same bytes on any number and kind of cores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "threads": "1", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=Fraction(_CLIP[2]), options=options)
        stream.width = stream.height = _CLIP[1]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
