"""Downloads of data sets: pinned by revision, in part if wanted, every file checked against the hub's own hash."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from pathlib import Path

from detectors.datasets import EXTENSIONS
from detectors.errors import ConfigError
from detectors.hub import pinned
from detectors.hub.layout import ARCHIVES
from detectors.hub.sources import SOURCES

__all__ = ["Pulled", "pull"]


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
    exact = pinned.is_pinned(revision)
    if not exact and not trust_latest:
        raise ConfigError(f"{name}: give --revision, a commit hash of 40 digits, or --trust-latest to resolve one now")
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - slow to import

    with pinned.hub_errors(name):
        api = HfApi(endpoint=endpoint)
        sha = str(api.dataset_info(name, revision=revision, timeout=pinned.TIMEOUT).sha)
        if exact and sha != revision:
            raise ConfigError(f"{name}: the hub answers revision {revision} with {sha}")
        pinned.check_record(to, name, sha)
        wanted = _chosen(pinned.tree(api, name, "dataset", sha), most)
        if not wanted:
            raise ConfigError(f"{name}: there is nothing to download at revision {sha}")
        pinned.record(to, name, sha, wanted, complete=False)
        snapshot_download(
            name,
            repo_type="dataset",
            revision=sha,
            local_dir=to,
            allow_patterns=[escape(entry.path) for entry in wanted],
            endpoint=endpoint,
        )
    for entry in wanted:
        path = to / entry.path
        if not pinned.intact(path, entry):
            path.unlink()
            raise ConfigError(f"{path}: does not have the hub's hash and was removed; pull again")
    pinned.record(to, name, sha, wanted, complete=True)
    return Pulled(name, sha, tuple(entry.path for entry in wanted), sum(entry.size for entry in wanted))


def _chosen(tree: list[pinned.HubFile], most: int | None) -> list[pinned.HubFile]:
    """The entries to download, sorted by path, of all that are there in that order."""
    data, rest = [], []
    for entry in tree:
        path = entry.path.lower()
        if path.endswith((".parquet", *ARCHIVES)) or Path(path).suffix in EXTENSIONS:
            data.append(entry)
        elif path == "readme.md" or most is None:
            rest.append(entry)
    if most is not None and most < len(data):
        data = [data[k * len(data) // most] for k in range(most)]
    return sorted(data + rest, key=lambda entry: entry.path) if data else []
