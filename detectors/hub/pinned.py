"""What every download from the hub has in common: a commit hash, the hub's own file hashes, a record in the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from detectors.errors import ConfigError
from detectors.hub.sources import RECORD

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["TIMEOUT", "HubFile", "check_record", "hub_errors", "intact", "is_inside", "is_pinned", "record", "tree"]

TIMEOUT = 20.0
"""Seconds that the hub may take for one answer about a repository."""

_SHA = re.compile(r"[0-9a-f]{40}")
_COPY = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at one revision.

    Attributes:
        path: inside the repository.
        size: bytes.
        sha256: of the content, hex, as the hub keeps it for large files; empty where it does not.
        blob: git's hash of the blob, hex; empty where nobody knows it.
    """

    path: str
    size: int
    sha256: str = ""
    blob: str = ""


def is_pinned(revision: str | None) -> bool:
    """Whether a revision is a commit hash: branches, tags and abbreviations move or may."""
    return revision is not None and _SHA.fullmatch(revision) is not None


def is_inside(path: str) -> bool:
    """Whether a repository's name of a file stays below the folder it is put in."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Whatever goes wrong with the hub inside becomes a ConfigError of one line."""
    import httpx2  # noqa: PLC0415 - the hub client's own transport, for its errors; slow to import

    try:
        yield
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise ConfigError(f"{name}: the download failed: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """Of the first cause: the client wraps what went wrong in paragraphs of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def tree(api: HfApi, name: str, kind: Literal["dataset", "model"], revision: str) -> list[HubFile]:
    """Every file of a repository, by path.

    Raises:
        ConfigError: a name in it would lead out of the folder.
    """
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415 - slow to import

    found = []
    for entry in api.list_repo_tree(name, repo_type=kind, revision=revision, recursive=True):
        if not isinstance(entry, RepoFile):
            continue
        if not is_inside(entry.path):
            raise ConfigError(f"{name}: lists {entry.path!r}, which is no name inside a folder")
        found.append(HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id))
    return sorted(found, key=lambda file: file.path)


def check_record(to: Path, name: str, revision: str) -> None:
    """Refuses to mix two repositories, two revisions, or anything else in one folder; raises ConfigError."""
    held = to / RECORD
    if not held.is_file():
        if to.is_dir() and any(to.iterdir()):
            raise ConfigError(f"{to}: is not empty and holds nothing that was pulled before; choose another folder")
        return
    former = json.loads(held.read_text(encoding="utf-8"))
    if (former.get("name"), former.get("revision")) != (name, revision):
        raise ConfigError(f"{to}: holds {former.get('name')} at {former.get('revision')}; choose another folder")


def record(to: Path, name: str, revision: str, wanted: Sequence[HubFile], *, complete: bool) -> None:
    """Writes down what a folder holds, or is about to hold."""
    to.mkdir(parents=True, exist_ok=True)
    files = {file.path: file.size for file in wanted}
    text = json.dumps({"name": name, "revision": revision, "complete": complete, "files": files}, indent=1)
    temporary = to / f"{RECORD}.new"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(to / RECORD)


def intact(path: Path, file: HubFile) -> bool:
    """Whether the bytes have the content's SHA-256 (large files) or git's blob hash (small ones), where it is known."""
    if not file.sha256 and not file.blob:
        return True
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # noqa: S324
    with path.open("rb") as stream:
        while chunk := stream.read(_COPY):
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.blob)
