"""``deepfake-miner weights pull``: weights of others into the store, pinned by commit and hash."""

from __future__ import annotations

from pathlib import Path

from detectors import paths
from detectors.hub.weights import pull_weights
from detectors.store import Store

__all__ = ["pull"]


def pull(
    where: str,
    *,
    store: Path | None,
    revision: str | None,
    file: str | None,
    preset: str | None,
    name: str | None,
    version: str | None,
    sha256: str | None,
    trust: str | None,
    to: Path | None,
    endpoint: str | None,
) -> str:
    """What came in, as text; see :func:`detectors.hub.weights.pull_weights`, also for the errors."""
    done = pull_weights(
        where,
        store=Store(store if store is not None else paths.weights()),
        revision=revision,
        file=file,
        preset=preset,
        name=name,
        version=version,
        sha256=sha256,
        trust=trust,
        to=to,
        endpoint=endpoint,
    )
    key = done.card.key
    return (
        f"{done.source}, sha256 {done.sha256}\n"
        f"stored as {key}; `deepfake-miner weights activate {key}` points the name at it"
    )
