"""From a downloaded data set to a pool: media written as they are, a manifest beside them.

    POOL/image/real/owner--name/3f/3f9c….jpg    named by the hash of its bytes
    POOL/.journal/owner--name.jsonl             one line an entry: what became of it
    POOL/manifest.csv                           made anew from all journals

A run that was killed goes on where it stopped: a file is put in place whole before its line is written, and a torn last
line is dropped. Several data sets may share a pool; near duplicates are found across all of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors import datasets
from detectors.errors import ConfigError, MediaError, MediaReason
from detectors.hub import layout, near
from detectors.hub.look import SUFFIXES, look
from detectors.hub.sources import RECORD, Source, describe, slug
from detectors.limits import LOCAL_LIMITS
from detectors.video import container_format

__all__ = ["INNER", "Prepared", "prepare", "read", "write_manifest"]

INNER = ".pool"
"""The pool inside a data set's own directory, which :func:`read` makes."""

_JOURNAL = ".journal"
_COPY = 1 << 20  # bytes
_CONTAINERS = {"mov": ".mp4", "matroska": ".mkv", "avi": ".avi", "gif": ".gif"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run found.

    Attributes:
        manifest: of the whole pool.
        new, held: items written by this run; items of the data set that are in the pool now.
        refused: why entries were left out, and how many.
    """

    manifest: Path
    new: int
    held: int
    refused: dict[str, int]


def read(directory: Path) -> datasets.Dataset:
    """A data set in its local layout as a list of items; extracts it into ``DIR/.pool`` first, where that is not done.

    Raises:
        ConfigError: the data set is not known (prepare it with its label), or holds nothing readable, or the directory
            cannot be written to.
    """
    source = describe(directory)
    done = prepare(directory, directory / INNER, source)
    found = datasets.read_manifest(done.manifest)
    return datasets.Dataset(found.items, directory, tuple(layout.containers(directory)[1]))


def prepare(
    directory: Path, pool: Path, source: Source, *, report: Callable[[str, int], None] = lambda *_: None
) -> Prepared:
    """Extracts a data set into a pool and writes the pool's manifest.

    Args:
        directory: in the data set's local layout.
        pool: made where it does not exist; may hold other data sets prepared before.
        source: what the data set is.
        report: called with (container, items so far), before each container and after the last.

    Raises:
        ConfigError: the directory holds no media, a part of it is damaged, the pool was not made by this function, or
            it holds the same data set under another label.
    """
    held, _ = layout.containers(directory)
    if not held:
        raise ConfigError(f"{directory}: no parquet shard, archive or media file in it")
    if (record := directory / RECORD).is_file() and not json.loads(record.read_text(encoding="utf-8"))["complete"]:
        raise ConfigError(f"{directory}: the download is not complete; run `data pull` again")
    if (pool / datasets.MANIFEST).exists() and not (pool / _JOURNAL).is_dir():
        raise ConfigError(f"{pool}: holds a manifest that `data prepare` did not write; choose another folder")
    try:
        lines, journal = _resumed(pool, source, layout.licence(directory))
        entries = [line for line in lines if "key" in line]
        sound = [line for line in entries if "path" not in line or (pool / line["path"]).is_file()]
        taken = {line["sha256"] for line in sound if "path" in line}
        before = len(taken)
        seen = {line["key"] for line in sound}
        lost = _containers_of(line["key"] for line in entries if line["key"] not in seen)
        done = {(line["done"], line["size"]) for line in lines if "done" in line and line["done"] not in lost}
        with journal.open("a", encoding="utf-8") as file:
            for container in held:
                report(container, len(taken))
                stamp = (container, (directory / container).stat().st_size)
                if stamp in done:
                    continue
                for entry in layout.entries(directory, container, source, seen):
                    _log(file, _stored(entry, pool, source, taken))
                _log(file, {"done": stamp[0], "size": stamp[1]})
        report("", len(taken))
        manifest = write_manifest(pool)
    except OSError as error:
        raise ConfigError(f"{pool}: cannot be written: {error}") from error
    refused = Counter(line["refused"] for line in _lines(journal) if "refused" in line)
    return Prepared(manifest, len(taken) - before, len(taken), dict(sorted(refused.items())))


def write_manifest(pool: Path) -> Path:
    """Writes ``manifest.csv`` from all journals of a pool; groups are found anew over the whole pool.

    A group is what shares an identity of its data set (prompt, video, …) or a near-duplicate picture, through any
    number of steps; its name is the hash of its first file, so it stays while that file is in the pool.

    Raises:
        ConfigError: nothing in the pool.
    """
    rows: dict[str, dict[str, str]] = {}
    facts: dict[str, tuple[int | None, tuple[str, str] | None]] = {}
    for journal in sorted((pool / _JOURNAL).glob("*.jsonl")):
        head: dict[str, str] = {}
        for line in _lines(journal):
            head = line.get("source", head)
            if "path" not in line or not (pool / line["path"]).is_file():
                continue
            rows[line["path"]] = _manifest_row(line, head)
            identity = (head["name"], line["group"]) if line["group"] else None
            facts[line["path"]] = (None if line["phash"] is None else int(line["phash"], 16), identity)
    if not rows:
        raise ConfigError(f"{pool}: nothing could be extracted into it")
    paths = sorted(rows, key=lambda path: (rows[path]["sha256_16"], path))
    found = near.groups(len(paths), [facts[p][0] for p in paths], [[facts[p][1] for p in paths]])
    for path, group in zip(paths, found, strict=True):
        rows[path]["group"] = f"near:{rows[paths[group]]['sha256_16']}"
    target = pool / datasets.MANIFEST
    temporary = target.with_suffix(".csv.new")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, datasets.COLUMNS)
        writer.writeheader()
        writer.writerows(rows[path] for path in sorted(rows))
    os.replace(temporary, target)  # noqa: PTH105 - the same as Path.replace, said as what it is
    return target


def _manifest_row(line: dict[str, Any], head: dict[str, str]) -> dict[str, str]:
    return {
        "path": line["path"],
        "modality": head["modality"],
        "label": head["label"],
        "content": head["content"],
        "generator": head["generator"],
        "source": head["name"],
        "group": "",
        "width": str(line["width"]),
        "height": str(line["height"]),
        "original_format": line["format"],
        "processing": "original",
        "licence": head["licence"],
        "sha256_16": line["sha256"][:16],
    }


def _resumed(pool: Path, source: Source, licence: str) -> tuple[list[dict[str, Any]], Path]:
    """The sound lines of the data set's journal, which is begun where there is none."""
    folder = pool / _JOURNAL
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / f"{slug(source.name)}.jsonl"
    head = {
        "name": source.name,
        "label": source.label.name.lower(),
        "modality": source.modality,
        "content": source.content,
        "generator": source.generator,
        "licence": licence,
    }
    lines = list(_lines(journal)) if journal.is_file() else []
    if lines:
        former = lines[0].get("source", {})
        if any(former.get(key) != head[key] for key in ("name", "label", "modality")):
            raise ConfigError(
                f"{pool}: holds {source.name} as {former.get('label')} {former.get('modality')}s; use another pool"
            )
    text = "".join(json.dumps(line) + "\n" for line in [{"source": head}, *lines[1:]])
    temporary = journal.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(journal)
    return lines, journal


def _containers_of(keys: Iterable[str]) -> set[str]:
    """What the containers of these entries may be called: a key is one, alone or followed by # and a place."""
    found: set[str] = set()
    for key in keys:
        parts = key.split("#")
        found.update("#".join(parts[:k]) for k in range(1, len(parts) + 1))
    return found


def _stored(entry: layout.Entry, pool: Path, source: Source, taken: set[str]) -> dict[str, Any]:
    """Writes one entry into the pool; the line of the journal that says what became of it."""
    with tempfile.NamedTemporaryFile(dir=pool / _JOURNAL, suffix=".part", delete=False) as file:
        part = Path(file.name)
        digest, problem = hashlib.sha256(), ""
        try:
            for chunk in _chunks(entry):
                digest.update(chunk)
                file.write(chunk)
        except MediaError as error:
            problem = str(error.reason)
    try:
        if problem:
            return {"key": entry.key, "refused": problem}
        seen = look(part, source.modality)
        sha = digest.hexdigest()
        folder = f"{source.modality}/{source.label.name.lower()}/{slug(source.name)}/{sha[:2]}"
        path = f"{folder}/{sha[:16]}{_suffix(part, entry, source, seen.format)}"
        if sha in taken and (pool / path).is_file():
            return {"key": entry.key, "refused": "the same bytes twice"}
        (pool / folder).mkdir(parents=True, exist_ok=True)
        part.chmod(0o644)
        part.replace(pool / path)
        taken.add(sha)
    except MediaError as error:
        return {"key": entry.key, "refused": str(error.reason)}
    finally:
        part.unlink(missing_ok=True)
    code = near.phash(seen.picture)
    return {
        "key": entry.key,
        "path": path,
        "sha256": sha,
        "phash": None if code is None else f"{code:016x}",
        "width": seen.width,
        "height": seen.height,
        "format": seen.format,
        "group": entry.group,
    }


def _chunks(entry: layout.Entry) -> Iterator[bytes]:
    """The entry's bytes; what an archive cannot give back is a fault of the entry, not of the disk written to."""
    size = 0
    try:
        while chunk := entry.stream.read(_COPY):
            size += len(chunk)
            if size > LOCAL_LIMITS.max_bytes:
                raise MediaError(MediaReason.TOO_LARGE, f"more than {LOCAL_LIMITS.max_bytes} bytes")
            yield chunk
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise MediaError(MediaReason.TRUNCATED, f"cannot be read from its archive: {error}") from error


def _suffix(part: Path, entry: layout.Entry, source: Source, kind: str) -> str:
    """By the bytes; a video keeps the publisher's suffix where it is a video's."""
    if source.modality == "image":
        return SUFFIXES[kind]
    given = Path(entry.name).suffix.lower()
    if datasets.EXTENSIONS.get(given) == "video":
        return given
    with part.open("rb") as stream:
        return _CONTAINERS[container_format(stream.read(16)) or "mov"]


def _log(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    with journal.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            if not text.endswith("\n"):
                return  # torn by a kill
            try:
                yield json.loads(text)
            except ValueError as error:
                raise ConfigError(f"{journal}: damaged; remove it to extract the data set again") from error
