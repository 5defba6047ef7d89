"""``weights pull``: weights of others into the store, from a repository of the hub or a folder laid out like one.

What is trusted: a commit hash and the hash of the file, never a name. Weights in this house's own layout
(``NAME-VERSION.safetensors`` beside its card) are taken as they are once everything the card says holds; any other
``.safetensors`` is imported by a preset. Pickles stay out unless the caller names the hash of the very file, and are
read with ``weights_only=True`` even then.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detectors import registry
from detectors.card import Card
from detectors.errors import ConfigError, WeightsError
from detectors.files import publish
from detectors.hub.pinned import HubFile, intact, is_inside
from detectors.hub.repository import Repository, open_repository
from detectors.importing import import_weights
from detectors.store import Store

__all__ = ["PulledWeights", "pull_weights"]

_OURS = ".safetensors"
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".h5", ".pkl", ".pickle", ".onnx", ".joblib")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_CARD = 1 << 20  # bytes
# What torch raises for a card whose options fit no machine, or whose tensors fit no network.
_MISFITS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class PulledWeights:
    """What came in.

    Attributes:
        source: repository, revision and file, e.g. ``owner/name@COMMIT:general-1.0.0.safetensors``.
        sha256: of the file that was pulled, hex.
        card: as it is in the store now. Nothing was activated.
    """

    source: str
    sha256: str
    card: Card


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller asks of the file: hashes (hex, or empty) and how a foreign one is imported."""

    sha256: str
    trust: str
    preset: str | None
    name: str | None
    version: str | None


def pull_weights(
    where: str,
    *,
    store: Store,
    revision: str | None = None,
    file: str | None = None,
    preset: str | None = None,
    name: str | None = None,
    version: str | None = None,
    sha256: str | None = None,
    trust: str | None = None,
    to: Path | None = None,
    endpoint: str | None = None,
) -> PulledWeights:
    """Brings weights into a store, or goes on with a download that was cut short. Does not activate them.

    Args:
        where: ``owner/name`` of a model on the hub; or a folder, written with a leading ``.``, ``/`` or ``~``, that is
            laid out like a snapshot or like the hub's cache.
        store: where they go.
        revision: commit hash of 40 hex digits; needed on the hub. A plain folder has none.
        file: path inside the repository; None takes the only weights there.
        preset: for a file without a card of ours, key of :func:`detectors.registry.published_cards`.
        name, version: of an imported file; the preset's and ``1.0.0`` unless given.
        sha256: what the file must have, besides what the hub says of it.
        trust: SHA-256 of a pickle that may be read.
        to: folder of the download; ``build/pulled/OWNER--NAME/REVISION`` unless given.
        endpoint: another hub's address; None is the public one's.

    Raises:
        ConfigError: not pinned, an unknown file or preset, a folder with something else in it, or whatever went wrong
            with the hub, in one line.
        WeightsError: a pickle without its hash, bytes with another hash, a card that does not hold, keys that do not
            fit, or a version that exists with other content.
    """
    wanted = _Wanted(_hex("--sha256", sha256), _hex("--trust", trust), preset, name, version)
    repository = open_repository(where, revision=revision, to=to, endpoint=endpoint)
    path = _chosen(repository, file)
    card_path = str(PurePosixPath(path).with_suffix(".json"))
    if preset is None and path.endswith(_OURS) and card_path in repository.files:
        return _pull_ours(repository, path, card_path, wanted, store)
    return _pull_foreign(repository, path, wanted, store)


def _hex(flag: str, value: str | None) -> str:
    if value is None:
        return ""
    if not _SHA256.fullmatch(value.lower()):
        raise ConfigError(f"{flag} {value!r}: expected a SHA-256, 64 hex digits")
    return value.lower()


def _chosen(repository: Repository, file: str | None) -> str:
    if file is not None:
        if not is_inside(file):
            raise ConfigError(f"--file {file!r}: expected a path inside the repository")
        if file not in repository.files:
            raise ConfigError(f"{repository.name}: holds no file {file!r}")
        return file
    paths = sorted(repository.files)
    found = [p for p in paths if p.endswith(_OURS)] or [p for p in paths if p.endswith(_PICKLES)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"{repository.name}: there are no weights at {repository.revision or 'that place'}")
    shown = ", ".join(found[:8]) + (" and more" if len(found) > 8 else "")
    raise ConfigError(f"{repository.name}: which of them? Give --file: {shown}")


