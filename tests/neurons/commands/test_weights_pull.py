"""``deepfake-miner weights pull`` as it is typed: its words and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detectors import registry
from detectors.store import Store
from neurons import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of weights in our layout, and one of a pickle."""
    root = tmp_path_factory.mktemp("repositories")
    network = registry.architecture("npr")()
    Store(root / "ours").save(registry.published_cards()["npr"], network)
    (root / "theirs").mkdir()
    torch.save(network.state_dict(), root / "theirs/NPR.pth")
    return root


def test_what_came_in_and_how_to_activate_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["weights", "pull", str(folder / "ours"), "--store", str(tmp_path)]) == 0
    (card,) = Store(tmp_path).cards()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{folder / 'ours'}:{card.stem}.safetensors, sha256 {card.sha256}"
    assert second == f"stored as {card.key}; `deepfake-miner weights activate {card.key}` points the name at it"
    assert Store(tmp_path).pointer() == {}


CASES = {
    "unpinned": (["owner/name"], 2, "owner/name: give --revision"),
    "branch": (["owner/name", "--revision", "main"], 2, "owner/name: give --revision"),
    "pickle": (["{theirs}", "--preset", "npr"], 4, "NPR.pth: refused"),
    "preset": (["{theirs}"], 2, "NPR.pth: has no card of ours"),
    "trust": (["{theirs}", "--preset", "npr", "--trust", "0" * 64], 4, "NPR.pth: sha256 is"),
    "hash": (["{ours}", "--sha256", "0" * 64], 4, "sha256 is"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_are_one_line_and_a_code(
    case: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, text = CASES[case]
    arguments = [word.format(ours=folder / "ours", theirs=folder / "theirs") for word in words]
    assert cli.run(["weights", "pull", *arguments, "--store", str(tmp_path / "store")]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert text in captured.err
    assert captured.err.startswith("deepfake-miner: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "store").exists()
