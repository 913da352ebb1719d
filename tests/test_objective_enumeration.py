"""Exact expectations on a two-token MDP: every batch is enumerated and weighted by its probability.

Two tokens of a binary vocabulary: four completions, six logits (first token; second token after 0;
second token after 1). Nothing is sampled, so bias shows to the last digit.
"""

import itertools

import pytest
import torch
from torch import Tensor

from rlvr.rl_core.algorithms import TABLE, algorithm
from rlvr.rl_core.choices import Algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss

COMPLETIONS = list(itertools.product((0, 1), repeat=2))
LOGITS = torch.tensor([[0.3, -0.4], [0.9, 0.1], [-0.7, 0.2]], dtype=torch.float64)
REFERENCE = torch.tensor([[-0.1, 0.2], [0.3, 0.5], [0.4, -0.6]], dtype=torch.float64)
OLD = torch.tensor([[0.1, -0.1], [0.5, 0.3], [-0.5, -0.2]], dtype=torch.float64)
REWARDS = torch.tensor([1.0, 0.0, 0.25, 0.75], dtype=torch.float64)


def token_logprobs(logits: Tensor) -> Tensor:
    """Return the log-probability of each token of each completion `[4, 2]`."""
    table = torch.log_softmax(logits, dim=1)
    return torch.stack([torch.stack([table[0, a], table[1 + a, b]]) for a, b in COMPLETIONS])


def true_values(beta: float = 0.0) -> Tensor:
    """Return V(s) before each token of each completion `[4, 2]`, with k1 priced at beta."""
    table, theirs = torch.log_softmax(LOGITS, 1), torch.log_softmax(REFERENCE, 1)
    paid = REWARDS.reshape(2, 2) - beta * (table - theirs)[1:]
    second = (table[1:].exp() * paid).sum(dim=1)
    first = (table[0].exp() * (second - beta * (table - theirs)[0])).sum()
    return torch.stack([torch.stack([first, second[a]]) for a, _ in COMPLETIONS])


