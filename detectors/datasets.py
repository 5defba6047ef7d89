"""Lists of labelled media, shared by training and simulation: a manifest, a folder sorted by label, a hub data set.

    manifest   a CSV with the columns of :data:`COLUMNS`, paths relative to the CSV's own folder
    folder     ``real/``, ``synthetic/``, ``semisynthetic/``, each with images and videos, nested as one likes;
               the first folder below the label names the source
    hub        a data set as the Hugging Face hub's client leaves it, see ``detectors.hub``

Reading a manifest or a folder opens no media. A hub data set is extracted once, into a pool inside its own directory.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

from detectors.errors import ConfigError
from detectors.types import Label, Modality

__all__ = [
    "COLUMNS",
    "EXTENSIONS",
    "MANIFEST",
    "Dataset",
    "Item",
    "read",
    "read_folder",
    "read_manifest",
    "split_by_group",
]

COLUMNS = (
    "path",
    "modality",
    "label",
    "content",
    "generator",
    "source",
    "group",
    "width",
    "height",
    "original_format",
    "processing",
    "licence",
    "sha256_16",
)
"""Columns of a manifest, in any order: all of them and no other."""

MANIFEST = "manifest.csv"
"""What a manifest is called inside its folder."""

EXTENSIONS: dict[str, Modality] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"), "video"),
}
"""What a file in a folder is taken for, by its lower-case suffix."""

_LABELS = {"real": Label.REAL, "synthetic": Label.SYNTHETIC, "semisynthetic": Label.SEMISYNTHETIC}
_MODALITIES: dict[str, Modality] = {"image": "image", "video": "video"}


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled file.

    Attributes:
        path: absolute.
        modality: what the list says the file is; it has not been opened.
        label: what is true of it.
        content: ``face``, ``people``, ``general``, ``art``, or whatever the manifest says; empty where unknown.
        generator: what made it (``camera`` for a photograph); empty where unknown.
        source: the collection it comes from; challenges are balanced over sources.
        group: files that share it show the same scene, prompt, person or video: never split them.
        processing: what was done to the bytes before they came here; empty where unknown.
        licence: as the manifest states it; empty where unknown.
    """

    path: Path
    modality: Modality
    label: Label
    content: str
    generator: str
    source: str
    group: str
    processing: str = ""
    licence: str = ""

    @property
    def fake(self) -> bool:
        return self.label is not Label.REAL


@dataclass(frozen=True, slots=True)
class Dataset(Sequence[Item]):
    """A list of items that knows where it came from.

    Attributes:
        items: in the manifest's order, or sorted by path for a folder.
        origin: the manifest or the folder.
        skipped: paths below `origin`'s folder that were left out since their type is not known, sorted.
    """

    items: tuple[Item, ...]
    origin: Path
    skipped: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """One sentence for reports: how many of what, and what was left out."""
        counts = Counter((item.label.name.lower(), item.modality) for item in self.items)
        held = ", ".join(f"{n} {label} {modality}s" for (label, modality), n in sorted(counts.items()))
        sources = len({item.source for item in self.items})
        left = f"; {len(self.skipped)} files of unknown type left out" if self.skipped else ""
        return f"{self.origin.name}: {held} from {sources} sources{left}"

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def read(path: Path) -> Dataset:
    """Reads a manifest (a file), a folder that holds a ``manifest.csv``, a folder sorted by label, or a hub data set.

    A hub data set whose name is not in ``detectors.hub.SOURCES`` needs ``data prepare`` with its label first.

    Raises:
        ConfigError: none of these, or what :func:`read_manifest`, :func:`read_folder` and
            :func:`detectors.hub.prepare.read` raise.
    """
    if path.is_file():
        return read_manifest(path)
    if not path.is_dir():
        raise ConfigError(f"{path}: no such manifest or folder")
    manifest = path / MANIFEST
    if manifest.is_file():
        return read_manifest(manifest)
    if not any((path / label).is_dir() for label in _LABELS):
        from detectors.hub import layout, prepare, sources  # noqa: PLC0415 - they read lists, and import OpenCV

        if layout.containers(path)[0] and sources.name_of(path) is not None:
            return prepare.read(path)
    return read_folder(path)


