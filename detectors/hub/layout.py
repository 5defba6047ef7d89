"""What is in a downloaded data set: entries of parquet shards, of archives, and plain files, one at a time.

The directory is as ``huggingface_hub.snapshot_download`` leaves it: ``data/train-00000-of-00001.parquet`` with a
column of media, or zip and tar archives, or files in folders. Shards and archives are streamed: memory holds a
page of one row group (as large as its writer made it), never a shard. Names inside archives are never used as paths.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import yaml
from huggingface_hub.repocard import metadata_load

from detectors.datasets import EXTENSIONS
from detectors.errors import ConfigError
from detectors.hub.sources import Source

__all__ = ["ARCHIVES", "GROUP_COLUMNS", "Entry", "containers", "entries", "licence", "media_column"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

GROUP_COLUMNS = ("group", "prompt", "scene", "identity", "person", "video", "video_id", "image_id", "id")
"""Columns beside the media that say what belongs together; the first one there decides."""

_MEDIA_COLUMNS = {"image": ("image", "img", "jpg", "png", "webp"), "video": ("video", "mp4", "clip")}
_ROWS = 8  # read at a time
_BUFFER = 1 << 20  # bytes of a column read ahead


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One file inside a data set.

    Attributes:
        key: container and place in it, e.g. ``data/train-00000-of-00001.parquet#17``; the same in every run.
        name: what the publisher called it, without folders; empty where unknown.
        group: what it shares with others of its scene; empty where nothing tells.
        stream: its bytes, to be read before the next entry is asked for.
    """

    key: str
    name: str
    group: str
    stream: BinaryIO


def containers(directory: Path) -> tuple[list[str], list[str]]:
    """(shards, archives and media files, what is neither), as sorted relative paths; hidden folders are left out.

    Raises:
        ConfigError: the directory cannot be read.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder")
    held: list[str] = []
    other: list[str] = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        name = path.name.lower()
        readable = name.endswith((".parquet", *ARCHIVES)) or path.suffix.lower() in EXTENSIONS
        (held if readable else other).append(relative.as_posix())
    return held, other


def entries(directory: Path, container: str, source: Source, seen: Container[str] = ()) -> Iterator[Entry]:
    """The entries of one container, in its own order; those whose key is in `seen` are passed over unread.

    Args:
        directory: of the data set.
        container: one of :func:`containers`.
        source: says which modality to look for and how file names are grouped.
        seen: keys that are not wanted again.

    Raises:
        ConfigError: the container is damaged, or a shard has no column of the source's media.
    """
    path = directory / container
    name = container.lower()
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, container, directory, source, seen)
        elif name.endswith(".zip"):
            yield from _zip(path, container, source, seen)
        elif name.endswith(ARCHIVES):
            yield from _tar(path, container, source, seen)
        elif container not in seen and EXTENSIONS.get(path.suffix.lower()) == source.modality:
            with path.open("rb") as stream:
                yield Entry(container, path.name, _group(source, path.stem), stream)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable part of a data set: {error}") from error


def licence(directory: Path) -> str:
    """The licence in the header of the data set's README.md; empty where there is none."""
    try:
        header = metadata_load(directory / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    found = header.get("license_name") or header.get("license") or ""
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def media_column(schema: Any, modality: str) -> str | None:
    """The column of a shard that holds the media: a struct {bytes, path} or plain bytes, by name, or the only one."""
    import pyarrow as pa  # noqa: PLC0415 - only parquet needs it

    def binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    held = []
    for field in schema:
        kind = field.type
        children = {child.name: child.type for child in kind} if pa.types.is_struct(kind) else {}
        if binary(kind) or ("bytes" in children and binary(children["bytes"])):
            held.append(field.name)
    named = [name for name in _MEDIA_COLUMNS[modality] if name in held]
    if named:
        return str(named[0])
    others = {name for kind, names in _MEDIA_COLUMNS.items() if kind != modality for name in names}
    return str(held[0]) if len(held) == 1 and held[0] not in others else None


def _parquet(path: Path, container: str, directory: Path, source: Source, seen: Container[str]) -> Iterator[Entry]:
    from pyarrow import parquet  # noqa: PLC0415 - see media_column

    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as shard:
        column = media_column(shard.schema_arrow, source.modality)
        if column is None:
            raise ConfigError(f"{path}: no column of {source.modality}s; it has {', '.join(shard.schema_arrow.names)}")
        group = next((name for name in GROUP_COLUMNS if name in shard.schema_arrow.names and name != column), None)
        first = 0
        for number in range(shard.num_row_groups):
            rows = range(first, first + shard.metadata.row_group(number).num_rows)
            first = rows.stop
            if all(f"{container}#{row}" in seen for row in rows):
                continue
            wanted = [column] if group is None else [column, group]
            batches = shard.iter_batches(batch_size=_ROWS, row_groups=[number], columns=wanted, use_threads=False)
            values = (value for batch in batches for value in batch.to_pylist())
            for row, value in zip(rows, values, strict=True):
                key = f"{container}#{row}"
                if key not in seen:
                    yield _row(key, value[column], value.get(group) if group else None, directory, source)


def _row(key: str, value: Any, group: Any, directory: Path, source: Source) -> Entry:
    """A cell, whose bytes may lie in a file beside the shard; what has none is an empty entry, refused later."""
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    name = str(name or "")
    if data is None and name:
        beside = (directory / name).resolve()
        if beside.is_relative_to(directory.resolve()) and beside.is_file():
            data = beside.read_bytes()
    name = PurePosixPath(name).name
    said = "" if group is None or isinstance(group, (dict, list, bytes)) else str(group)
    return Entry(key, name, said or _group(source, PurePosixPath(name).stem), io.BytesIO(data or b""))


def _zip(path: Path, container: str, source: Source, seen: Container[str]) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda m: (m.filename, m.header_offset)):
            inside = PurePosixPath(member.filename)
            key = f"{container}#{member.filename}"
            if member.is_dir() or not _wanted(inside, source) or key in seen:
                continue
            with archive.open(member) as stream:
                yield Entry(key, inside.name, _group(source, inside.stem), _binary(stream))


def _tar(path: Path, container: str, source: Source, seen: Container[str]) -> Iterator[Entry]:
    with tarfile.open(path, mode="r|*") as archive:  # a stream: nothing is kept of what was passed
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            inside = PurePosixPath(member.name)
            key = f"{container}#{member.name}"
            if not member.isfile() or not _wanted(inside, source) or key in seen:
                continue
            stream = archive.extractfile(member)
            if stream is not None:
                yield Entry(key, inside.name, _group(source, inside.stem), _binary(stream))


def _binary(stream: Any) -> BinaryIO:
    """Archives' streams are read as any other; the libraries type them apart."""
    return stream  # type: ignore[no-any-return]


def _wanted(inside: PurePosixPath, source: Source) -> bool:
    """By suffix; macOS leaves ``._name`` files and a ``__MACOSX`` folder in archives, which are no media."""
    hidden = inside.name.startswith(".") or "__MACOSX" in inside.parts
    return not hidden and EXTENSIONS.get(inside.suffix.lower()) == source.modality


def _group(source: Source, stem: str) -> str:
    found = re.match(source.group_pattern, stem) if source.group_pattern else None
    return found.group(1) if found else ""
