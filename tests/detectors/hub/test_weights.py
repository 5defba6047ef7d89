"""``weights pull`` against a hub on this machine and against folders: what is taken, and all that is not."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from detectors import registry
from detectors.card import Card
from detectors.errors import ConfigError, DetectorError, WeightsError
from detectors.hub.repository import open_repository
from detectors.hub.sources import RECORD
from detectors.hub.weights import PulledWeights, pull_weights
from detectors.store import Store
from tests.detectors.hub.fake_hub import SHA, Hub, serving

NAME = "somebody/detectors"
Pull = Callable[..., PulledWeights]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Weights of our layout, the same as others publish them, and as a pickle."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(3)
    network = registry.architecture("npr")()
    card = dataclasses.replace(registry.published_cards()["npr"], name="npr-mine", version="2.0.0")
    Store(folder).save(card, network)
    torch.save({"model": network.state_dict()}, folder / "NPR.pth")
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


OURS = ("npr-mine-2.0.0.safetensors", "npr-mine-2.0.0.json")


@pytest.fixture
def hub(made: dict[str, bytes]) -> Iterator[Hub]:
    files = {"README.md": b"# Weights", "config.json": b"{}"} | {name: made[name] for name in OURS}
    with serving(Hub(NAME, files, "models")) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "weights")


@pytest.fixture
def pull(hub: Hub, store: Store, tmp_path: Path) -> Pull:
    def run(where: str = NAME, **options: Any) -> PulledWeights:
        given: dict[str, Any] = {"revision": SHA, "to": tmp_path / "pulled", "endpoint": hub.endpoint} | options
        return pull_weights(where, store=store, **given)

    return run


def only(hub: Hub, **files: bytes) -> None:
    """Another repository: names with their last underscore read as a dot."""
    hub.files = {".".join(name.rsplit("_", 1)): data for name, data in files.items()}


def nothing_stored(store: Store) -> bool:
    return not store.root.exists() or not any(store.root.iterdir())


def test_our_layout_comes_in_as_it_is(pull: Pull, hub: Hub, store: Store) -> None:
    done = pull()
    assert done.card.key == "npr-mine@2.0.0"
    assert done.source == f"{NAME}@{SHA}:{OURS[0]}"
    assert done.sha256 == sha256(hub.files[OURS[0]])
    assert {path.name: path.read_bytes() for path in store.root.iterdir()} == {name: hub.files[name] for name in OURS}
    assert store.verify() == []
    assert store.pointer() == {}  # never activated
    assert hub.fetched == [OURS[1], OURS[0]]
    pull()
    assert len(hub.fetched) == 2  # nothing twice


def test_weights_of_others_need_a_preset_and_are_imported(pull: Pull, hub: Hub, store: Store, made: Any) -> None:
    only(hub, model_safetensors=made["model.safetensors"], config_json=b"{}")
    with pytest.raises(ConfigError, match=r"model\.safetensors: has no card of ours: give --preset; known are"):
        pull()
    with pytest.raises(ConfigError, match="'nprr' is unknown"):
        pull(preset="nprr")
    assert hub.fetched == []
    done = pull(preset="npr-bitmind", name="npr-theirs", version="7")
    assert done.card.key == "npr-theirs@7"
    assert f"{NAME}@{SHA}:model.safetensors, sha256 {done.sha256}" in done.card.origin
    assert store.verify() == []
    assert store.pointer() == {}


def test_keys_that_do_not_fit_are_reported_and_nothing_is_stored(pull: Pull, hub: Hub, store: Store, made: Any) -> None:
    only(hub, model_safetensors=made["model.safetensors"])
    with pytest.raises(WeightsError, match="does not fit xception"):
        pull(preset="xception")
    assert nothing_stored(store)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", SHA[:8], SHA.upper(), SHA + "\n"])
def test_what_is_no_commit_hash_is_refused(revision: str | None, pull: Pull, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give --revision, a commit hash.* can be moved"):
        pull(revision=revision)
    assert hub.fetched == []
    assert not (tmp_path / "pulled").exists()


def test_a_hash_of_the_callers_must_hold_and_is_compared_before_the_download(pull: Pull, hub: Hub) -> None:
    right = sha256(hub.files[OURS[0]])
    with pytest.raises(WeightsError, match=rf"sha256 is {right}, by --sha256 it must be {'0' * 64}"):
        pull(sha256="0" * 64)
    assert OURS[0] not in hub.fetched
    with pytest.raises(ConfigError, match="64 hex digits"):
        pull(sha256="main")
    assert pull(sha256=right.upper()).sha256 == right


def test_bytes_without_the_hubs_hash_are_removed_and_pulled_anew(pull: Pull, hub: Hub, store: Store) -> None:
    hub.spoiled = OURS[0]
    with pytest.raises(WeightsError, match="does not have the hub's hash; removed, pull again"):
        pull()
    assert nothing_stored(store)
    hub.spoiled = ""
    pull()
    assert hub.fetched.count(OURS[0]) == 2


@pytest.mark.parametrize("ignores_ranges", [False, True], ids=["rest", "all-again"])
def test_a_download_that_broke_goes_on_in_the_next_process(
    ignores_ranges: bool, pull: Pull, hub: Hub, store: Store, tmp_path: Path
) -> None:
    hub.cut, hub.ignores_ranges = {OURS[0]: 1_000_000}, ignores_ranges
    with pytest.raises(ConfigError, match="the download failed") as error:
        pull()
    assert "\n" not in str(error.value)
    assert nothing_stored(store)
    assert json.loads((tmp_path / "pulled" / RECORD).read_text())["complete"] is False
    hub.cut = {}
    assert pull().card.key == "npr-mine@2.0.0"
    assert hub.fetched == [OURS[1], OURS[0], OURS[0] if ignores_ranges else f"{OURS[0]} from 1000000"]


def test_a_part_longer_than_the_file_is_begun_anew(pull: Pull, hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / "pulled/.parts" / f"{OURS[0]}.part"
    hub.cut = {OURS[0]: 10}
    with pytest.raises(ConfigError):
        pull()
    part.write_bytes(b"x" * (len(hub.files[OURS[0]]) + 1))
    hub.cut = {}
    pull()
    assert hub.fetched[-1] == OURS[0]


def test_pickles_stay_out_without_their_hash(pull: Pull, hub: Hub, store: Store, made: Any) -> None:
    only(hub, NPR_pth=made["NPR.pth"])
    with pytest.raises(WeightsError, match=r"NPR\.pth: refused.* give --trust SHA256"):
        pull(preset="npr")
    with pytest.raises(WeightsError, match="by --trust it must be"):
        pull(preset="npr", trust="ab" * 32)
    assert hub.fetched == []
    assert nothing_stored(store)
    done = pull(preset="npr", trust=sha256(made["NPR.pth"]))
    assert done.card.key == "npr@1.0.0"
    assert store.verify() == []


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "tar", "h5", "pkl", "onnx", "SAFETENSORS"])
def test_whatever_is_no_safetensors_counts_as_a_pickle(suffix: str, pull: Pull, hub: Hub) -> None:
    hub.files = {f"model.{suffix}": b"x"}
    with pytest.raises(WeightsError, match="refused"):
        pull(preset="npr", file=f"model.{suffix}")
    assert hub.fetched == []


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_a_pickle_runs_nothing_even_when_it_is_trusted(
    name: str, pull: Pull, hub: Hub, store: Store, tmp_path: Path
) -> None:
    torch.save({"state_dict": _Touches(tmp_path / "ran")}, tmp_path / name)
    hub.files = {name: (tmp_path / name).read_bytes()}
    trust = sha256(hub.files[name]) if name.endswith(".pth") else None
    with pytest.raises(WeightsError, match="not a safetensors file" if trust is None else "refused"):
        pull(preset="npr", trust=trust)
    torch.load(io.BytesIO(hub.files[name]), weights_only=False)  # it would have
    assert (tmp_path / "ran").is_dir()
    assert nothing_stored(store)


def altered(card: bytes, **values: object) -> bytes:
    return json.dumps(json.loads(card) | values).encode()


ALTERED: dict[str, tuple[dict[str, object], str]] = {
    "other-hash": ({"sha256": "0" * 64}, "by the card it must be"),
    "no-hash": ({"sha256": ""}, "says no sha256"),
    "other-name": ({"name": "general"}, r"belongs in general-2\.0\.0\.json"),
    "climbing-name": ({"name": "../../x"}, "belongs in"),
    "other-scores": ({"golden": {"noise": 0.001, "smooth": 0.001}}, "P\\(fake\\) on probe"),
    "no-scores": ({"golden": {}}, "golden scores"),
    "other-network": ({"architecture": "mobilenetv2"}, "do not fit the architecture"),
    "unknown-network": ({"architecture": "os.system"}, "is unknown"),
    "unknown-option": ({"options": {"nonsense": 1}}, "nonsense"),
    "impossible-option": ({"options": {"num_classes": 10**18}}, "cannot be built"),
    "unknown-key": ({"python": "print()"}, "card is not usable.* give --preset"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_a_card_that_does_not_hold_is_refused(case: str, pull: Pull, hub: Hub, store: Store) -> None:
    values, words = ALTERED[case]
    hub.files[OURS[1]] = altered(hub.files[OURS[1]], **values)
    with pytest.raises(DetectorError, match=words):
        pull()
    assert nothing_stored(store)


def test_values_that_are_not_finite_are_refused(pull: Pull, hub: Hub, store: Store) -> None:
    tensors = safetensors.torch.load(hub.files[OURS[0]])
    tensors["fc1.bias"][0] = torch.nan
    data = safetensors.torch.save(tensors)
    hub.files = {OURS[0]: data, OURS[1]: altered(hub.files[OURS[1]], sha256=sha256(data))}
    with pytest.raises(WeightsError, match=r"fc1\.bias holds a value that is not finite"):
        pull()
    assert nothing_stored(store)


def test_a_card_can_be_large_only_so_far(pull: Pull, hub: Hub) -> None:
    hub.files[OURS[1]] = b" " * (1 << 21)
    with pytest.raises(WeightsError, match="too large for a card"):
        pull()
    assert hub.fetched == []


def test_a_published_version_never_changes(pull: Pull, hub: Hub, store: Store) -> None:
    pull()
    before = {path: path.read_bytes() for path in store.root.iterdir()}
    hub.files[OURS[1]] = altered(hub.files[OURS[1]], licence_weights="other")
    with pytest.raises(WeightsError, match="a published version never changes"):
        pull(to=store.root.parent / "again")
    assert {path: path.read_bytes() for path in store.root.iterdir()} == before


@pytest.mark.parametrize("option", [{"name": "x"}, {"version": "3"}, {"trust": "a" * 64}], ids=str)
def test_a_card_is_not_renamed(option: dict[str, str], pull: Pull, hub: Hub) -> None:
    with pytest.raises(ConfigError, match="has a card, which says all"):
        pull(**option)
    assert hub.fetched == []


def test_trust_is_for_pickles(pull: Pull, hub: Hub, made: Any) -> None:
    only(hub, model_safetensors=made["model.safetensors"])
    with pytest.raises(ConfigError, match="--trust is for pickles"):
        pull(preset="npr", trust="a" * 64)


@pytest.mark.parametrize(
    "path", ["../evil.safetensors", "/evil.safetensors", "a/../../evil.safetensors", "a\\..\\b.pth"]
)
def test_names_that_climb_are_refused(path: str, pull: Pull, hub: Hub, tmp_path: Path) -> None:
    hub.files = {path: b"x"}
    with pytest.raises(ConfigError, match="no name inside a folder"):
        pull(preset="npr")
    hub.files = {"model.safetensors": b"x"}
    with pytest.raises(ConfigError, match="expected a path inside"):
        pull(preset="npr", file=path)
    assert hub.fetched == []
    assert not list(tmp_path.rglob("*evil*"))


def test_which_file_is_asked_where_there_are_several(pull: Pull, hub: Hub, made: Any) -> None:
    hub.files |= {"old/NPR.pth": b"x", "fold1/model.safetensors": made["model.safetensors"]}
    with pytest.raises(ConfigError, match=rf"Give --file: fold1/model\.safetensors, {OURS[0]}$"):
        pull()
    with pytest.raises(ConfigError, match="holds no file"):
        pull(file="fold2/model.safetensors")
    assert pull(file="fold1/model.safetensors", preset="npr").source.endswith(":fold1/model.safetensors")
    hub.files = {"README.md": b""}
    with pytest.raises(ConfigError, match="there are no weights"):
        pull()


def test_one_folder_holds_one_revision(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "pulled").mkdir()
    (tmp_path / "pulled/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty"):
        pull()


def test_errors_of_the_hub_are_one_line(pull: Pull) -> None:
    for where, endpoint in {"nobody/nothing": None, NAME: "http://127.0.0.1:9", "a b/c": None}.items():
        with pytest.raises(ConfigError, match="the download failed") as error:
            pull(where, **({} if endpoint is None else {"endpoint": endpoint}))
        assert "\n" not in str(error.value)


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def cached(root: Path, files: dict[str, bytes]) -> Path:
    """As the hub's client keeps a repository: blobs called after their hash, and links to them by revision."""
    for name, data in files.items():
        blob = root / "blobs" / sha256(data)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = root / "snapshots" / SHA / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("../../blobs") / blob.name)
    return root