def read_manifest(path: Path) -> Dataset:
    """Reads a manifest.

    Raises:
        ConfigError: unreadable, wrong columns, no row, or a row with an unknown label or modality, an empty source or
            group, or a path that is absolute, leaves the manifest's folder or is no file. The text names the line.
    """
    root = path.resolve().parent
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            _check_columns(path, rows.fieldnames or ())
            items = tuple(_item(row, root, f"{path.name}, line {rows.line_num}") for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a readable manifest: {error}") from error
    if not items:
        raise ConfigError(f"{path}: the manifest has no rows")
    return Dataset(items, path)


def read_folder(path: Path) -> Dataset:
    """Reads a folder sorted by label.

    The group of a file is its name without suffix, so ``real/web/7.jpg`` and ``synthetic/inpainted/7.png`` stay on
    the same side of a split.

    Raises:
        ConfigError: not a folder, none of the three label folders, or no media in them.
    """
    try:
        top = sorted(path.iterdir())
    except OSError as error:
        raise ConfigError(f"{path}: not a readable folder: {error}") from error
    labelled = [entry for entry in top if entry.is_dir() and entry.name in _LABELS]
    if not labelled:
        raise ConfigError(
            f"{path}: expected a manifest.csv, the folders real/, synthetic/, semisynthetic/, or a hub data set whose "
            "name the path tells (else `data prepare` makes a pool of it)"
        )
    skipped = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in top if entry not in labelled]
    items: list[Item] = []
    for folder in labelled:
        for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            modality = EXTENSIONS.get(file.suffix.lower())
            if modality is None:
                skipped.append(file.relative_to(path).as_posix())
                continue
            below = file.relative_to(folder).parts
            source = below[0] if len(below) > 1 else folder.name
            items.append(Item(file.resolve(), modality, _LABELS[folder.name], "", "", source, file.stem))
    if not items:
        raise ConfigError(f"{path}: no image or video in {', '.join(f'{f.name}/' for f in labelled)}")
    return Dataset(tuple(items), path, tuple(sorted(skipped)))


def split_by_group(items: Iterable[Item], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Splits without tearing a group apart; the side of a group depends on its name and the seed alone.

    So a file that is added later moves no other, and a group that spans several sources (a photograph and the fake
    made from it) stays together.

    Args:
        items: in any order, which each side keeps.
        fraction: of the groups that goes to the second list, in [0, 1], met on average.
        seed: any integer.

    Raises:
        ValueError: the fraction is outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction must be in [0, 1], not {fraction!r}")
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        digest = hashlib.sha256(f"{seed}\0{item.group}".encode()).digest()
        sides[int.from_bytes(digest[:8]) < fraction * 2**64].append(item)
    return sides


def _check_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if missing or unknown or twice:
        wrong = [
            f"{what} {found}" for what, found in (("lacks", missing), ("has unknown", unknown), ("repeats", twice))
        ]
        said = "; ".join(text for text, found in zip(wrong, (missing, unknown, twice), strict=True) if found)
        raise ConfigError(f"{path}: the manifest {said}; its columns must be {', '.join(COLUMNS)}")


def _item(row: dict[str | None, str | None], root: Path, where: str) -> Item:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: the row does not have {len(COLUMNS)} fields")
    text = {str(key): str(value).strip() for key, value in row.items()}
    label, modality = _LABELS.get(text["label"]), _MODALITIES.get(text["modality"])
    if label is None:
        raise ConfigError(f"{where}: label {text['label']!r} is none of {', '.join(_LABELS)}")
    if modality is None:
        raise ConfigError(f"{where}: modality {text['modality']!r} is none of {', '.join(_MODALITIES)}")
    for name in ("source", "group"):
        if not text[name]:
            raise ConfigError(f"{where}: {name} is empty")
    return Item(
        path=_inside(root, text["path"], where),
        modality=modality,
        label=label,
        content=text["content"],
        generator=text["generator"],
        source=text["source"],
        # what one prompt or scene gave in several sources stays together, though some lists put the source before it
        group=text["group"].removeprefix(f"{text['source']}:"),
        processing=text["processing"],
        licence=text["licence"],
    )


def _inside(root: Path, relative: str, where: str) -> Path:
    """The file a manifest names, which a manifest from elsewhere must not choose outside its own folder."""
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or "\0" in relative:
        raise ConfigError(f"{where}: path {relative!r} is not relative to the manifest")
    full = (root / path).resolve()
    if not full.is_relative_to(root):
        raise ConfigError(f"{where}: path {relative!r} leaves the manifest's folder")
    if not full.is_file():
        raise ConfigError(f"{where}: there is no file {relative!r}")
    return full
