"""Learning from a truncated distribution: the same ids for the sampler and for the learner."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlvr.agents import Sampling, vllm_masks
from rlvr.agents.draws import Warp, log_probabilities
from rlvr.agents.kept import Kept
from rlvr.agents.scoring import CUT, Support, confined, pad, token_logprobs
from rlvr.rl_core import functional as F
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss
from rlvr.rl_core.passes import Pass
from rlvr.verifiers import ModelError

CPU = torch.device("cpu")


def _support(kept: list[list[list[int]]]) -> Support:
    present = np.ones((len(kept), len(kept[0])), bool)
    found = Support.of([Kept(row) for row in kept], present, CPU)
    assert found is not None
    return found


def _pass(logits: Tensor, support: Support | None, temperature: float = 1.0) -> Pass:
    targets = torch.zeros(logits.shape[:2], dtype=torch.int64)
    logprobs = token_logprobs(logits, targets, temperature, support)
    return Pass(
        logprobs=logprobs, logits=logits, hidden=None, temperature=temperature, support=support
    )


ENTRIES = st.lists(st.lists(st.integers(0, 300), max_size=5), max_size=12)


@given(first=ENTRIES, second=ENTRIES, data=st.data())
@settings(max_examples=60)
def test_kept_behaves_as_a_list_of_lists(
    first: list[list[int]], second: list[list[int]], data: st.DataObject
) -> None:
    kept = Kept(first)
    kept.extend(Kept(second))
    kept.skip(2)
    plain = [*first, *second, [], []]
    assert [list(ids) for ids in kept] == plain
    start = data.draw(st.integers(-15, 30))
    stop = data.draw(st.integers(-15, 30))
    step = data.draw(st.sampled_from([1, 2, -1]))
    assert kept[start:stop:step] == Kept(plain[start:stop:step])
    assert Kept.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    assert kept != Kept([*plain, []])
    with pytest.raises(IndexError):
        _ = kept[len(plain)]


def test_a_cut_off_token_is_out_of_value_and_gradient() -> None:
    # z = ln(1, 3, 4) and the third token cut off. T = 1: p = 1/4, 3/4, so that
    # ln p₀ = −1.386294 and ∂ ln p₀/∂z = (1 − 1/4, −3/4, 0). T = 1/2: z/T = ln(1, 9, 16),
    # p = 1/10, 9/10: ln p₀ = −2.302585, ∂ ln p₀/∂z = (1 − 1/10, −9/10, 0)/T = (1.8, −1.8, 0).
    # Over the whole vocabulary p₀ = 1/8, and the third token would get −1/2.
    support = _support([[[0, 1]]])
    cases = [
        (1.0, support, -1.386294, [0.75, -0.75, 0.0]),
        (0.5, support, -2.302585, [1.8, -1.8, 0.0]),
        (1.0, None, math.log(1 / 8), [0.875, -0.375, -0.5]),
    ]
    for temperature, mask, value, slope in cases:
        logits = torch.tensor([[[1.0, 3.0, 4.0]]]).log().requires_grad_()
        found = token_logprobs(logits, torch.tensor([[0]]), temperature, mask)
        found.sum().backward()
        assert found.item() == pytest.approx(value, abs=1e-6)
        assert logits.grad is not None
        assert logits.grad[0, 0].tolist() == pytest.approx(slope, abs=1e-6)


def test_entropy_and_divergence_are_over_what_could_be_drawn() -> None:
    # p = 1/4, 3/4: H = ln 4 − ¾ ln 3 = 0.562335; q = 1/2, 1/2 for equal logits, so that
    # KL(p‖q) = ¼ ln ½ + ¾ ln 3/2 = 0.130812
    support = _support([[[0, 1]]])
    logits = torch.tensor([[[1.0, 3.0, 4.0]]]).log().requires_grad_()
    other = torch.zeros(1, 1, 3).log_softmax(-1)
    ran, reference = _pass(logits, support), _pass(other, support)
    assert ran.entropy().item() == pytest.approx(0.562335, abs=1e-6)
    divergence = F.full_kl(ran.scaled, reference.scaled, torch.tensor([[True]]))
    assert divergence.item() == pytest.approx(0.130812, abs=1e-6)
    (ran.entropy() + divergence).sum().backward()
    assert logits.grad is not None
    # H + KL(p‖uniform) is ln 2 whatever p is, so that their slopes cancel, and the third has none
    assert logits.grad[0, 0].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert confined(logits, 2.0, support)[0, 0, 2].item() == CUT
    assert F.full_kl(ran.scaled, ran.scaled, torch.tensor([[True]])).item() == 0


def test_a_ratio_within_the_mask_is_one_on_average_and_without_it_the_mass_that_was_left() -> None:
    # p = .5, .3, .2; top-p .8 leaves the first two, drawn with .5/.8 and .3/.8. The ratio of the
    # same weights over the whole vocabulary is .8 for each of them; so it is in the mean.
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(1, 2, 3)
    drawn, targets = torch.tensor([[0.5, 0.3]]) / 0.8, torch.tensor([[0, 1]])
    support = _support([[[0, 1], [0, 1]]])
    for mask, mean in ((support, 1.0), (None, 0.8)):
        ratios = (token_logprobs(logits, targets, 1.0, mask) - drawn.log()).exp()
        assert (drawn * ratios).sum().item() == pytest.approx(mean, abs=1e-6)
    moved = logits + torch.tensor([0.3, -0.2, 0.9])
    ratios = (token_logprobs(moved, targets, 1.0, support) - drawn.log()).exp()
    assert (drawn * ratios).sum().item() == pytest.approx(1.0, abs=1e-6)


@given(
    seed=st.integers(0, 10**6),
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    temperature=st.floats(0.2, 3.0),
    extra=st.integers(0, 3),
)
@settings(max_examples=40)
def test_masked_logprobs_are_those_of_a_masked_softmax_whatever_the_padding(
    seed: int, rows: list[int], temperature: float, extra: int
) -> None:
    generator, size = np.random.default_rng(seed), 7
    width = max(rows) + extra
    logits = torch.from_numpy(generator.normal(size=(len(rows), width, size)))
    kept: list[Kept | None] = []
    tokens = []
    for count in rows:
        drawn = generator.integers(size, size=count)
        sets = [{int(t), *generator.integers(size, size=3).tolist()} for t in drawn]
        limited = generator.random(count) < 0.7
        both = zip(sets, limited, strict=True)
        kept.append(Kept(sorted(one) if cut else [] for one, cut in both))
        tokens.append(drawn.tolist())
    for one in kept:
        assert one is not None
        one.skip(extra)
    batch = pad([[0]] * len(rows), [[*row, *[0] * extra] for row in tokens], kept=kept)
    found = token_logprobs(logits[:, : batch.width], batch.targets, temperature, batch.support)
    for row, ids in enumerate(tokens):
        mine = kept[row]
        assert mine is not None
        for column, token in enumerate(ids):
            scaled = logits[row, column] / temperature
            left = list(mine[column]) or list(range(size))
            expected = scaled[token] - torch.logsumexp(scaled[left], -1)
            assert found[row, column].item() == pytest.approx(expected.item(), abs=1e-9)


def test_a_batch_of_which_nothing_was_cut_off_has_no_support() -> None:
    kept = [Kept([[], []]), None]
    assert pad([[1], [1]], [[5, 6], [7]], kept=kept).support is None
    assert pad([[1], [1]], [[5, 6], [7]]).support is None


# Two tokens of a vocabulary of three: four states, each with three logits.
LOGITS = torch.tensor(
    [[0.9, 0.1, -0.6], [0.2, 0.5, 0.4], [-0.3, 1.1, 0.6], [0.7, -0.2, 0.1]], dtype=torch.float64
)
REWARDS = torch.tensor([[1.0, 0.2, 0.4], [0.0, 0.7, 0.3], [0.9, 0.5, 0.1]], dtype=torch.float64)


def _left(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return what the sampler leaves in each state `[4, 3]`."""
    return log_probabilities(logits, Warp.of([sampling] * 4, CPU)) > -math.inf


