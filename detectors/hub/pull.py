"""Downloads of data sets: pinned by revision, in part if wanted, every file checked against the hub's own hash."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from detectors.datasets import EXTENSIONS
from detectors.errors import ConfigError
from detectors.hub.layout import ARCHIVES
from detectors.hub.sources import RECORD, SOURCES

__all__ = ["Pulled", "pull"]

_SHA = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 20.0  # seconds
_COPY = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was downloaded.

    Attributes:
        name, revision: of the data set; the revision is a commit hash.
        files: relative paths, sorted.
        size: bytes of them together.
    """

    name: str
    revision: str
    files: tuple[str, ...]
    size: int


def pull(
    name: str,
    to: Path,
    *,
    revision: str | None = None,
    trust_latest: bool = False,
    most: int | None = None,
    endpoint: str | None = None,
) -> Pulled:
    """Downloads a data set, or goes on with a download of the same revision.

    Args:
        name: ``owner/name`` on the hub.
        to: the directory; gets the data set's layout and a record of what was pulled.
        revision: commit hash (40 hex digits). A branch or tag moves, so it is refused without `trust_latest`.
        trust_latest: takes what `revision` (or the main branch) points at now, and records its commit hash.
        most: at most so many shards, archives or media files, evenly over the sorted list; None takes all. README.md
            always comes along.
        endpoint: another hub's address; None is the public one's.

    Raises:
        ConfigError: not pinned, a model instead of a data set, a directory with something else in it, or whatever went
            wrong with the hub, in one line.
    """
    if (source := SOURCES.get(name)) is not None and source.layout == "generator":
        raise ConfigError(f"{name} is a model that validators run, no data set; make images with it and prepare those")
    pinned = revision is not None and _SHA.fullmatch(revision) is not None
    if not pinned and not trust_latest:
        raise ConfigError(f"{name}: give --revision, a commit hash of 40 digits, or --trust-latest to resolve one now")
    import httpx2  # noqa: PLC0415 - the hub client's own transport, for its errors
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - slow to import
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    try:
        api = HfApi(endpoint=endpoint)
        sha = str(api.dataset_info(name, revision=revision, timeout=_TIMEOUT).sha)
        if pinned and sha != revision:
            raise ConfigError(f"{name}: the hub answers revision {revision} with {sha}")
        _check_record(to, name, sha)
        tree = api.list_repo_tree(name, repo_type="dataset", revision=sha, recursive=True)
        wanted = _chosen([entry for entry in tree if isinstance(entry, RepoFile)], most)
        if not wanted:
            raise ConfigError(f"{name}: there is nothing to download at revision {sha}")
        _record(to, name, sha, wanted, complete=False)
        snapshot_download(
            name,
            repo_type="dataset",
            revision=sha,
            local_dir=to,
            allow_patterns=[escape(entry.path) for entry in wanted],
            endpoint=endpoint,
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise ConfigError(f"{name}: the download failed: {_first_line(error)}") from error
    _verify(to, wanted)
    _record(to, name, sha, wanted, complete=True)
    return Pulled(name, sha, tuple(entry.path for entry in wanted), sum(entry.size for entry in wanted))


def _first_line(error: BaseException) -> str:
    """Of the first cause: the client wraps what went wrong in paragraphs of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _chosen(tree: list[Any], most: int | None) -> list[Any]:
    """The entries to download, sorted by path."""
    data, rest = [], []
    for entry in sorted(tree, key=lambda entry: str(entry.path)):
        path = entry.path.lower()
        if path.endswith((".parquet", *ARCHIVES)) or Path(path).suffix in EXTENSIONS:
            data.append(entry)
        elif path == "readme.md" or most is None:
            rest.append(entry)
    if most is not None and most < len(data):
        data = [data[k * len(data) // most] for k in range(most)]
    return sorted(data + rest, key=lambda entry: str(entry.path)) if data else []


def _check_record(to: Path, name: str, sha: str) -> None:
    """Refuses to mix two data sets or two revisions in one directory."""
    record = to / RECORD
    if not record.is_file():
        if to.is_dir() and any(to.iterdir()):
            raise ConfigError(f"{to}: is not empty and holds no data set pulled before; choose another folder")
        return
    former = json.loads(record.read_text(encoding="utf-8"))
    if (former.get("name"), former.get("revision")) != (name, sha):
        raise ConfigError(f"{to}: holds {former.get('name')} at {former.get('revision')}; choose another folder")


def _record(to: Path, name: str, sha: str, wanted: list[Any], *, complete: bool) -> None:
    to.mkdir(parents=True, exist_ok=True)
    files = {entry.path: entry.size for entry in wanted}
    text = json.dumps({"name": name, "revision": sha, "complete": complete, "files": files}, indent=1)
    temporary = to / f"{RECORD}.new"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(to / RECORD)


def _verify(to: Path, wanted: list[Any]) -> None:
    """Against the content's SHA-256 (large files) or git's blob hash (small ones)."""
    for entry in wanted:
        path = to / entry.path
        large = entry.lfs is not None
        digest = hashlib.sha256() if large else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # noqa: S324
        with path.open("rb") as file:
            while chunk := file.read(_COPY):
                digest.update(chunk)
        if digest.hexdigest() != (entry.lfs.sha256 if large else entry.blob_id):
            path.unlink()
            raise ConfigError(f"{path}: does not have the hub's hash and was removed; pull again")
