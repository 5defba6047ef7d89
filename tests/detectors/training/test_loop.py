from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors import datasets, preprocess
from detectors.card import Preprocess
from detectors.training.feed import feed
from detectors.training.loop import fit
from detectors.training.precision import share, to_input
from detectors.training.samples import Batch, Pool
from tests.detectors.training.pool_of_photos import write_pool
from tests.detectors.training.small_run import RECIPE, VIEW, Small

SCRIPT = "tests.detectors.training.small_run"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    write_pool(folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(data: Path, run: Path, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, Tensor]:
    network = Small(**options)
    recipe = RECIPE.model_copy(update=changes or {})
    list(fit(network, Pool(datasets.read(data), recipe), recipe, VIEW, run, log_every=1))
    return network.state_dict()


def lines(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_a_run_reports_moves_the_weights_and_ends_with_the_average(data: Path, tmp_path: Path) -> None:
    network = Small()
    before = network.head.weight.detach().clone()
    steps = list(fit(network, Pool(datasets.read(data), RECIPE), RECIPE, VIEW, tmp_path, log_every=5))
    assert [p.step for p in steps] == [5, 10, 12]
    assert all(0.0 < p.loss < 5.0 and p.seconds_left >= 0.0 for p in steps)
    assert steps[-1].epoch == pytest.approx(12 * 8 / 25_600)
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 12]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert not torch.equal(before, network.head.weight)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(state["average"]["head.weight"], network.head.weight)
    assert not torch.equal(state["network"]["head.weight"], network.head.weight)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(data: Path, tmp_path: Path, one_thread: None) -> None:
    command = [sys.executable, "-m", SCRIPT, str(data), str(tmp_path / "cut")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "6":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    state = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
    assert state["step"] == 4
    resumed = trained(data, tmp_path / "cut", dropout=0.0, seed=9)  # whatever it starts from, the state decides
    whole = trained(data, tmp_path / "whole", dropout=0.0)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert len(lines(tmp_path / "whole")) == 12


def test_what_one_step_draws_does_not_depend_on_where_the_run_was_cut(data: Path, tmp_path: Path) -> None:
    """With dropout, and with a report that spans the cut."""
    pool = Pool(datasets.read(data), RECIPE)
    runs = {}
    for name, cuts in (("whole", 0), ("cut", 1)):
        for _ in range(cuts):
            half = fit(Small(), pool, RECIPE, VIEW, tmp_path / name, log_every=5)
            next(half)
            half.close()
        network = Small(seed=cuts)
        runs[name] = list(fit(network, pool, RECIPE, VIEW, tmp_path / name, log_every=5)), network.state_dict()
    assert [(p.step, p.loss) for p in runs["cut"][0]] == [(p.step, p.loss) for p in runs["whole"][0]]
    assert all(torch.equal(value, runs["cut"][1][name]) for name, value in runs["whole"][1].items())


def test_a_state_of_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        trained(data, tmp_path, {"seed": 5})
    trained(data, tmp_path, {"save_every": 7, "workers": 2})  # how it is computed may change


@pytest.mark.parametrize("micro", [2, 6])
def test_micro_batches_add_up_to_the_batch(micro: int, data: Path, tmp_path: Path) -> None:
    extras = {"adversarial_weight": 0.5, "robust": "group"}
    whole = trained(data, tmp_path / "whole", extras, dropout=0.0)
    parts = trained(data, tmp_path / "parts", {"micro_batch": micro, **extras}, dropout=0.0)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], rtol=0, atol=1e-6), name
    assert lines(tmp_path / "parts")[0]["loss"] == pytest.approx(lines(tmp_path / "whole")[0]["loss"], abs=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path, one_thread: None) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*torchrun, SCRIPT, str(data), str(tmp_path / "two")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    two = torch.load(tmp_path / "two" / "network.pt", weights_only=True)
    one = trained(data, tmp_path / "one", dropout=0.0)
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-5), name
    assert [line["step"] for line in lines(tmp_path / "two")] == list(range(1, 13))
    for mine, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-4)
        assert theirs["gradient"] == pytest.approx(mine["gradient"], abs=1e-3)


