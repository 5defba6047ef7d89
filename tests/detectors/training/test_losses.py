from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.experts.npr import NPR
from detectors.experts.ucf import UCF
from detectors.training.disentangling import DisentanglingObjective, objective_for
from detectors.training.losses import Objective, Terms, head_of, outputs_of
from detectors.training.samples import Batch
from tests.detectors.experts.variants import SMALL
from tests.detectors.training.small_run import RECIPE, Small

SOURCES = ("a", "b", "c")


def batch_of(classes: list[int], sources: list[int], kinds: list[str], *, side: int = 32) -> Batch:
    rng = np.random.default_rng(0)
    labels = np.array(classes, np.uint8)
    half = len(classes) // 2
    return Batch(
        rng.integers(0, 256, (len(classes), side, side, 3), dtype=np.uint8),
        (labels > 0).astype(np.uint8),
        np.array([bool(kind) for kind in kinds[half:]]),
        labels,
        np.array(sources, np.int64),
        tuple(kinds),
        tuple("" for _ in classes),
    )


BATCH = batch_of([0, 0, 0, 0, 1, 2, 1, 2], [0, 0, 0, 1, 2, -1, 2, -1], ["", "", "", "", "", "pasted", "", "pasted"])


def loss_of(changes: dict[str, Any], logits: Tensor, batch: Batch = BATCH, progress: float = 0.5) -> Terms:
    objective = Objective(Small(logits.shape[1]), RECIPE.model_copy(update=changes), SOURCES)
    terms: Terms = objective(logits, {}, batch, objective.weigh(batch, lambda t: t), progress)
    return terms


def test_one_output_gives_the_binary_cross_entropy_and_the_ranking_of_pairs() -> None:
    z = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    plain = loss_of({"pair_weight": 0.0, "smoothing": 0.1}, z)
    target = torch.tensor([0.0] * 4 + [1.0] * 4) * 0.9 + 0.05
    assert torch.allclose(plain.total, F.binary_cross_entropy_with_logits(z[:, 0], target))
    ranked = loss_of({"pair_weight": 2.0, "smoothing": 0.1}, z)
    gaps = torch.stack([z[1, 0] - z[5, 0], z[3, 0] - z[7, 0]])  # the two made ones
    assert torch.allclose(ranked.total - plain.total, 2 * F.softplus(gaps).mean())


def test_three_outputs_give_the_cross_entropy_over_labels_and_rank_p_fake() -> None:
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    plain = loss_of({"pair_weight": 0.0, "smoothing": 0.0}, z)
    assert torch.allclose(plain.total, F.cross_entropy(z, torch.from_numpy(BATCH.classes.astype(np.int64))))
    ranked = loss_of({"pair_weight": 1.0, "smoothing": 0.0}, z)
    fake = torch.logsumexp(z[:, 1:], 1) - z[:, 0]
    expected = F.softplus(torch.stack([fake[1] - fake[5], fake[3] - fake[7]])).mean()
    assert torch.allclose(ranked.total - plain.total, expected)


def test_the_adversary_learns_the_source_and_the_features_unlearn_it() -> None:
    torch.manual_seed(0)
    network = Small(dropout=0.0)
    objective = Objective(network, RECIPE.model_copy(update={"adversarial_weight": 1.0, "pair_weight": 0.0}), SOURCES)
    stem = network.trunk[0]
    assert isinstance(stem, torch.nn.Conv2d)
    x = torch.randn(8, 3, 32, 32)
    weights = objective.weigh(BATCH, lambda t: t)

    def gradients(progress: float) -> tuple[Tensor, Tensor]:
        network.zero_grad()
        objective.zero_grad()
        logits = network(x)
        terms = objective(logits.detach(), {}, BATCH, weights, progress)  # only the adversary's gradient
        terms.total.backward()
        assert objective.adversary is not None
        first = stem.weight.grad
        heads = [p.grad for p in objective.adversary.parameters() if p.grad is not None]
        return torch.zeros(1) if first is None else first.clone(), torch.cat([g.flatten() for g in heads])

    start, adversary = gradients(0.0)
    assert start.abs().max() == 0  # Ganin's schedule: nothing at first
    later, same = gradients(0.5)
    assert torch.allclose(adversary, same)
    # Against its gradient the trunk goes where the source is told worse: the plain gradient with the sign turned.
    assert objective.adversary is not None
    network.zero_grad()
    features = network.features(x)
    normal = [F.cross_entropy(objective.adversary[0](features[:4]), torch.tensor([0, 0, 0, 1]), reduction="sum")]
    targets = torch.tensor([2, 3 + sorted(RECIPE.kinds).index("pasted")] * 2)
    normal.append(F.cross_entropy(objective.adversary[1](features[4:]), targets, reduction="sum"))
    torch.stack(normal).sum().div(8).backward()  # type: ignore[no-untyped-call]
    strength = 2 / (1 + np.exp(-5.0)) - 1
    plain = stem.weight.grad
    assert plain is not None
    assert torch.allclose(later, -strength * plain, atol=1e-6)


