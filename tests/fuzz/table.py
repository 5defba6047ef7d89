"""Every target there is; imported late, since they import everything."""

from __future__ import annotations

from tests.fuzz import targets_files, targets_http, targets_media, targets_wire
from tests.fuzz.engine import Target

__all__ = ["all_targets"]


def all_targets() -> tuple[Target, ...]:
    """Each byte parser of the house, from the socket to the operator's disk."""
    found = (
        *targets_wire.targets(),
        *targets_http.targets(),
        *targets_media.targets(),
        *targets_files.targets(),
    )
    assert len({target.name for target in found}) == len(found)
    return found
