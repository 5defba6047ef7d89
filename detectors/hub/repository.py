"""A model repository to take files from: on the hub at one commit, or a folder laid out like one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from detectors.errors import ConfigError
from detectors.hub import pinned
from detectors.hub.pinned import HubFile
from detectors.hub.sources import slug

__all__ = ["Repository", "open_repository"]

_DEFAULT = Path("build/pulled")
_PARTS = ".parts"
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_SHA1_NAME = re.compile(r"[0-9a-f]{40}")


class Repository(Protocol):
    """Files of one revision.

    Attributes:
        name: for messages and records.
        revision: commit hash; empty for a folder that has none.
        files: by path inside the repository.
    """

    name: str
    revision: str
    files: dict[str, HubFile]

    def fetch(self, path: str) -> Path:
        """Where the file is on this machine, whole but not checked; raises ConfigError where it cannot be had."""

    def drop(self, path: str) -> None:
        """Forgets a download with wrong bytes, so that the next one starts from nothing."""

    def source(self, path: str) -> str:
        """Name, revision and file in one word."""


def open_repository(where: str, *, revision: str | None, to: Path | None, endpoint: str | None) -> Repository:
    """Opens a folder (``where`` begins with ``.``, ``/`` or ``~``) or a repository of the hub.

    Raises:
        ConfigError: not pinned, not there, or whatever went wrong with the hub.
    """
    if where.startswith((".", "/", "~")):
        return _Folder(Path(where).expanduser(), revision)
    return _Hub(where, revision, to, endpoint)


class _Hub:
    def __init__(self, name: str, revision: str | None, to: Path | None, endpoint: str | None) -> None:
        if revision is None or not pinned.is_pinned(revision):
            raise ConfigError(
                f"{name}: give --revision, a commit hash of 40 digits: a branch or a tag can be moved to other weights"
            )
        from huggingface_hub import HfApi  # noqa: PLC0415 - slow to import

        with pinned.hub_errors(name):
            api = HfApi(endpoint=endpoint)
            found = str(api.model_info(name, revision=revision, timeout=pinned.TIMEOUT).sha)
            if found != revision:
                raise ConfigError(f"{name}: the hub answers revision {revision} with {found}")
            self.files = {file.path: file for file in pinned.tree(api, name, "model", revision)}
        self.name, self.revision = name, revision
        self._endpoint = endpoint
        self._to = to if to is not None else _DEFAULT / slug(name) / revision
        self._wanted: list[HubFile] = []

    def source(self, path: str) -> str:
        return f"{self.name}@{self.revision}:{path}"

    def fetch(self, path: str) -> Path:
        target = self._to / path
        file = self.files[path]
        with pinned.hub_errors(self.name):
            pinned.check_record(self._to, self.name, self.revision)
            self._wanted.append(file)
            pinned.record(self._to, self.name, self.revision, self._wanted, complete=False)
            if not target.is_file() or target.stat().st_size != file.size:
                self._download(file, target)
            pinned.record(self._to, self.name, self.revision, self._wanted, complete=True)
        return target

    def _download(self, file: HubFile, target: Path) -> None:
        """Goes on where an earlier process stopped. The client's own downloads begin anew in every process."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to import
        from huggingface_hub.file_download import http_get  # noqa: PLC0415
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # noqa: PLC0415

        part = self._part(file.path)
        part.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(self.name, file.path, revision=self.revision, endpoint=self._endpoint)
        with part.open("ab") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            http_get(
                url,
                stream,
                resume_size=stream.seek(0, 2),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.path,
            )
        part.replace(target)

    def _part(self, path: str) -> Path:
        return self._to / _PARTS / f"{path}.part"

    def drop(self, path: str) -> None:
        (self._to / path).unlink(missing_ok=True)
        self._part(path).unlink(missing_ok=True)


class _Folder:
    """A snapshot as ``snapshot_download`` leaves it, or the hub's cache of one repository, which holds several.

    In a cache every file is a link to a blob that is called after its hash, so the hash is known; a plain folder is as
    good as who filled it.
    """

    def __init__(self, root: Path, revision: str | None) -> None:
        snapshots = root / "snapshots"
        self.name = str(root)
        if snapshots.is_dir():
            if revision is None or not pinned.is_pinned(revision):
                raise ConfigError(f"{root}: is a cache of several revisions: give --revision, a commit hash")
            self._at = snapshots / revision
        elif revision is not None:
            raise ConfigError(f"{root}: is a plain folder, which has no --revision; pin the file with --sha256")
        else:
            self._at = root
        if not self._at.is_dir():
            raise ConfigError(f"{self._at}: no such folder")
        self.revision = revision or ""
        boundary = root.resolve()
        self.files: dict[str, HubFile] = {}
        for path in sorted(self._at.rglob("*")):
            name = path.relative_to(self._at).as_posix()
            resolved = path.resolve()
            if resolved.is_file() and resolved.is_relative_to(boundary) and not name.startswith("."):
                self.files[name] = _described(name, path, resolved)

    def source(self, path: str) -> str:
        return f"{self.name}@{self.revision}:{path}" if self.revision else f"{self.name}:{path}"

    def fetch(self, path: str) -> Path:
        return self._at / path

    def drop(self, path: str) -> None:
        """Not ours to remove."""


def _described(name: str, path: Path, resolved: Path) -> HubFile:
    blob = resolved.name if path.is_symlink() else ""
    return HubFile(
        name,
        resolved.stat().st_size,
        sha256=blob if _SHA256_NAME.fullmatch(blob) else "",
        blob=blob if _SHA1_NAME.fullmatch(blob) else "",
    )
