"""Partial labels, by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from pipeline.training.data.targets import Tissue  # noqa: E402
from pipeline.training.fit.losses import leaf_set_loss, tissue_cross_entropy, tissue_dice  # noqa: E402


def _logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_a_set_of_leaves_costs_the_probability_of_all_of_them() -> None:
    logits = _logits(0.5, 0.3, 0.2)
    either = torch.tensor([[True, True, False]])
    assert float(leaf_set_loss(logits, either, 0.0)) == pytest.approx(-math.log(0.8), abs=1e-6)
    one = torch.tensor([[False, False, True]])
    assert float(leaf_set_loss(logits, one, 0.0)) == pytest.approx(-math.log(0.2), abs=1e-6)


def test_smoothing_mixes_in_the_uniform() -> None:
    logits = _logits(0.5, 0.25, 0.25)
    allowed = torch.tensor([[True, False, False]])
    uniform = -(math.log(0.5) + 2 * math.log(0.25)) / 3
    expected = 0.9 * -math.log(0.5) + 0.1 * uniform
    assert float(leaf_set_loss(logits, allowed, 0.1)) == pytest.approx(expected, abs=1e-6)


def test_a_set_has_no_preference_inside_itself() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    leaf_set_loss(logits, torch.tensor([[True, True, False]]), 0.0).backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 0]) == pytest.approx(float(logits.grad[0, 1]))
    assert float(logits.grad[0, 0]) < 0 < float(logits.grad[0, 2])
    assert torch.isfinite(logits.grad).all()


def _tissue(*labels: Tissue) -> torch.Tensor:
    return torch.tensor([[list(labels)]], dtype=torch.uint8)


def _pixels(*probabilities: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(probabilities).log().T[None, :, None, :]


def test_cell_pixels_cost_cytoplasm_or_nucleus_and_ignored_ones_nothing() -> None:
    logits = _pixels((0.2, 0.5, 0.3), (0.9, 0.05, 0.05), (0.1, 0.1, 0.8))
    tissue = _tissue(Tissue.CELL, Tissue.IGNORED, Tissue.NUCLEUS)
    expected = -(math.log(0.8) + math.log(0.8)) / 2
    assert float(tissue_cross_entropy(logits, tissue)) == pytest.approx(expected, abs=1e-6)


def test_a_picture_that_tells_nothing_costs_nothing() -> None:
    logits = torch.randn(1, 3, 1, 2, requires_grad=True)
    loss = tissue_cross_entropy(logits, _tissue(Tissue.IGNORED, Tissue.IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_dice_is_near_zero_for_the_truth_and_near_one_for_its_opposite() -> None:
    labels = [Tissue.BACKGROUND] * 50 + [Tissue.NUCLEUS] * 50
    right = [(1.0, 1e-9, 1e-9)] * 50 + [(1e-9, 1e-9, 1.0)] * 50
    assert float(tissue_dice(_pixels(*right), _tissue(*labels))) == pytest.approx(0.0, abs=1e-4)
    assert float(tissue_dice(_pixels(*reversed(right)), _tissue(*labels))) > 0.95