def _value(logits: Tensor, sampling: Sampling) -> float:
    """Return E[R] under the truncated policy; the mask follows from the logits."""
    cut = ~_left(logits, sampling)
    p = (logits / sampling.temperature).masked_fill(cut, -math.inf).softmax(-1)
    return float((p[0, :, None] * p[1:] * REWARDS).sum())


def _slopes(sampling: Sampling, step: float = 1e-5) -> Tensor:
    """Differentiate `_value` by central differences."""
    out = torch.zeros_like(LOGITS)
    for at in itertools.product(range(4), range(3)):
        move = torch.zeros_like(LOGITS)
        move[at] = step
        out[at] = (_value(LOGITS + move, sampling) - _value(LOGITS - move, sampling)) / (2 * step)
    return out


def _expected_step(name: str, size: int, sampling: Sampling, *, masked: bool) -> Tensor:
    """Return −E[∇L] over every batch of `size` completions of one prompt."""
    row = algorithm(name, beta=0) if name == "rloo" else algorithm(name)
    left = _left(LOGITS, sampling)
    p = log_probabilities(LOGITS, Warp.of([sampling] * 4, CPU)).double().exp()
    pairs = [
        (a, b) for a, b in itertools.product(range(3), repeat=2) if left[0, a] & left[1 + a, b]
    ]
    mask, scored = torch.ones(size, 2, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
    step = torch.zeros_like(LOGITS)
    for batch in itertools.product(pairs, repeat=size):
        logits = LOGITS.clone().requires_grad_()
        states = torch.tensor([[0, 1 + a] for a, _ in batch])
        kept = [[left[s].nonzero()[:, 0].tolist() for s in row_] for row_ in states]
        support = _support(kept) if masked else None
        targets = torch.tensor(batch)
        logprobs = token_logprobs(logits[states], targets, sampling.temperature, support)
        sampled = p[states].gather(-1, targets[..., None])[..., 0]
        found = advantages(
            row,
            rewards=REWARDS[targets[:, 0], targets[:, 1]],
            scored=scored,
            groups=torch.zeros(size, dtype=torch.int64),
            mask=mask,
            logprobs=sampled.log(),
        )
        loss, _ = policy_loss(
            row,
            logprobs=logprobs,
            old=sampled.log(),
            rollout=sampled.log(),
            advantages=found.values,
            mask=mask,
            denominators=denominators(mask, scored, 2),
        )
        step -= sampled.prod() * torch.autograd.grad(loss, logits)[0]
    return step


@pytest.mark.parametrize(("name", "size"), [("vpg", 1), ("vpg-rtg", 1), ("rloo", 2)])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=2),
        Sampling(top_p=0.7),
        Sampling(min_p=0.5, temperature=0.8),
        Sampling(top_k=2, top_p=0.6, temperature=1.3),
    ],
    ids=["top-k", "top-p", "min-p", "both"],
)
def test_the_expected_gradient_is_that_of_the_truncated_policys_reward(
    name: str, size: int, sampling: Sampling
) -> None:
    # central differences at 1e-5 are exact to 1e-9; the probabilities drawn from are float32
    true = _slopes(sampling)
    assert true.norm() > 0.05
    found = _expected_step(name, size, sampling, masked=True)
    torch.testing.assert_close(found, true, atol=1e-6, rtol=0)
    whole = _expected_step(name, size, sampling, masked=False)
    assert (whole - true).norm() > 0.02


