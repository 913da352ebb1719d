"""Preference pairs and diagnostics: numbers by hand."""

import math

import pytest
import torch

from rlvr.rl_core import functional as F
from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.objective import preference_loss
from rlvr.verifiers.errors import UsageError

NAN, INF = float("nan"), float("inf")


def test_at_the_reference_the_loss_of_a_pair_is_ln_2() -> None:
    logprobs, mask = torch.randn(3, 4), torch.rand(3, 4) > 0.2
    loss, sums = preference_loss(
        TABLE["dpo"],
        chosen=logprobs,
        rejected=logprobs.flip(0),
        chosen_reference=logprobs,
        rejected_reference=logprobs.flip(0),
        chosen_mask=mask,
        rejected_mask=mask,
        pairs=3,
    )
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert {k: v.item() for k, v in sums.items()} == {"pairs": 3, "margin": 0, "preferred": 0}


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_micro_batches_of_pairs_add_up_and_padding_changes_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw() -> torch.Tensor:
        return torch.randn(5, 4, generator=generator, dtype=torch.float64)

    mask = torch.rand(5, 4, generator=generator) > 0.3
    tensors = {k: draw() for k in ("chosen", "rejected", "chosen_reference", "rejected_reference")}

    def loss(rows: slice, filler: float) -> float:
        hidden = {k: torch.where(mask, v, filler)[rows] for k, v in tensors.items()}
        masks = {"chosen_mask": mask[rows], "rejected_mask": mask[rows]}
        return preference_loss(algorithm(name), **hidden, **masks, pairs=5)[0].item()

    whole = loss(slice(None), NAN)
    assert loss(slice(0, 2), INF) + loss(slice(2, 5), 7.0) == pytest.approx(whole)


def test_pairs_are_made_of_groups_whose_scores_differ() -> None:
    rewards = torch.tensor([0.0, 1.0, NAN, 0.5, 1.0, 1.0, 0.2, 0.1])
    groups = torch.tensor([7, 7, 7, 7, 2, 2, 5, 5])
    found = F.pairs_of_groups(rewards, groups, ~rewards.isnan())
    # Group 2: equal scores; group 5: 0.2 over 0.1; group 7: 1.0 over 0.0.
    assert found.tolist() == [[6, 7], [1, 0]]


def test_without_a_difference_there_are_no_pairs() -> None:
    found = F.pairs_of_groups(torch.ones(3), torch.zeros(3).long(), torch.ones(3).bool())
    assert found.shape == (0, 2)


def test_pairs_of_unequal_numbers_are_refused() -> None:
    one, two = torch.zeros(1, 2), torch.zeros(2, 2)
    with pytest.raises(UsageError, match="chosen has 1 rows and rejected 2"):
        preference_loss(
            TABLE["dpo"],
            chosen=one,
            rejected=two,
            chosen_reference=one,
            rejected_reference=two,
            chosen_mask=one == 0,
            rejected_mask=two == 0,
            pairs=1,
        )


def test_a_broken_value_of_a_pair_is_refused_by_name() -> None:
    good, bad = torch.zeros(1, 2), torch.tensor([[0.0, NAN]])
    with pytest.raises(UsageError, match="rejected_reference of shape"):
        preference_loss(
            TABLE["dpo"],
            chosen=good,
            rejected=good,
            chosen_reference=good,
            rejected_reference=bad,
            chosen_mask=good == 0,
            rejected_mask=good == 0,
            pairs=1,
        )


def test_a_row_that_is_trained_on_advantages_takes_no_pairs() -> None:
    zero, mask = torch.zeros(1, 1), torch.ones(1, 1).bool()
    with pytest.raises(UsageError, match="take the row 'dpo' or 'ipo'"):
        preference_loss(
            TABLE["grpo"],
            chosen=zero,
            rejected=zero,
            chosen_reference=zero,
            rejected_reference=zero,
            chosen_mask=mask,
            rejected_mask=mask,
            pairs=1,
        )


