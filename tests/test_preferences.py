"""Training on pairs: which completions are paired, and that the step is that of the formula."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlvr.agents import Trajectory
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import collate
from rlvr.rl_core.config import OptimizerConfig
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.preferences import divided

Sample = Callable[..., list[Trajectory]]


def _learner(
    tiny: tuple[Any, Any], name: str = "dpo", tokens: int = 4096, lr: float = 1e-3, **row: Any
) -> Learner:
    model = copy.deepcopy(tiny[0]).double()
    return Learner(
        model,
        algorithm(name, **row),
        OptimizerConfig(lr=lr, max_grad_norm=1e9, warmup_steps=0, micro_batch_tokens=tokens),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=8,
        reference=copy.deepcopy(model).requires_grad_(False),
    )


def _gradient(learner: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in learner.parameters if p.grad is not None])


def _sum_of_logprobs(model: Any, episode: Trajectory) -> torch.Tensor:
    start = episode.turns[0].start
    logits = model(input_ids=torch.tensor([episode.tokens])).logits[0, start - 1 : -1]
    targets = torch.tensor(episode.tokens[start:])[:, None]
    return torch.log_softmax(logits, -1).gather(1, targets).sum()


@pytest.mark.parametrize("tokens", [1, 80, 4096])
@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_a_step_is_that_of_the_formula_however_it_is_cut(
    tiny: tuple[Any, Any], sample: Sample, name: str, tokens: int
) -> None:
    episodes = sample(groups=6, size=4)
    for t in episodes[-4:]:
        t.reward = 1.0  # this group makes no pair
    learner = _learner(tiny, name, tokens)
    model = copy.deepcopy(learner.model)
    pairs = []
    for g in range(6):
        group = [t for t in episodes if t.group == g]
        best, worst = (f(group, key=lambda t: t.reward) for f in (max, min))
        if best.reward > worst.reward:
            pairs.append((best, worst))
    assert 1 < len(pairs) < 6
    losses = []
    for best, worst in pairs:  # at the start l = l_ref: d = 0, with the gradient of the policy's l
        better, worse = _sum_of_logprobs(model, best), _sum_of_logprobs(model, worst)
        if name == "ipo":
            better, worse = better / best.length, worse / worst.length
        d = better - better.detach() - (worse - worse.detach())
        beta = learner.row.beta
        losses.append((d - 0.5 / beta) ** 2 if name == "ipo" else -torch.nn.functional.logsigmoid(
            beta * d))  # fmt: skip
    loss = torch.stack(losses).mean()
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    metrics = learner.update(episodes, 0)
    assert torch.allclose(_gradient(learner), wanted, atol=1e-5 * float(wanted.abs().max()))
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert metrics["pairs"] == len(pairs)
    assert metrics["dead_groups"] == pytest.approx(1 - len(pairs) / 6)
    if name == "dpo":
        assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_better_completion_gains_on_the_worse_one(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    learner, episodes = _learner(tiny, beta=0.5), sample(groups=6, size=4)
    margins = [learner.update(episodes, step)["margin"] for step in range(5)]
    assert margins[0] == pytest.approx(0.0, abs=1e-6)
    assert margins[-1] > 0.1


def test_equal_or_unscored_groups_make_no_pair_and_no_step(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=2, size=3)
    for t in episodes:
        t.reward = 1.0
    episodes[0].scored, episodes[0].reward = False, math.nan
    learner = _learner(tiny)
    start = copy.deepcopy(learner.model.state_dict())
    metrics = learner.update(episodes, 0)
    assert (metrics["pairs"], metrics["dead_groups"], metrics["loss"]) == (0.0, 1.0, 0.0)
    assert all(torch.equal(v, start[n]) for n, v in learner.model.state_dict().items())


def test_several_passes_and_updates_share_the_pairs(tiny: tuple[Any, Any], sample: Sample) -> None:
    learner = _learner(tiny, epochs=2, updates=2)
    steps: list[int] = []
    step = learner.optimizer.step
    learner.optimizer.step = lambda *a: (steps.append(1), step(*a))[1]  # type: ignore
    learner.update(sample(groups=6, size=4), 0)
    assert len(steps) == 4


def test_pairs_are_divided_whole_and_keep_to_their_size(sample: Sample) -> None:
    batch = collate(sample(groups=6, size=2))
    pairs = [(2 * i, 2 * i + 1) for i in range(6)]
    for tokens in (1, 80, 10_000):
        parts = divided(batch, pairs, tokens)
        assert sorted(pair for part in parts for pair in part) == pairs
        for part in parts:
            rows = [row for pair in part for row in pair]
            wide = max(len(batch.prompts[r]) for r in rows)
            wide += max(len(batch.continuations[r]) for r in rows)
            assert len(part) == 1 or len(rows) * wide <= tokens
