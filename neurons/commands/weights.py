"""``deepfake-miner weights``: the store from the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from detectors import paths
from detectors.candidate import fingerprint
from detectors.errors import ConfigError
from detectors.importing import import_weights
from detectors.store import Store
from detectors.yaml_file import parse_yaml
from neurons.noticeboard import Notice, Noticeboard
from neurons.reload import TOPIC

__all__ = ["EXIT_REFUSED", "EXIT_UNANSWERED", "activate", "import_file", "listing", "problems", "rollback", "wait"]

EXIT_REFUSED, EXIT_UNANSWERED = 4, 9
_LOOK_S = 0.1  # between two looks at what miners say


@dataclass(frozen=True, slots=True)
class _Word:
    """What one miner says of what the store asks for now."""

    state: Literal["serves", "refused", "open"]
    text: str


def _store(root: Path | None) -> Store:
    return Store(root if root is not None else paths.weights())


def listing(root: Path | None) -> Iterator[str]:
    """One line a version, then one a running miner; raises WeightsError for a damaged card."""
    store = _store(root)
    pointer = store.pointer()
    for card in store.cards():
        mark = "*" if pointer.get(card.name) == card.version else " "
        auc = card.metrics.get("pool", {}).get("auc")
        figure = f", AUC on held-out groups {auc:.3f}" if isinstance(auc, float) else ""
        yield f"{mark} {card.key}  {card.architecture}{figure}  {card.licence_weights}"
    yield from (_standing(notice, store.root) for notice in Noticeboard(store.root).notices(TOPIC))


def problems(root: Path | None) -> list[str]:
    """What is wrong with the store, one sentence each."""
    return _store(root).verify()


def activate(key: str, root: Path | None) -> str:
    """Points NAME at VERSION; raises ConfigError for another form and WeightsError for missing or altered weights."""
    name, at, version = key.partition("@")
    if not at:
        raise ConfigError(f"{key!r}: expected NAME@VERSION")
    return f"active: {_store(root).activate(name, version).key}"


def rollback(root: Path | None) -> dict[str, str]:
    """Undoes the last activation; the pointer as it is now. Raises WeightsError where there is none to undo."""
    return _store(root).rollback()


def wait(
    root: Path | None,
    pointer: Mapping[str, str],
    *,
    since: float,
    seconds: float,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Waits until every running miner that follows the store serves what it asks for, or has refused it.

    Args:
        root: the store; None takes the default one.
        pointer: versions that were just activated; somebody else may change them meanwhile.
        since: when they were, seconds since the epoch; what was refused before is tried again.
        seconds: how long to wait.
        say, complain: told one line for each miner.
        clock, sleep: monotonic seconds.

    Returns:
        0 all serve it, 4 one refused it, 9 one is still silent, there is none, or the pointer was changed again.
    """
    store, end = _store(root), clock() + seconds
    while True:
        found = {notice.pid: _word(notice, store.root, since) for notice in Noticeboard(store.root).notices(TOPIC)}
        now = store.pointer()
        changed = any(now.get(name) != version for name, version in pointer.items())
        pending = not found or any(word.state == "open" for word in found.values())
        if changed or not pending or not clock() < end:
            break
        sleep(_LOOK_S)
    if changed:
        complain("active.json was changed again meanwhile: see `deepfake-miner weights list`")
        return EXIT_UNANSWERED
    for pid, word in sorted(found.items()):
        (say if word.state == "serves" else complain)(f"miner {pid} {word.text}")
    if any(word.state == "refused" for word in found.values()):
        complain("the pointer stays as it is; `deepfake-miner weights rollback` undoes the activation")
        return EXIT_REFUSED
    if not found:
        complain(f"no running miner follows {store.root}")
    return EXIT_UNANSWERED if pending else 0


def _word(notice: Notice, store: Path, since: float) -> _Word:
    said = notice.said
    wanted = fingerprint(Path(str(said.get("camo", ""))), store)
    serves = f"serves {said.get('detector')}: {_keys(said.get('weights'))}"
    if said.get("serving") == wanted:
        return _Word("serves", serves)
    report = said.get("report")
    if isinstance(report, dict) and report.get("wanted") == wanted and float(report.get("at", 0.0)) >= since:
        return _Word("refused", f"refused it ({report.get('stage')}): {report.get('reason')}; it {serves}")
    return _Word("open", f"has not answered in time; it {serves}")


def _standing(notice: Notice, store: Path) -> str:
    """A line on a miner: what it serves, whether that is what the store asks for, how its last swap ended."""
    said, report = notice.said, notice.said.get("report")
    behind = "" if _word(notice, store, 0.0).state == "serves" else " (the store asks for something else)"
    line = f"miner {notice.pid} serves {said.get('detector')}: {_keys(said.get('weights'))}{behind}"
    if not isinstance(report, dict):
        return f"{line}; no swap yet"
    when = datetime.fromtimestamp(float(report.get("at", 0.0)), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    how = "accepted" if report.get("accepted") else f"refused ({report.get('stage')}): {report.get('reason')}"
    return f"{line}; last swap {when} {how}"


def _keys(weights: Any) -> str:
    """Versions, each once; experts may share weights."""
    return ", ".join(sorted(set(map(str, weights.values())))) if isinstance(weights, dict) else "unknown weights"


def import_file(
    file: Path, *, preset: str, version: str, name: str | None, options: Sequence[str], store: Path | None
) -> str:
    """Imports a checkpoint; the report as text. Raises WeightsError with the report where keys do not fit."""
    report = import_weights(
        file, store=_store(store), version=version, preset=preset, name=name, options=_options(options)
    )
    stored = report.card.key if report.card else ""
    return f"{report}\nstored as {stored}; `deepfake-miner weights activate {stored}` points the name at it"


def _options(pairs: Sequence[str]) -> dict[str, Any] | None:
    """KEY=VALUE pairs, values read as YAML scalars."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {pair!r}: expected KEY=VALUE")
        found[key] = parse_yaml(value)
    return found or None