def expected_step(
    row: Algorithm,
    size: int,
    *,
    sampled_from: Tensor = LOGITS,
    baseline: float | None = None,
    values: Tensor | None = None,
) -> Tensor:
    """Return the expected descent direction −∇L over every batch of `size` completions."""
    values = true_values() if values is None else values
    rollout = token_logprobs(sampled_from)
    old, reference = token_logprobs(sampled_from), token_logprobs(REFERENCE)
    weights = old.sum(dim=1).exp()
    mask, scored = torch.ones(size, 2, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
    step = torch.zeros_like(LOGITS)
    for batch in itertools.product(range(4), repeat=size):
        rows = list(batch)
        logits = LOGITS.clone().requires_grad_()
        found = advantages(
            row,
            rewards=REWARDS[rows],
            scored=scored,
            groups=torch.zeros(size, dtype=torch.int64),
            mask=mask,
            logprobs=old[rows],
            reference=reference[rows],
            baseline=baseline,
            values=values[rows],
            greedy=torch.full((size,), 0.75, dtype=torch.float64),
        )
        loss, _ = policy_loss(
            row,
            logprobs=token_logprobs(logits)[rows],
            old=old[rows],
            rollout=rollout[rows],
            advantages=found.values,
            mask=mask,
            reference=reference[rows],
            denominators=denominators(mask, scored, 2),
        )
        step -= weights[rows].prod() * torch.autograd.grad(loss, logits)[0]
    return step


def true_gradient(beta: float = 0.0) -> Tensor:
    """Differentiate E[R] − β KL(π‖ref) in closed form."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = token_logprobs(logits).sum(dim=1)
    divergence = (logprobs.exp() * (logprobs - token_logprobs(REFERENCE).sum(dim=1))).sum()
    value = (logprobs.exp() * REWARDS).sum() - beta * divergence
    return torch.autograd.grad(value, logits)[0]


def close(found: Tensor, expected: Tensor) -> None:
    """Compare to the last digits."""
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["vpg", "vpg-rtg"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_vanilla_policy_gradient_is_unbiased(name: str, size: int) -> None:
    close(expected_step(TABLE[name], size), true_gradient())


@pytest.mark.parametrize("name", ["vpg", "vpg-rtg"])
def test_total_and_reward_to_go_agree_on_rewards_at_every_token(name: str) -> None:
    row = algorithm(name, kl="reward", beta=0.3)
    close(expected_step(row, 1), true_gradient(beta=0.3))


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_is_unbiased(size: int) -> None:
    row = algorithm("rloo", ratio="none", trust="logp", aggregate="seq_sum", beta=0)
    close(expected_step(row, size), true_gradient())


def test_leave_one_out_with_kl_in_the_reward_is_unbiased_for_the_penalised_objective() -> None:
    close(expected_step(algorithm("rloo", beta=0.3), 2), true_gradient(beta=0.3))


@pytest.mark.parametrize("size", [2, 3])
def test_the_batch_mean_shrinks_the_gradient_by_its_own_share(size: int) -> None:
    close(expected_step(TABLE["reinforce"], size), (size - 1) / size * true_gradient())


@pytest.mark.parametrize("baseline", [None, 0.6, -3.0])
def test_the_moving_average_is_unbiased_whatever_it_is(baseline: float | None) -> None:
    close(expected_step(TABLE["reinforce-ema"], 2, baseline=baseline), true_gradient())


def test_dr_grpo_is_the_shrunken_gradient_over_its_constant() -> None:
    # C = 2 tokens; the group mean contains the completion itself: (G−1)/G.
    row = algorithm("dr-grpo", trust="ratio")
    close(expected_step(row, 3), 2 / 3 / 2 * true_gradient())


def test_an_unbounded_sequence_ratio_corrects_for_an_older_policy() -> None:
    row = algorithm("rloo", trust="ratio", beta=0)
    close(expected_step(row, 2, sampled_from=OLD), true_gradient())
    plain = algorithm("rloo", ratio="none", trust="logp", aggregate="seq_sum", beta=0)
    biased = expected_step(plain, 2, sampled_from=OLD)
    assert not torch.allclose(biased, true_gradient(), atol=1e-3)


PSI = ["vpg", "vpg-rtg", "vpg-baseline", "vpg-q", "vpg-advantage", "vpg-td", "remax"]


@pytest.mark.parametrize("name", PSI)
def test_every_credit_has_the_same_expected_gradient(name: str) -> None:
    close(expected_step(TABLE[name], 1), true_gradient())


@pytest.mark.parametrize("name", PSI)
def test_every_credit_agrees_on_rewards_at_every_token(name: str) -> None:
    row = algorithm(name, kl="reward", beta=0.3)
    close(expected_step(row, 1, values=true_values(0.3)), true_gradient(beta=0.3))


@pytest.mark.parametrize("name", ["vpg-baseline", "vpg-advantage"])
def test_a_wrong_critic_biases_only_what_trusts_it(name: str) -> None:
    wrong = torch.tensor([[0.3, -1.0]]).double().expand(4, 2) * torch.tensor([[1.0], [1], [2], [2]])
    wrong[:, 0] = 0.3  # a value may depend on what came before, not on what comes
    found = expected_step(TABLE[name], 1, values=wrong)
    if name == "vpg-baseline":
        close(found, true_gradient())
    else:
        assert not torch.allclose(found, true_gradient(), atol=1e-3)
        exact = expected_step(algorithm(name, lam=1.0), 1, values=wrong)
        close(exact, true_gradient())


@pytest.mark.parametrize("name", ["vpg-q", "vpg-td"])
def test_credit_by_the_value_alone_learns_the_critics_errors_as_rewards(name: str) -> None:
    error = torch.tensor([0.5, -0.25]).double()  # of V̂ after a first token 0 and 1
    wrong = true_values()
    wrong[:, 1] += error.repeat_interleave(2)
    wrong[:, 0] += 0.7  # an error before the first token is a baseline: no bias
    logits = LOGITS.clone().requires_grad_()
    believed = (torch.softmax(logits[0], 0) * error).sum()
    bias = torch.autograd.grad(believed, logits)[0]
    assert bias.abs().max() > 0.1
    close(expected_step(TABLE[name], 1, values=wrong), true_gradient() + bias)


@pytest.mark.parametrize("name", ["vpg-q", "vpg-td", "vpg-rtg", "vpg-advantage"])
def test_a_critic_is_fitted_to_what_was_paid(name: str) -> None:
    ones = torch.ones(2, dtype=torch.bool)
    row = algorithm(name, lam=1.0) if name == "vpg-advantage" else TABLE[name]
    found = advantages(
        row,
        rewards=torch.tensor([1.0, 0.0]),
        scored=ones,
        groups=torch.tensor([0, 1]),
        mask=torch.ones(2, 3, dtype=torch.bool),
        values=torch.tensor([[0.25, 0.5, 0.75]] * 2),
        bootstrap=torch.tensor([0.0, 0.5]) if row.needs_values else None,
    )
    # Reward-to-go of what was paid, and of what is expected after a completion that was cut off.
    wanted = [[1.0] * 3, [0.5 if row.needs_values else 0.0] * 3]
    assert found.returns.tolist() == wanted


def test_the_expected_gradient_of_opo_is_biased_as_that_of_the_group_mean() -> None:
    # Equal lengths: the weights are equal, and N = 2·size in place of B = size.
    row = algorithm("opo", group_size=3)
    close(expected_step(row, 3), 2 / 3 / 2 * true_gradient())


def kl_step(estimator: str, sampled_from: Tensor = LOGITS) -> Tensor:
    """Return what a KL loss of price 1 adds to the expected descent direction."""
    row = algorithm("vpg", kl="loss", kl_estimator=estimator, beta=1.0)
    plain = expected_step(TABLE["vpg"], 1, sampled_from=sampled_from)
    return expected_step(row, 1, sampled_from=sampled_from) - plain


def token_divergence_gradient(*, forward: bool, visited_by: Tensor = LOGITS) -> Tensor:
    """Differentiate Σ_s p(s) KL at s, with the probabilities p(s) of the states held fixed."""
    logits = LOGITS.clone().requires_grad_()
    mine, theirs = torch.log_softmax(logits, 1), torch.log_softmax(REFERENCE, 1)
    ahead, behind = (theirs, mine) if forward else (mine, theirs)
    per_state = (ahead.exp() * (ahead - behind)).sum(dim=1)
    first = torch.softmax(visited_by[0], 0)
    visits = torch.stack([torch.ones_like(first[0]), *first])
    return torch.autograd.grad((visits * per_state).sum(), logits)[0]


def test_k2_in_the_loss_descends_the_reverse_divergence_at_each_token() -> None:
    close(kl_step("k2"), -token_divergence_gradient(forward=False))


def test_the_straight_through_k2_has_the_gradient_of_k2() -> None:
    close(kl_step("st_k2"), kl_step("k2"))


def test_the_ratio_k3_descends_the_reverse_divergence_of_an_older_policys_tokens_too() -> None:
    close(kl_step("rho_k3"), -token_divergence_gradient(forward=False))
    # Off-policy the states are those of the older policy, the divergence still that of π.
    found = kl_step("rho_k3", OLD)
    assert not torch.allclose(found, kl_step("k2", OLD), atol=1e-3)
    close(found, -token_divergence_gradient(forward=False, visited_by=OLD))


def test_a_penalty_left_in_the_graph_is_an_entropy_bonus_that_nobody_asked_for() -> None:
    beta, weights = 0.3, token_logprobs(LOGITS).sum(dim=1).exp()
    logits = LOGITS.clone().requires_grad_()
    logprobs, reference = token_logprobs(logits).sum(dim=1), token_logprobs(REFERENCE).sum(dim=1)
    kept = (weights * -(REWARDS - beta * (logprobs - reference)) * logprobs).sum()
    detached = (weights * -(REWARDS - beta * (logprobs - reference)).detach() * logprobs).sum()
    assert kept.item() == detached.item()
    extra = torch.autograd.grad(kept, logits, retain_graph=True)[0]
    extra = extra - torch.autograd.grad(detached, logits, retain_graph=True)[0]
    entropy = -(logprobs.exp() * logprobs).sum()
    close(extra, -beta * torch.autograd.grad(entropy, logits, retain_graph=True)[0])
    # And the detached one is what the row computes.
    row = algorithm("vpg", kl="reward", beta=beta)
    close(expected_step(row, 1), -torch.autograd.grad(detached, logits)[0])


def test_k3_in_the_loss_descends_the_forward_divergence_at_each_token() -> None:
    close(kl_step("k3"), -token_divergence_gradient(forward=True))


def test_a_loss_does_not_see_how_a_token_changes_the_divergence_of_what_follows() -> None:
    in_reward = true_gradient(beta=1.0) - true_gradient()
    close(kl_step("k2")[1:], in_reward[1:])  # the last token: nothing follows
    assert not torch.allclose(kl_step("k2")[0], in_reward[0], atol=1e-3)


def variance(row: Algorithm) -> float:
    """Return the trace of the covariance of single-completion gradients."""
    weights = token_logprobs(LOGITS).sum(dim=1).exp()
    mean, square = torch.zeros_like(LOGITS), torch.tensor(0.0, dtype=torch.float64)
    for i in range(4):
        step = _single(row, i)
        mean, square = mean + weights[i] * step, square + weights[i] * step.square().sum()
    return (square - mean.square().sum()).item()


def _single(row: Algorithm, i: int) -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    one, mask = torch.tensor([True]), torch.ones(1, 2, dtype=torch.bool)
    values = advantages(
        row,
        rewards=REWARDS[[i]] + 1,
        scored=one,
        groups=torch.tensor([0]),
        mask=mask,
        token_rewards=torch.tensor([[float(COMPLETIONS[i][0] == 0), REWARDS[i]]]).double(),
        spans=torch.tensor([[0, 1]]),
        values=step_values()[[i]],
    ).values
    loss, _ = policy_loss(
        row,
        logprobs=token_logprobs(logits)[[i]],
        advantages=values,
        mask=mask,
        denominators=denominators(mask, one, 2),
    )
    return torch.autograd.grad(loss, logits)[0]


def step_values() -> Tensor:
    """Return V(s) where a first token 0 is paid 1, and the completion its score."""
    table = torch.softmax(LOGITS, 1)
    second = (table[1:] * REWARDS.reshape(2, 2)).sum(dim=1)
    first = (table[0] * (second + torch.tensor([1.0, 0.0]))).sum()
    return torch.stack([torch.stack([first, second[a]]) for a, _ in COMPLETIONS])


def test_the_more_a_credit_knows_the_less_it_varies() -> None:
    found = [
        variance(algorithm(name, reward="process")) for name in ("vpg", "vpg-rtg", "vpg-baseline")
    ]
    total, to_go, less_value = found
    assert total > 1.1 * to_go > 0
    assert to_go > 1.5 * less_value
    # With exact values the temporal difference is the advantage: nothing of the future is left.
    advantage = variance(algorithm("vpg-td", reward="process"))
    assert less_value > advantage > 0
    assert variance(algorithm("vpg-q", reward="process")) > advantage