def ours(made: dict[str, bytes]) -> dict[str, bytes]:
    return {name: made[name] for name in OURS}


def test_a_folder_laid_out_like_a_snapshot(store: Store, made: dict[str, bytes], tmp_path: Path) -> None:
    where = str(laid_out(tmp_path / "snapshot", ours(made)))
    with pytest.raises(WeightsError, match="by --sha256"):
        pull_weights(where, store=store, sha256="0" * 64)
    with pytest.raises(ConfigError, match="has no --revision"):
        pull_weights(where, store=store, revision=SHA)
    done = pull_weights(where, store=store, sha256=sha256(made[OURS[0]]))
    assert (done.card.key, store.verify()) == ("npr-mine@2.0.0", [])
    with pytest.raises(ConfigError, match="no such folder"):
        pull_weights(f"{where}/none", store=store)


def test_the_hubs_cache_by_revision_and_hash(store: Store, made: dict[str, bytes], tmp_path: Path) -> None:
    root = cached(tmp_path / "models--somebody--detectors", ours(made))
    with pytest.raises(ConfigError, match="give --revision"):
        pull_weights(str(root), store=store)
    with pytest.raises(ConfigError, match="no such folder"):
        pull_weights(str(root), store=store, revision="f" * 40)
    blob = root / "blobs" / sha256(made[OURS[0]])
    blob.write_bytes(made[OURS[0]][:-1])
    with pytest.raises(WeightsError, match=r"does not have the hub's hash$"):
        pull_weights(str(root), store=store, revision=SHA)
    assert blob.exists()  # not ours to remove
    blob.write_bytes(made[OURS[0]])
    assert pull_weights(str(root), store=store, revision=SHA).card.key == "npr-mine@2.0.0"


def test_links_that_lead_out_of_a_folder_are_not_there(store: Store, made: dict[str, bytes], tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "snapshot", {"README.md": b""})
    outside = laid_out(tmp_path / "outside", {"model.safetensors": made["model.safetensors"]})
    (folder / "model.safetensors").symlink_to(outside / "model.safetensors")
    assert set(open_repository(str(folder), revision=None, to=None, endpoint=None).files) == {"README.md"}
    with pytest.raises(ConfigError, match="there are no weights"):
        pull_weights(str(folder), store=store, preset="npr")


def test_a_card_survives_the_way_unchanged(store: Store, made: dict[str, bytes], tmp_path: Path) -> None:
    """Also one with a space and an unknown order of keys: the bytes that were hashed by somebody are the bytes kept."""
    files = ours(made)
    files[OURS[1]] = json.dumps(json.loads(files[OURS[1]])).encode() + b" "
    done = pull_weights(str(laid_out(tmp_path / "snapshot", files)), store=store)
    assert (store.root / OURS[1]).read_bytes() == files[OURS[1]]
    assert store.card("npr-mine@2.0.0") == done.card == Card.from_json(files[OURS[1]].decode())
