"""Every check that a candidate can fail, through the real store and the real gating network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detectors import camo_load
from detectors.camo import Camo
from detectors.candidate import Demands, SwapRefused, fingerprint, prepare, sources
from detectors.curve import Curve
from detectors.errors import PredictionError
from detectors.gates.network import GateNet
from detectors.store import GOLDEN_TOLERANCE
from detectors.types import Media
from tests.detectors.fixtures_camo import flat
from tests.detectors.fixtures_store import CONFIG, House, network

MIB = 2**20


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def refusal(house: House, **options: Any) -> SwapRefused:
    with pytest.raises(SwapRefused) as caught:
        prepare(house.camo, house.root, **options)
    return caught.value


def test_what_is_whole_passes_and_answers_as_when_loaded_at_the_start(house: House) -> None:
    found = prepare(house.camo, house.root)
    plain = house.load()
    assert found.camo.card == plain.card
    assert found.fingerprint == fingerprint(house.camo, house.root)
    assert 0 < found.probe_ms < 2000
    assert found.camo.costs["one"] == 5.0  # what the background measured is forgotten
    answers = [c.predict([flat(90, side=64), flat(200, side=64, frames=3)]) for c in (found.camo, plain)]
    assert [a.probabilities for a in answers[0]] == [a.probabilities for a in answers[1]]
    assert found.camo.card.options["gates"] == {"content": "content@1"}


def test_the_gate_s_weights_count_for_the_name_of_the_whole(house: House) -> None:
    before = house.load().card.key
    torch.manual_seed(6)
    house.save("content", "2", GateNet(outputs=4, side=48, width=4))
    house.store.activate("content", "2")
    assert prepare(house.camo, house.root).camo.card.key != before


@pytest.mark.parametrize(
    ("break_it", "stage", "words"),
    [
        (lambda h: h.camo.write_text("experts: ["), "configuration", "camo.yaml"),
        (lambda h: h.camo.unlink(), "configuration", "camo.yaml"),
        (lambda h: h.camo.write_text(CONFIG.replace("budget_ms", "buget_ms")), "configuration", "did you mean"),
        (lambda h: h.camo.write_text(CONFIG.replace("weights: two", "weights: tow")), "configuration", "'two'"),
        (lambda h: (h.root / "active.json").write_text('{"one": '), "configuration", "active.json"),
        (lambda h: (h.root / "active.json").write_text('{"one": "1"}'), "weights", "'content'"),
        (lambda h: (h.root / "two-1.json").write_text("{"), "weights", "two-1.json"),
        (lambda h: (h.root / "two-1.json").unlink(), "weights", "two-1.json"),
        (lambda h: h.weights("two-1").unlink(), "weights", "two-1.safetensors"),
        (lambda h: h.weights("two-1").write_bytes(b""), "weights", "sha256"),
        (lambda h: h.weights("content-1").write_bytes(h.weights("one-1").read_bytes()), "weights", "content-1"),
        (lambda h: h.rewrite("two@1", options={"outputs": 3, "side": 48, "width": 4}), "weights", "do not fit"),
        (lambda h: h.rewrite("two@1", options={"outputs": 2, "sied": 48}), "configuration", "sied"),
        (lambda h: h.rewrite("two@1", golden={"noise": 0.9, "smooth": 0.9}), "golden", "two@1: P(fake) on probe"),
        (lambda h: h.rewrite("two@1", golden={}), "golden", "two@1"),
        (lambda h: h.rewrite("content@1", golden={"noise": 0.9, "smooth": 0.9}), "golden", "content@1"),
        (lambda h: h.rewrite("two@1", calibration=Curve(1.0, 1.0)), "golden", "two@1"),
    ],
)
def test_what_is_wrong_is_refused_by_the_check_it_fails(
    house: House, break_it: Callable[[House], object], stage: str, words: str
) -> None:
    prepare(house.camo, house.root)
    break_it(house)
    found = refusal(house)
    assert (found.stage, words in found.reason) == (stage, True), found.reason
    assert "\n" not in found.reason


def test_values_that_are_not_finite_are_refused(house: House) -> None:
    """A hash that fits does not make them finite: somebody wrote them so."""
    import hashlib  # noqa: PLC0415

    import safetensors.torch  # noqa: PLC0415

    state = network(1).state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    data = safetensors.torch.save(state)
    house.weights("one-1").write_bytes(data)
    house.rewrite("one@1", sha256=hashlib.sha256(data).hexdigest())
    found = refusal(house)
    assert (found.stage, "not finite" in found.reason) == ("weights", True)


def test_the_golden_tolerance_is_the_store_s(house: House) -> None:
    golden = dict(house.store.card("one@1").golden)
    house.rewrite("one@1", golden={k: v + 0.9 * GOLDEN_TOLERANCE for k, v in golden.items()})
    prepare(house.camo, house.root)
    house.rewrite("one@1", golden={k: v + 1.5 * GOLDEN_TOLERANCE for k, v in golden.items()})
    assert refusal(house).stage == "golden"


def test_memory_is_looked_at_before_anything_is_loaded(house: House) -> None:
    size = sum(house.weights(stem).stat().st_size for stem in ("one-1", "two-1"))
    demands = Demands(reserve_bytes=64 * MIB)
    prepare(house.camo, house.root, demands=demands, free_memory=lambda: 64 * MIB + 4 * size)
    prepare(house.camo, house.root, demands=demands, free_memory=lambda: None)
    house.weights("one-1").write_bytes(b"")  # loading it would be refused for another reason
    found = refusal(house, demands=demands, free_memory=lambda: 64 * MIB)
    assert found.stage == "memory"
    assert "64 MiB that stay free" in found.reason
    assert "64 MiB are free" in found.reason


def test_memory_that_runs_out_all_the_same(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Camo:
        raise MemoryError

    monkeypatch.setattr(camo_load, "load", full)
    assert refusal(house).stage == "memory"


def test_a_slow_one_is_refused_with_its_figures(house: House) -> None:
    times = iter([0.0, 2.5])
    found = refusal(house, demands=Demands(budget_ms=2000), clock=lambda: next(times))
    assert found.stage == "latency"
    assert "2500 ms, 2000 ms are allowed" in found.reason
    assert "one" in found.reason
    times = iter([0.0, 1.9])
    assert prepare(house.camo, house.root, clock=lambda: next(times)).probe_ms == pytest.approx(1900)


class Fickle(GateNet):
    """Computes numbers for one input, and none for a batch."""

    kind = "nan"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        if len(x) <= 2:  # golden scores are two
            return out
        if self.kind == "raises":
            raise RuntimeError("a shape\nthat does not fit")
        return out * float("nan")


@pytest.mark.parametrize(("kind", "words"), [("nan", "no finite number from"), ("raises", "a shape")])
def test_outputs_that_are_no_numbers_are_refused(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    from detectors import registry  # noqa: PLC0415

    def build(card: Any) -> GateNet:
        return (Fickle if card.name == "two" else GateNet)(**card.options)

    monkeypatch.setattr(Fickle, "kind", kind)
    monkeypatch.setattr(registry, "build", build)
    found = refusal(house)
    assert found.stage == "output"
    assert words in found.reason
    assert "\n" not in found.reason


def test_an_answer_that_is_missing_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Camo.predict
    monkeypatch.setattr(Camo, "predict", lambda self, batch, **options: whole(self, batch, **options)[1:])
    assert refusal(house).reason == "2 answers to 3 media"

    def broken(self: Camo, batch: list[Media], **_: object) -> None:
        raise PredictionError("no expert computed a finite number")

    monkeypatch.setattr(Camo, "predict", broken)
    assert refusal(house).stage == "output"


def test_overwriting_in_place_while_it_serves_changes_no_answer(house: House) -> None:
    """What a careless ``cp`` does: the same inode, other bytes, and fewer of them."""
    house.save("one", "2", intercept=1.0)
    live = prepare(house.camo, house.root).camo
    before = live.predict([flat(90, side=64)])[0].probabilities
    for stem in ("one-1", "two-1", "content-1"):
        with house.weights(stem).open("r+b") as file:
            file.truncate(100)
    assert live.predict([flat(90, side=64)])[0].probabilities == before
    with house.weights("one-2").open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff" * 500)
    (house.root / "active.json").write_text('{"content": "1", "one": "2", "two": "1"}')
    assert refusal(house).stage == "weights"
    assert live.predict([flat(90, side=64)])[0].probabilities == before


def test_fingerprints_are_of_bytes_and_of_what_is_named(house: House, tmp_path: Path) -> None:
    first = fingerprint(house.camo, house.root)
    house.save("one", "2")
    assert fingerprint(house.camo, house.root) == first  # nobody asks for it
    (house.root / "active.json").touch()
    assert fingerprint(house.camo, house.root) == first
    seen = {first}
    for change in (
        lambda: house.store.activate("one", "2"),
        lambda: house.camo.write_text(CONFIG + "# more\n"),
        lambda: house.camo.write_text(CONFIG.replace("weights: two", "weights: two@1")),
        lambda: house.rewrite("two@1", provenance="elsewhere"),
        lambda: (house.root / "active.json").write_text("{"),
        (house.root / "two-1.json").unlink,  # the configuration names it
        house.camo.unlink,
    ):
        change()
        seen.add(fingerprint(house.camo, house.root))
    assert len(seen) == 8


def test_names_that_lead_out_of_the_folder_are_not_followed(house: House) -> None:
    (house.root / "active.json").write_text(json.dumps({"../up": "1", "a\0b": "1", "one": "1"}))
    named = [path.name for path in sources(house.camo, house.root)]
    assert [name for name in named if not name.startswith("a\0")] == ["active.json", "camo.yaml", "one-1.json"]
    assert len(fingerprint(house.camo, house.root)) == 64


def test_files_that_change_while_they_are_read_are_read_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.save("one", "2", intercept=1.0)
    load, loaded = camo_load.load, 0

    def meddled(*arguments: Any, **options: Any) -> Camo:
        nonlocal loaded
        found = load(*arguments, **options)
        loaded += 1
        if loaded <= meddling:
            house.camo.write_text(CONFIG + f"# {loaded}\n")
            house.store.activate("one", "2")
        return found

    monkeypatch.setattr(camo_load, "load", meddled)
    meddling = 1
    found = prepare(house.camo, house.root)
    assert found.camo.card.options["experts"] == {"one": "one@2", "two": "two@1"}
    assert found.fingerprint == fingerprint(house.camo, house.root)
    assert loaded == 2
    meddling = 100
    assert "again and again" in refusal(house).reason
