"""The validators' sources in one table, and the description of a data set that is not in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from detectors.errors import ConfigError
from detectors.types import Label, Modality

__all__ = ["RECORD", "SOURCES", "Layout", "Source", "describe", "name_of", "slug"]

Layout = Literal["parquet", "archives", "files", "generator"]

RECORD = ".pulled.json"
"""What ``data pull`` leaves in a data set's directory: name, revision, files."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """One data set, and what is true of everything in it.

    Attributes:
        name: ``owner/name`` on the hub.
        label: what is true of every item.
        modality: of every item.
        content: ``face``, ``people``, ``general``, ``art``, or empty.
        generator: what made the items; ``camera`` for real ones.
        layout: how the publisher stores it. A ``generator`` is no data set but a model that validators run
            themselves: it cannot be pulled, its name describes images that you made with it.
        group_pattern: regular expression whose first group, found at the start of a file's name, names the scene it
            was cut from; empty where file names say nothing of that.
    """

    name: str
    label: Label
    modality: Modality
    content: str = ""
    generator: str = ""
    layout: Layout = "parquet"
    group_pattern: str = ""


def _reals() -> list[Source]:
    contents = {
        "bm-real": "general",
        "open-image-v7-256": "general",
        "celeb-a-hq": "face",
        "ffhq-256": "face",
        "MS-COCO-unique-256": "general",
        "AFHQ": "general",
        "lfw": "face",
        "caltech-256": "general",
        "caltech-101": "general",
        "dtd": "general",
    }
    images = [Source(f"bitmind/{name}", Label.REAL, "image", content, "camera") for name, content in contents.items()]
    # A clip of OpenVid is called by its video on the web, the number of its scene and its span of frames.
    scene = r"(.+?)_\d+_\d+to\d+$"
    return [
        *images,
        Source("nkp37/OpenVid-1M", Label.REAL, "video", "general", "camera", "archives", scene),
        Source("shangxd/imagenet-vidvrd", Label.REAL, "video", "general", "camera", "archives"),
    ]


def _fakes() -> list[Source]:
    made: list[tuple[str, Label, Modality, str]] = [
        ("stabilityai/stable-diffusion-xl-base-1.0", Label.SYNTHETIC, "image", "general"),
        ("SG161222/RealVisXL_V4.0", Label.SYNTHETIC, "image", "general"),
        ("Corcelio/mobius", Label.SYNTHETIC, "image", "general"),
        ("black-forest-labs/FLUX.1-dev", Label.SYNTHETIC, "image", "general"),
        ("prompthero/openjourney-v4", Label.SYNTHETIC, "image", "general"),
        ("cagliostrolab/animagine-xl-3.1", Label.SYNTHETIC, "image", "art"),
        ("genmo/mochi-1-preview", Label.SYNTHETIC, "video", "general"),
        ("THUDM/CogVideoX-5b", Label.SYNTHETIC, "video", "general"),
        ("ByteDance/AnimateDiff-Lightning", Label.SYNTHETIC, "video", "general"),
        ("diffusers/stable-diffusion-xl-1.0-inpainting-0.1", Label.SEMISYNTHETIC, "image", "general"),
        ("Lykon/dreamshaper-8-inpainting", Label.SEMISYNTHETIC, "image", "general"),
    ]
    return [
        Source("bitmind/face-swap", Label.SEMISYNTHETIC, "image", "face", "face-swap"),
        *(Source(name, label, kind, content, name, "generator") for name, label, kind, content in made),
    ]


SOURCES: dict[str, Source] = {source.name: source for source in (*_reals(), *_fakes())}
"""By name on the hub. Real and semi-synthetic sources are data sets; most fakes are made by validators on the spot."""


def slug(name: str) -> str:
    """The name as a folder: ``owner--name``, the hub's own way."""
    return name.replace("/", "--")


def name_of(directory: Path) -> str | None:
    """The data set that a directory holds, by its record or else by its path; None where neither tells.

    Paths that tell: ``…/owner--name``, ``…/datasets--owner--name/snapshots/REVISION`` and ``…/owner/name`` for a name
    in the table.

    Raises:
        ConfigError: the record is damaged.
    """
    record = directory / RECORD
    if record.is_file():
        try:
            return str(json.loads(record.read_text(encoding="utf-8"))["name"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{record}: damaged record of a download; pull the data set again") from error
    parts = directory.resolve().parts
    for part in reversed(parts):
        name = part.removeprefix("datasets--").replace("--", "/", 1)
        if name != part and _NAME.fullmatch(name):
            return name
    plain = "/".join(parts[-2:])
    return plain if plain in SOURCES else None


def describe(
    directory: Path,
    name: str | None = None,
    *,
    label: Label | None = None,
    modality: Modality | None = None,
    content: str | None = None,
    generator: str | None = None,
) -> Source:
    """The source that a directory holds: the table's row, with what is given here in place of it.

    Args:
        directory: in the data set's layout.
        name: ``owner/name``; None takes it from the directory.
        label, modality, content, generator: needed (the first two) for a data set that is not in :data:`SOURCES`.

    Raises:
        ConfigError: no name, a name that is none, or an unknown data set without label and modality.
    """
    found = name or name_of(directory)
    if found is None:
        raise ConfigError(f"{directory}: which data set is this? Give its name on the hub (OWNER/NAME)")
    if not _NAME.fullmatch(found):
        raise ConfigError(f"{found!r} is no name of a data set; expected OWNER/NAME")
    known = SOURCES.get(found)
    if known is None:
        if label is None or modality is None:
            raise ConfigError(f"{found} is none of the validators' sources: give its --label and --modality")
        known = Source(found, label, modality, layout="files")
    known = replace(known, label=known.label if label is None else label, modality=modality or known.modality)
    made = known.generator if generator is None else generator
    if not made and known.label == Label.REAL:
        made = "camera"
    return replace(known, content=known.content if content is None else content, generator=made)