def _pull_ours(repository: Repository, path: str, card_path: str, wanted: _Wanted, store: Store) -> PulledWeights:
    """File and card as they are, after every check that a store makes."""
    if wanted.name or wanted.version or wanted.trust:
        raise ConfigError(f"{path}: has a card, which says all; --name, --version and --trust are for other files")
    if repository.files[card_path].size > _LARGEST_CARD:
        raise WeightsError(f"{card_path}: is too large for a card; for weights of others give --preset")
    text = _fetched(repository, card_path).read_bytes()
    try:
        card = Card.from_json(text.decode("utf-8"))
    except (UnicodeDecodeError, WeightsError) as error:
        raise WeightsError(f"{card_path}: {error}; for weights of others give --preset") from error
    if card.stem != PurePosixPath(path).stem:
        raise WeightsError(f"{card_path}: holds the card of {card.key}, which belongs in {card.stem}.json")
    if not card.sha256:
        raise WeightsError(f"{card_path}: says no sha256, so nothing ties it to {PurePosixPath(path).name}")
    _refuse_change(store, card)
    hashes = {"the card": card.sha256, "--sha256": wanted.sha256}
    _check_known(repository.files[path], hashes)
    weights = _fetched(repository, path)
    digest = _check(weights, hashes)
    _check_holds(card, text, weights)
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise WeightsError(f"{path}: changed while it was checked; pull again")
    store.root.mkdir(parents=True, exist_ok=True)
    publish(store.root / f"{card.stem}.safetensors", data)
    publish(store.root / f"{card.stem}.json", text)
    return PulledWeights(repository.source(path), digest, card)


def _refuse_change(store: Store, card: Card) -> None:
    target = store.root / f"{card.stem}.json"
    if target.exists() and Card.load(target) != card:
        raise WeightsError(f"{card.key} exists with another card: a published version never changes")


def _check_holds(card: Card, text: bytes, weights: Path) -> None:
    """Keys, finite values and golden scores, by the store's own check of a folder that holds nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder)
        (alone / f"{card.stem}.json").write_bytes(text)
        (alone / f"{card.stem}.safetensors").symlink_to(weights.resolve())
        try:
            problems = Store(alone).verify()
        except _MISFITS as error:
            raise WeightsError(f"{card.key}: cannot be built as its card says: {error}") from error
    if problems:
        raise WeightsError(problems[0])


def _pull_foreign(repository: Repository, path: str, wanted: _Wanted, store: Store) -> PulledWeights:
    """A file of another house: imported by a preset."""
    known = registry.published_cards()
    if wanted.preset not in known:
        asked = f"--preset {wanted.preset!r} is unknown" if wanted.preset else "has no card of ours: give --preset"
        raise ConfigError(f"{path}: {asked}; known are {', '.join(sorted(known))}")
    hashes = {"--sha256": wanted.sha256}
    if not path.endswith(_OURS):
        if not wanted.trust:
            raise WeightsError(
                f"{path}: refused: it is no .safetensors, and reading such a file can run code from it; if you have "
                "its SHA-256 from somebody you trust, give --trust SHA256"
            )
        hashes["--trust"] = wanted.trust
    elif wanted.trust:
        raise ConfigError(f"{path}: --trust is for pickles; a .safetensors needs none, --sha256 pins it")
    _check_known(repository.files[path], hashes)
    local = _fetched(repository, path)
    digest = _check(local, hashes)
    source = repository.source(path)
    report = import_weights(
        local, store=store, version=wanted.version or "1.0.0", preset=wanted.preset, name=wanted.name, source=source
    )
    if report.card is None or report.source_sha256 != digest:
        raise WeightsError(f"{path}: changed while it was read; pull again")
    return PulledWeights(source, digest, report.card)


def _fetched(repository: Repository, path: str) -> Path:
    local = repository.fetch(path)
    if not intact(local, repository.files[path]):
        repository.drop(path)
        raise WeightsError(
            f"{path}: does not have the hub's hash" + ("" if local.exists() else "; removed, pull again")
        )
    return local


def _check_known(file: HubFile, hashes: dict[str, str]) -> None:
    """Before the download, where the hub tells the hash already."""
    for who, digest in hashes.items():
        if digest and file.sha256 and digest != file.sha256:
            raise WeightsError(f"{file.path}: sha256 is {file.sha256}, by {who} it must be {digest}")


def _check(path: Path, hashes: dict[str, str]) -> str:
    """The file's SHA-256, which every hash given must be."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for who, expected in hashes.items():
        if expected and digest != expected:
            raise WeightsError(f"{path.name}: sha256 is {digest}, by {who} it must be {expected}")
    return digest
