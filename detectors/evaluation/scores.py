"""Scored views as columns: some hundred bytes a view, never its pixels or path."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.errors import ConfigError
from detectors.types import Label, Modality

__all__ = ["Answer", "Column", "Recorder", "Scores", "Seen", "digest", "dump_line", "read_dump"]

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

NO_LEVEL = -1
_LABELS = {label.name.lower(): label for label in Label}
_SUM_TOLERANCE = 1e-6  # as Prediction allows


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one view beside its pixels.

    Attributes:
        key: names item and view, e.g. ``photos/7.jpg#0``; the same in every run on the same data.
        modality, label, content, generator, source, group: of the item.
        level: augmentation level 0 to 3; -1 for a file as it is.
    """

    key: str
    modality: Modality
    label: Label
    content: str
    generator: str
    source: str
    group: str
    level: int = NO_LEVEL


@dataclass(frozen=True, slots=True)
class Answer:
    """What a detector said of one view.

    Attributes:
        probabilities: (real, synthetic, semi-synthetic); None where it computed no finite number.
        experts: each expert's own P(fake), by name; experts that did not run are absent.
    """

    probabilities: tuple[float, float, float] | None
    experts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Names by row, stored once each: row i is called ``names[codes[i]]``."""

    names: tuple[str, ...]
    codes: I64

    def rows(self) -> dict[str, Bool]:
        """``bool [N]`` by name, sorted; names without a row are left out."""
        found = {name: self.codes == code for code, name in enumerate(self.names)}
        return {name: found[name] for name in sorted(found) if found[name].any()}

    def part(self, chosen: npt.NDArray[Any]) -> Column:
        return Column(self.names, self.codes[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One detector's answers to N views.

    Attributes:
        keys, groups: 64-bit digests of :attr:`Seen.key` and :attr:`Seen.group`, ``int64 [N]``.
        labels: :class:`Label` as ``int64 [N]``.
        video: ``bool [N]``.
        levels: ``int64 [N]``, -1 for files as they are.
        sources, contents, generators: names by row.
        probabilities: ``float64 [N, 3]``, a row of NaN where there is no answer.
        experts: ``float64 [N]`` of P(fake) by expert, NaN where it did not run.
    """

    keys: I64
    groups: I64
    labels: I64
    video: Bool
    levels: I64
    sources: Column
    contents: Column
    generators: Column
    probabilities: F64
    experts: Mapping[str, F64] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def fake(self) -> Bool:
        return np.asarray(self.labels != int(Label.REAL))

    @property
    def p_fake(self) -> F64:
        """1 − P(real), ``float64 [N]``, NaN where there is no answer."""
        return 1.0 - self.probabilities[:, 0]

    @property
    def answered(self) -> Bool:
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))

    def part(self, chosen: npt.NDArray[Any]) -> Scores:
        """The rows of a mask ``bool [N]`` or an index ``int [M]``, in its order."""
        return Scores(
            self.keys[chosen],
            self.groups[chosen],
            self.labels[chosen],
            self.video[chosen],
            self.levels[chosen],
            self.sources.part(chosen),
            self.contents.part(chosen),
            self.generators.part(chosen),
            self.probabilities[chosen],
            {name: values[chosen] for name, values in self.experts.items()},
        )

    def with_p_fake(self, p_fake: F64) -> Scores:
        """The same views with another answer: all of P(fake) on "synthetic", NaN for no answer, no experts."""
        answers = np.column_stack([1.0 - p_fake, p_fake, np.where(np.isnan(p_fake), np.nan, 0.0)])
        return dataclasses.replace(self, probabilities=answers, experts={})

    def expert(self, name: str) -> Scores:
        """One expert's own answers, on the views where it ran."""
        values = self.experts[name]
        return self.with_p_fake(values).part(np.isfinite(values))


