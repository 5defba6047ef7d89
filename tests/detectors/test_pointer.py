from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detectors.errors import WeightsError
from detectors.pointer import ACTIVE, Pointer
from tests.detectors.fixtures_store import House


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    times = iter(range(1000))
    return Pointer(tmp_path, clock=lambda: float(next(times)))


def anything(_: dict[str, str]) -> None:
    """Everything that is gone back to is there."""


def test_rolling_back_goes_one_further_each_time_and_on_from_there(pointer: Pointer) -> None:
    for version in ("1", "2", "3"):
        pointer.put("a", version)
    assert pointer.back(anything) == {"a": "2"}
    assert pointer.back(anything) == {"a": "1"} == pointer.read()
    pointer.put("a", "4")
    pointer.put("b", "1")
    assert pointer.back(anything) == {"a": "4"}
    assert pointer.back(anything) == {"a": "1"}
    with pytest.raises(WeightsError, match="nothing to roll back to"):
        pointer.back(anything)
    assert pointer.read() == {"a": "1"}


def test_activating_what_is_active_is_nothing_to_go_back_to(pointer: Pointer, tmp_path: Path) -> None:
    pointer.put("a", "1")
    pointer.put("a", "2")
    before = (tmp_path / ACTIVE).stat().st_ino
    pointer.put("a", "2")
    assert (tmp_path / ACTIVE).stat().st_ino != before  # written all the same: whoever follows it looks again
    assert pointer.back(anything) == {"a": "1"}


def test_what_cannot_be_active_is_not_gone_back_to(pointer: Pointer) -> None:
    pointer.put("a", "1")
    pointer.put("b", "1")
    pointer.put("a", "2")
    asked = []

    def gone(changing: dict[str, str]) -> None:
        asked.append(changing)
        raise WeightsError("gone")

    with pytest.raises(WeightsError, match="gone"):
        pointer.back(gone)
    assert asked == [{"a": "1"}]
    assert pointer.read() == {"a": "2", "b": "1"}
    assert pointer.back(anything) == {"a": "1", "b": "1"}


def test_the_history_is_bounded_and_dated(pointer: Pointer, tmp_path: Path) -> None:
    for version in range(60):
        pointer.put("a", str(version))
    history = json.loads((tmp_path / ".history.json").read_text())
    assert [entry["before"] for entry in history] == [{"a": str(v)} for v in range(9, 59)]
    assert [entry["at"] for entry in history] == [float(v) for v in range(9, 59)]


def test_a_kill_between_the_two_files_leaves_no_empty_step(pointer: Pointer, tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        pointer.put("a", version)
    history = (tmp_path / ".history.json").read_text()
    pointer.back(anything)
    (tmp_path / ".history.json").write_text(history)  # killed before it was forgotten
    assert pointer.back(anything) == {"a": "1"}


@pytest.mark.parametrize("text", ["[", "{}", '[{"before": [1]}, 3]'])
def test_a_damaged_history_keeps_nobody_from_activating(pointer: Pointer, tmp_path: Path, text: str) -> None:
    pointer.put("a", "1")
    (tmp_path / ".history.json").write_text(text)
    with pytest.raises(WeightsError, match=r"\.history\.json"):
        pointer.back(anything)
    pointer.put("a", "2")
    assert pointer.back(anything) == {"a": "1"}


def test_two_operators_lose_nothing_of_one_another(tmp_path: Path) -> None:
    """Two processes and two threads, each with a name of its own; the pointer ends with the last of all four."""
    code = (
        "import sys; from pathlib import Path; from detectors.pointer import Pointer\n"
        "for v in range(25): Pointer(Path(sys.argv[1])).put(sys.argv[2], str(v))\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b")]

    def change(name: str) -> None:
        for version in range(25):
            Pointer(tmp_path).put(name, str(version))

    threads = [threading.Thread(target=change, args=(name,)) for name in ("c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    assert Pointer(tmp_path).read() == dict.fromkeys("abcd", "24")
    history = json.loads((tmp_path / ".history.json").read_text())
    steps = [entry["before"] for entry in history] + [Pointer(tmp_path).read()]
    assert all(sum(a.get(n) != b.get(n) for n in "abcd") == 1 for a, b in itertools.pairwise(steps))


def test_a_store_rolls_back_to_what_is_there_only(tmp_path: Path) -> None:
    house = House(tmp_path)
    for version in ("2", "3"):
        house.save("one", version)
        house.store.activate("one", version)
    weights = house.weights("one-2")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match=r"cannot roll back to one@2: one-2\.safetensors: sha256"):
        house.store.rollback()
    assert house.store.pointer()["one"] == "3"
    weights.write_bytes(whole)
    assert house.store.rollback()["one"] == "2"
    assert house.store.rollback()["one"] == "1"
    (house.root / ".miners").mkdir()
    assert {card.key for card in house.store.cards()} >= {"one@1", "one@2", "two@1"}
    assert house.store.verify() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WeightsError, match=r"active\.json"):
        Pointer(tmp_path).put("a", "1")


def test_a_folder_that_is_not_there_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"active\.json: cannot be changed"):
        Pointer(tmp_path / "none").put("a", "1")
    assert Pointer(tmp_path / "none").read() == {}


def test_a_store_that_was_never_locked_is_read(tmp_path: Path) -> None:
    """Nothing but the weights, the cards and the pointer is needed to load: the folder may be read-only."""
    house = House(tmp_path)
    for name in (".lock", ".history.json"):
        (house.root / name).unlink()
    house.load()
    assert not list(house.root.glob(".*"))
