"""The download against a hub on this machine: the real client, the real protocol, no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors import datasets
from detectors.errors import ConfigError
from detectors.hub.pull import Pulled, pull
from detectors.hub.sources import RECORD
from tests.detectors.hub import local
from tests.detectors.hub.fake_hub import SHA, Hub, serving

NAME = "bitmind/dtd"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    files = {"README.md": local.README.encode(), "extra/[notes].json": b"{}"}
    for k, picture in enumerate(local.parts(5)):
        path = tmp_path / f"shard-{k}.parquet"
        local.shard(path, [local.encoded(picture)])
        files[f"data/train-{k:05}-of-00005.parquet"] = path.read_bytes()
    with serving(Hub(NAME, files)) as server:
        yield server


def test_a_pinned_download_is_whole_recorded_and_readable(hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "sets/bitmind--dtd"
    done = pull(NAME, to, revision=SHA, endpoint=hub.endpoint)
    assert done == Pulled(NAME, SHA, tuple(sorted(hub.files)), sum(map(len, hub.files.values())))
    for name, data in hub.files.items():
        assert (to / name).read_bytes() == data
    record = json.loads((to / RECORD).read_text())
    assert (record["name"], record["revision"], record["complete"]) == (NAME, SHA, True)
    assert len(datasets.read(to)) == 5
    assert {item.licence for item in datasets.read(to)} == {"cc-by-4.0"}
    fetched = len(hub.fetched)
    assert pull(NAME, to, revision=SHA, endpoint=hub.endpoint) == done
    assert len(hub.fetched) == fetched  # nothing twice


@pytest.mark.parametrize("revision", [None, "main", SHA[:8], SHA.upper()])
def test_an_unpinned_revision_is_refused(revision: str | None, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--trust-latest"):
        pull(NAME, tmp_path / "x", revision=revision, endpoint=hub.endpoint)
    assert not (tmp_path / "x").exists()


def test_the_latest_is_resolved_and_recorded(hub: Hub, tmp_path: Path) -> None:
    assert pull(NAME, tmp_path / "x", trust_latest=True, endpoint=hub.endpoint).revision == SHA
    assert json.loads((tmp_path / "x" / RECORD).read_text())["revision"] == SHA


def test_a_part_is_taken_evenly_with_the_licence(hub: Hub, tmp_path: Path) -> None:
    done = pull(NAME, tmp_path / "x", revision=SHA, most=2, endpoint=hub.endpoint)
    assert done.files == ("README.md", "data/train-00000-of-00005.parquet", "data/train-00002-of-00005.parquet")
    assert sorted(hub.fetched) == list(done.files)


def test_bytes_that_do_not_have_the_hubs_hash_are_removed(hub: Hub, tmp_path: Path) -> None:
    hub.spoiled = "data/train-00003-of-00005.parquet"
    with pytest.raises(ConfigError, match=r"train-00003-of-00005\.parquet: does not have the hub's hash"):
        pull(NAME, tmp_path / "x", revision=SHA, endpoint=hub.endpoint)
    assert not (tmp_path / "x" / hub.spoiled).exists()
    with pytest.raises(ConfigError, match="not complete"):
        datasets.read(tmp_path / "x")
    hub.spoiled = ""
    pull(NAME, tmp_path / "x", revision=SHA, endpoint=hub.endpoint)


def test_a_directory_holds_one_revision_of_one_data_set(hub: Hub, tmp_path: Path) -> None:
    local.record(tmp_path / "x", NAME)
    with pytest.raises(ConfigError, match="choose another folder"):
        pull(NAME, tmp_path / "x", revision=SHA, endpoint=hub.endpoint)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        pull(NAME, tmp_path / "mine", revision=SHA, endpoint=hub.endpoint)
    assert hub.fetched == []


def test_errors_of_the_hub_are_one_line(hub: Hub, tmp_path: Path) -> None:
    cases = {"nobody/nothing": hub.endpoint, NAME: "http://127.0.0.1:9", "a b/c": hub.endpoint}
    for name, endpoint in cases.items():
        with pytest.raises(ConfigError, match="download failed") as error:
            pull(name, tmp_path / "x", revision=SHA, endpoint=endpoint)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="is a model"):
        pull("genmo/mochi-1-preview", tmp_path / "x", revision=SHA, endpoint=hub.endpoint)