def test_group_weights_rise_where_the_loss_is_high_and_keep_the_classes_even() -> None:
    objective = Objective(Small(), RECIPE.model_copy(update={"robust": "group", "robust_step": 0.5}), SOURCES)
    before = objective.weigh(BATCH, lambda t: t)
    assert before.samples[:4].sum() == pytest.approx(0.5)
    assert before.samples[4:].sum() == pytest.approx(0.5)
    assert before.samples[3] == pytest.approx(0.25)  # the only one of its source counts as much as the other three
    bad = torch.zeros_like(objective.weights)
    bad[1] = 2.0  # source b, a real one, has a loss
    objective.after(bad, before.counts)
    after = objective.weigh(BATCH, lambda t: t)
    assert after.samples[3] > 0.3
    assert after.samples[:4].sum() == pytest.approx(0.5)
    assert torch.equal(after.samples[4:], before.samples[4:])
    assert objective.weights[:3].sum() == pytest.approx(1.0)
    assert objective.weights[2] > 0  # a source that was not drawn is not forgotten


def test_parts_of_a_batch_keep_its_weights() -> None:
    objective = Objective(Small(), RECIPE, SOURCES)
    weights = objective.weigh(BATCH, lambda t: t)
    z = torch.randn(8, 1, generator=torch.Generator().manual_seed(3))
    whole = objective(z, {}, BATCH, weights, 0.0).total
    parts = [
        objective(z[index], {}, BATCH.pairs(a, b), weights.pairs(a, b), 0.0).total
        for a, b, index in ((0, 1, [0, 4]), (1, 4, [1, 2, 3, 5, 6, 7]))
    ]
    assert torch.allclose(whole, sum(parts, torch.zeros(())))


def test_the_head_is_found_by_name_or_as_the_last_layer() -> None:
    npr = NPR(3)
    assert head_of(npr) is npr.fc1
    assert outputs_of(npr) == 3
    ucf = UCF(**{**SMALL["ucf"], "inference_only": False})
    assert head_of(ucf) is ucf.head_sha
    assert outputs_of(ucf) == 2


def test_ucf_is_trained_by_all_of_its_terms() -> None:
    torch.manual_seed(0)
    options = {**SMALL["ucf"], "inference_only": False, "specific_task_number": 4}
    network = UCF(**options)
    batch = batch_of([0, 0, 1, 2], [0, 1, 2, -1], ["", "", "", "pasted"], side=64)
    objective = objective_for(network, RECIPE, SOURCES)
    assert isinstance(objective, DisentanglingObjective)
    x = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) / 127.5 - 1
    logits, found = objective.judge(network, x)
    terms = objective(logits, found, batch, objective.weigh(batch, lambda t: t), 0.0)
    assert set(terms.parts) == {"cross_entropy", "pairs", "methods", "paintings", "contrast"}
    assert all(torch.isfinite(v) and v > 0 for v in terms.parts.values())
    named = terms.parts
    total = named["cross_entropy"] + RECIPE.pair_weight * named["pairs"]
    total = total + 0.1 * named["methods"] + 0.3 * named["paintings"] + 0.05 * named["contrast"]
    assert torch.allclose(terms.total, total)
    terms.total.backward()
    for part in (network.encoder_c, network.con_gan, network.head_spe, network.block_sha, network.encoder_f):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    assert not isinstance(objective_for(UCF(**SMALL["ucf"]), RECIPE, SOURCES), DisentanglingObjective)
