"""Tiny data sets in the layouts that the hub's client leaves on disk."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from detectors.hub.sources import RECORD
from detectors.types import U8
from neurons.demo_media import photographs

README = "---\nlicense: cc-by-4.0\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n---\n# A data set\n"


def parts(count: int, side: int = 64) -> list[U8]:
    """Different square parts of photographs."""
    photos = [pixels for _, pixels in photographs()]
    rng = np.random.default_rng(5)
    found = []
    for k in range(count):
        photo = photos[k % len(photos)]
        y, x = (int(rng.integers(length - side)) for length in photo.shape[:2])
        found.append(np.ascontiguousarray(photo[y : y + side, x : x + side]))
    return found


def encoded(pixels: U8, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def clip(pixels: U8) -> bytes:
    """A short MP4 that pans over a square."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height = pixels.shape[1], pixels.shape[0]
        for k in range(6):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(pixels, k, axis=1)), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def shard(path: Path, images: Sequence[bytes | None], *, rows: int = 4, page: int = 1024, **columns: Any) -> None:
    """A parquet shard as ``datasets`` writes it, in row groups of `rows`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": data, "path": f"{k}.jpg"} for k, data in enumerate(images)]
    table = pa.table({"image": pa.array(cells, struct), **columns})
    parquet.write_table(
        table, path, row_group_size=rows, compression="none", use_dictionary=False, write_batch_size=page
    )


def zipped(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def tarred(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def record(directory: Path, name: str, *, complete: bool = True) -> None:
    """What ``data pull`` leaves."""
    directory.mkdir(parents=True, exist_ok=True)
    said = {"name": name, "revision": "0" * 40, "complete": complete, "files": {}}
    (directory / RECORD).write_text(json.dumps(said), encoding="utf-8")