def test_shares_take_each_pair_once() -> None:
    shares = [share(7, 3, k) for k in range(3)]
    assert [k for part in shares for k in range(7)[part]] == list(range(7))
    with pytest.raises(ValueError, match="cannot be shared"):
        share(2, 3, 0)


def test_frozen_norms_keep_their_statistics_and_the_average_has_them(data: Path, tmp_path: Path) -> None:
    fresh = Small(norm=True).state_dict()
    frozen = trained(data, tmp_path / "frozen", {"freeze_norms": True}, norm=True)
    moving = trained(data, tmp_path / "moving", norm=True)
    for name in ("trunk.1.running_mean", "trunk.1.running_var", "trunk.1.num_batches_tracked"):
        assert torch.equal(frozen[name], fresh[name])
        assert not torch.equal(moving[name], fresh[name])
    assert not torch.equal(frozen["trunk.1.weight"], fresh["trunk.1.weight"])


def test_a_trunk_at_rate_zero_stays(data: Path, tmp_path: Path) -> None:
    fresh = Small().state_dict()
    found = trained(data, tmp_path, {"trunk_rate": 0.0})
    assert torch.equal(found["trunk.0.weight"], fresh["trunk.0.weight"])
    assert not torch.equal(found["head.weight"], fresh["head.weight"])


def test_bf16_computes_coarser_and_keeps_fp32_weights(data: Path, tmp_path: Path) -> None:
    full = trained(data, tmp_path / "fp32")
    half = trained(data, tmp_path / "bf16", {"precision": "bf16"})
    assert half["head.weight"].dtype == torch.float32
    assert not torch.equal(full["head.weight"], half["head.weight"])
    assert torch.allclose(full["head.weight"], half["head.weight"], atol=0.02)


def test_workers_give_the_batches_of_the_pool(data: Path) -> None:
    pool = Pool(datasets.read(data), RECIPE.model_copy(update={"workers": 2}))
    found = list(feed(pool, 3, 8, slice(1, 3)))
    assert [step for step, _ in found] == [3, 4, 5, 6, 7]
    for step, batch in found:
        expected = pool.batch(step)
        assert np.array_equal(batch.pixels, expected.pairs(1, 3).pixels)
        assert batch.kinds == expected.pairs(1, 3).kinds


@pytest.mark.parametrize(
    "view",
    [VIEW, Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), channels="BGR"), Preprocess()],
    ids=["byte", "bgr", "unit"],
)
def test_the_input_is_what_serving_computes(view: Preprocess) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
    expected = preprocess.tensor(list(pixels), replace(view, mode="native"))
    assert torch.equal(to_input(pixels, view, torch.device("cpu")), expected)
    clips = to_input(pixels[None], view, torch.device("cpu"))
    assert torch.equal(clips[0], expected)


@pytest.mark.parametrize(
    ("changes", "classes"),
    [({"pair_weight": 0.0}, 1), ({"pair_weight": 1.0}, 1), ({"pair_weight": 1.0}, 3), ({"robust": "group"}, 1)],
)
def test_it_learns_what_can_be_learned(tmp_path: Path, changes: dict[str, Any], classes: int) -> None:
    class Flat(Pool):
        """Real is dark, fake is bright, semi-synthetic is grey."""

        few: ClassVar[dict[int, Batch]] = {}

        def batch(self, step: int, part: slice = slice(None)) -> Batch:
            if step % 8 not in self.few:
                self.few[step % 8] = super().batch(step % 8, part)
            drawn = self.few[step % 8]
            tone = np.array([0, 190, 95])[drawn.classes][:, None, None, None]
            return replace(drawn, pixels=(drawn.pixels // 4 + tone).astype(np.uint8))

    recipe = RECIPE.model_copy(
        update={"steps": 150, "learning_rate": 2e-2, "smoothing": 0.0, "average": 0.9, **changes}
    )
    network = Small(classes, dropout=0.0)
    pool = Flat(write_pool(tmp_path, groups=1), recipe)
    *_, last = fit(network, pool, recipe, VIEW, tmp_path / "run", log_every=10)
    assert last.scalars["cross_entropy"] < 0.3
    if classes == 3:
        batch = pool.batch(0)
        said = network(to_input(batch.pixels, VIEW, torch.device("cpu"))).argmax(1).numpy()
        assert (said == batch.classes).mean() > 0.8