def _table(logits: Tensor, sampling: Sampling, asked: int) -> dict[int, SimpleNamespace]:
    """Return what vLLM lists: the likeliest ids, those that were cut off with −∞."""
    found = log_probabilities(logits[None], Warp.of([sampling], CPU))[0]
    values, ids = found.topk(asked)
    both = zip(ids.tolist(), values.tolist(), strict=True)
    return {token: SimpleNamespace(logprob=value) for token, value in both}


def test_vllms_lists_give_what_the_sampler_left() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(top_k=10, top_p=0.8)
    asked = vllm_masks.shown(sampling, 50)
    left = log_probabilities(logits[None], Warp.of([sampling], CPU))[0] > -math.inf
    table = _table(logits, sampling, asked)
    found = vllm_masks.of_tables([table], sampling, 50)
    assert found is not None
    assert sorted(found[0]) == left.nonzero()[:, 0].tolist()
    assert 0 < len(found[0]) < 10
    wire = [{"token_id": i, "logprob": max(one.logprob, -9999.0)} for i, one in table.items()]
    assert vllm_masks.of_content([{"top_logprobs": wire}], sampling, 50) == found
    assert vllm_masks.of_tables([table], Sampling(), 50) is None


def test_a_list_that_may_be_cut_short_is_refused() -> None:
    sampling = Sampling(top_k=4)
    asked = vllm_masks.shown(sampling, 50)  # 4 · 3/2 + 8
    assert asked == 14
    tied = {token: SimpleNamespace(logprob=-math.log(20)) for token in range(asked)}
    with pytest.raises(ModelError, match=r"more than the 14 tokens.*lower top_k"):
        vllm_masks.of_tables([tied], sampling, 50)
    whole = {token: SimpleNamespace(logprob=-math.log(14)) for token in range(14)}
    found = vllm_masks.of_tables([whole], sampling, 14)
    assert found == Kept([[]])  # the whole vocabulary: nothing was cut off


def test_vllm_needs_a_bound_on_what_is_left() -> None:
    assert vllm_masks.problem(Sampling()) == ""
    assert vllm_masks.problem(Sampling(top_p=0.9, temperature=0.0)) == ""
    assert vllm_masks.problem(Sampling(top_p=0.9, top_k=64)) == ""
    for endless in (Sampling(top_p=0.9), Sampling(min_p=0.1), Sampling(top_k=5000)):
        assert "set top_k beside the others" in vllm_masks.problem(endless)
        assert vllm_masks.shown(endless, 50000) == 0