class Recorder:
    """Collects answers of one or several detectors to the same views.

    Args:
        detectors: their names, unique.
    """

    def __init__(self, detectors: Sequence[str]) -> None:
        self._whole = {name: array("q") for name in ("keys", "groups", "labels", "video", "levels")}
        self._codes = {name: array("q") for name in ("source", "content", "generator")}
        self._names: dict[str, dict[str, int]] = {name: {} for name in self._codes}
        self._answers = {name: array("d") for name in detectors}
        self._experts: dict[str, dict[str, array[float]]] = {name: {} for name in detectors}

    def __len__(self) -> int:
        return len(self._whole["keys"])

    def add(self, seen: Seen, answers: Mapping[str, Answer]) -> None:
        """Adds one view with every detector's answer."""
        row = len(self)
        whole = (digest(seen.key), digest(seen.group), int(seen.label), int(seen.modality == "video"), seen.level)
        for column, value in zip(self._whole.values(), whole, strict=True):
            column.append(value)
        for name, codes in self._codes.items():
            known = self._names[name]
            codes.append(known.setdefault(getattr(seen, name), len(known)))
        for detector, values in self._answers.items():
            answer = answers[detector]
            values.extend(answer.probabilities or (math.nan,) * 3)
            experts = self._experts[detector]
            for expert, p_fake in answer.experts.items():
                if expert not in experts:
                    experts[expert] = array("d", [math.nan]) * row
                experts[expert].append(p_fake)
            for expert in experts.keys() - answer.experts.keys():
                experts[expert].append(math.nan)

    def scores(self, detector: str) -> Scores:
        """Everything recorded so far of one detector."""
        whole = {name: np.array(values, np.int64) for name, values in self._whole.items()}
        columns = {
            f"{name}s": Column(tuple(self._names[name]), np.array(codes, np.int64))
            for name, codes in self._codes.items()
        }
        return Scores(
            whole["keys"],
            whole["groups"],
            whole["labels"],
            whole["video"].astype(bool),
            whole["levels"],
            **columns,
            probabilities=np.array(self._answers[detector], np.float64).reshape(-1, 3),
            experts={n: np.array(v, np.float64) for n, v in sorted(self._experts[detector].items())},
        )


def digest(text: str) -> int:
    """A 64-bit signed hash that is the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def dump_line(seen: Seen, answers: Mapping[str, Answer]) -> str:
    """One view as a line of a prediction dump (JSON Lines)."""
    said = {
        name: {"p": None if answer.probabilities is None else list(answer.probabilities), "experts": answer.experts}
        for name, answer in answers.items()
    }
    row = {name: getattr(seen, name) for name in seen.__slots__} | {"label": seen.label.name.lower(), "answers": said}
    return json.dumps(row, default=dict, allow_nan=False) + "\n"


def read_dump(path: Path, detectors: Sequence[str] = ()) -> dict[str, Scores]:
    """Reads a prediction dump.

    Args:
        path: written by ``deepfake-miner evaluate --predictions``.
        detectors: which of its detectors; none means all.

    Returns:
        Scores by detector, in the order asked for.

    Raises:
        ConfigError: not such a file, a line with something else than a distribution, or a detector it does not hold.
    """
    recorder: Recorder | None = None
    names: list[str] = list(detectors)
    for number, row in _lines(path):
        try:
            answers = {name: _answer(row["answers"][name]) for name in names or row["answers"]}
            seen = Seen(**{name: row[name] for name in Seen.__slots__} | {"label": _LABELS[row["label"]]})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}, line {number}: not a prediction of {names or 'a detector'}: {error}") from error
        names = names or list(answers)
        recorder = recorder or Recorder(names)
        recorder.add(seen, answers)
    if recorder is None:
        raise ConfigError(f"{path}: holds no prediction")
    return {name: recorder.scores(name) for name in names}


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable prediction dump: {error}") from error


def _answer(raw: Mapping[str, Any]) -> Answer:
    experts = {str(name): float(value) for name, value in raw["experts"].items()}
    if raw["p"] is None:
        return Answer(None, experts)
    real, synthetic, semisynthetic = (float(v) for v in raw["p"])
    three = (real, synthetic, semisynthetic)
    if not _distribution(three):
        raise ValueError(f"{raw['p']} is no distribution")
    return Answer(three, experts)


def _distribution(three: Iterable[float]) -> bool:
    values = list(three)
    return all(0.0 <= v <= 1.0 for v in values) and abs(math.fsum(values) - 1.0) <= _SUM_TOLERANCE