def test_explained_variance_of_a_hand_worked_critic() -> None:
    # Returns 0, 2 (variance 1); errors −0.5, 0.5 (variance 0.25), or none, or as bad as returns.
    returns, mask = torch.tensor([[0.0, 2.0, NAN]]), torch.tensor([[True, True, False]])
    assert F.explained_variance(torch.tensor([[0.5, 1.5, NAN]]), returns, mask) == 0.75
    assert F.explained_variance(returns, returns, mask) == 1.0
    assert F.explained_variance(torch.ones(1, 3), returns, mask) == 0.0
    assert F.explained_variance(-returns, returns, mask) == -3.0
    assert F.explained_variance(returns, torch.ones(1, 3), mask) == 0.0


def test_the_tails_of_weights_show_what_their_mean_hides() -> None:
    # 99 weights of 0.5 and one of 50.5: mean 1, effective share 100²/(100·(99·0.25 + 2550.25)).
    x = torch.cat([torch.full((99,), 0.5), torch.tensor([50.5])])[None].double().log()
    found = F.weight_tails(x, torch.ones(1, 100).bool())
    assert found["mean"] == pytest.approx(1.0)
    assert found["median"] == pytest.approx(0.5)
    assert found["max"] == pytest.approx(50.5)
    assert found["min"] == pytest.approx(0.5)
    assert found["p99"] == pytest.approx(50.5)
    assert found["effective"] == pytest.approx(100 / (99 * 0.25 + 50.5**2))
    assert F.weight_tails(x, torch.zeros(1, 100).bool()) == {}


def test_divergences_of_a_hand_worked_ratio() -> None:
    # x = 0.5, −1: k1 = −mean, k3 = mean of e^x − 1 − x.
    x, mask = torch.tensor([[0.5, -1.0, NAN]]), torch.tensor([[True, True, False]])
    found = F.divergences(x, mask)
    assert found["k1"] == pytest.approx(0.25)
    assert found["k3"] == pytest.approx((math.exp(0.5) - 1.5 + math.exp(-1)) / 2)


def test_the_effective_action_space_by_position() -> None:
    # Two rows; the second begins at the third column: positions count trained tokens.
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log().expand(2, 4, 3).clone()
    logits[1, 2] = torch.tensor([0.4, 0.3, 0.3]).log()
    mask = torch.tensor([[True, True, True, True], [False, False, True, False]])
    mass = F.top_mass(logits, (1, 2, 64))
    found = dict(F.action_space(mass, mask))
    assert list(found) == ["1", "2", "3-4"]
    assert found["1"] == pytest.approx([0.55, 0.8, 1.0])  # (0.7 + 0.4)/2, (0.9 + 0.7)/2
    assert found["3-4"] == pytest.approx([0.7, 0.9, 1.0])


def test_a_batch_without_tokens_has_no_action_space() -> None:
    assert F.action_space(torch.zeros(2, 0, 3), torch.zeros(2, 0).bool()) == []
    assert F.action_space(torch.zeros(2, 3, 3), torch.zeros(2, 3).bool()) == []


def test_the_divergence_over_the_vocabulary_and_its_gradient() -> None:
    # π = (2/3, 1/3), ref uniform: ⅔ ln(4/3) + ⅓ ln(2/3). Gradient: π_v (log(π_v/ref_v) − KL).
    logits = torch.tensor([[[2.0, 1.0]]]).double().log().requires_grad_()
    uniform, mask = torch.zeros(1, 1, 2).double(), torch.ones(1, 1).bool()
    kl = F.full_kl(logits, uniform, mask)
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert kl.item() == pytest.approx(expected)
    kl.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0].item() == pytest.approx(2 / 3 * (math.log(4 / 3) - expected))


def test_the_divergence_over_the_vocabulary_is_zero_where_nothing_is_trained() -> None:
    logits = torch.full((1, 2, 3), NAN, requires_grad=True)
    kl = F.full_kl(logits, torch.full((1, 2, 3), -INF), torch.zeros(1, 2).bool())
    kl.sum().backward()
    assert not kl.any()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_logits_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \[1, 2, 3\] and reference \[1, 2, 4\]"):
        F.full_kl(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.ones(1, 2).bool())
