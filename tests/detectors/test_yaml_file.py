"""YAML from people: what is plain comes through, what cannot be meant is one kind of error."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.errors import ConfigError
from detectors.yaml_file import parse_yaml, read_yaml

LAUGHS = "- &a0 [x, x]\n" + "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 20))


def test_plain_data_comes_through() -> None:
    text = "a: &x {b: [1, 2.5, yes, ~]}\nc: {<<: *x, d: 2001-12-14}\n"
    found = parse_yaml(text)
    assert found["a"] == {"b": [1, 2.5, True, None]}
    assert found["c"]["b"] == found["a"]["b"]
    assert parse_yaml("") is None
    assert parse_yaml("[" * 100 + "]" * 100) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "'a' is there twice"),
        ("a: {b: 1, b: 2}", "'b' is there twice"),
        ("[" * 101, "nested too deep"),
        ("- " * 5000, "nested too deep"),
        ("a: &a [*a]", "recursive"),
        (LAUGHS, "more than 100000 values"),
        ("a: 0x" + "f" * 300, "hundreds of digits"),
        ("a: !!float ''", "not YAML"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
        ("{[a]: 1}", "not YAML"),
        ("{{a: b}: c}: 1", "not YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 600


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xf5")
    for path in (tmp_path / "bytes.yaml", tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_yaml(path)
