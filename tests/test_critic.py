"""The critic: its loss, what it may look at, and values by rollouts."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rlvr.agents import Episode, Sampling, Trajectory, TransformersPolicy, rollout
from rlvr.envs import PromptEnv
from rlvr.rl_core.algorithm_config import CriticConfig
from rlvr.rl_core.batch import collate
from rlvr.rl_core.branches import Branches
from rlvr.rl_core.config import TrainConfig
from rlvr.rl_core.critic import Critic
from rlvr.rl_core.functional.values import value_loss
from rlvr.rl_core.sources import Prompt, Source
from rlvr.verifiers import Task, TrainingStopped, UsageError, Verdict, verifier

Sample = Callable[..., list[Trajectory]]


def _loss(value: float, old: float, target: float, clip: float) -> tuple[float, float]:
    """Value and slope of one token's loss."""
    v = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    terms = value_loss(
        v,
        torch.tensor([[target]], dtype=torch.float64),
        torch.tensor([[True]]),
        old=torch.tensor([[old]], dtype=torch.float64),
        clip=clip,
    )
    (slope,) = torch.autograd.grad(terms.sum(), v)
    return float(terms.detach()), float(slope)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope"),
    [
        (0.5, 0.0, 1.0, 0.0, 0.125, -0.5),  # ½ · 0.5², V − G
        (0.5, 0.0, 1.0, 0.2, 0.32, 0.0),  # held at 0.2: ½ · 0.8², beyond the range
        (0.1, 0.0, 1.0, 0.2, 0.405, -0.9),  # inside the range: ½ · 0.9²
        (-0.5, 0.0, 1.0, 0.2, 1.125, -1.5),  # out the wrong way: ½ · 1.5², free to return
        (1.5, 1.0, 0.0, 0.2, 1.125, 1.5),  # likewise: held it would be ½ · 1.2²
    ],
)
def test_the_loss_holds_a_value_back_only_on_its_way_to_the_target(
    value: float, old: float, target: float, clip: float, loss: float, slope: float
) -> None:
    found = _loss(value, old, target, clip)
    assert found == (pytest.approx(loss), pytest.approx(slope))


def test_what_stands_outside_the_mask_is_never_read() -> None:
    mask = torch.tensor([[True, False]])
    bad = torch.tensor([[0.5, math.nan]])
    terms = value_loss(bad, bad + 1, mask, old=bad, clip=0.2)
    assert torch.equal(terms[:, 1], torch.zeros(1))
    assert float(terms[0, 0]) == 0.5
    with pytest.raises(ValueError, match="old"):
        value_loss(bad, bad, mask, clip=0.2)
    with pytest.raises(ValueError, match="finite"):
        value_loss(torch.tensor([[math.inf]]), torch.zeros(1, 1), torch.tensor([[True]]))


@pytest.mark.parametrize("kind", ["head", "model"])
def test_a_value_is_of_what_came_before_its_token(
    tiny: tuple[Any, Any], sample: Sample, kind: str
) -> None:
    critic = Critic(CriticConfig(critic=kind), copy.deepcopy(tiny[0]).double(), value_clip=0.0)
    assert not critic.values(collate(sample(2, 2)), 4096).any()  # a new head says 0
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    (episode,) = sample(1, 1, longest=8, seed=3)
    place = episode.turns[0].start + 1
    before = critic.values(collate([episode]), 4096)[0]
    episode.tokens[place] += 1
    after = critic.values(collate([episode]), 4096)[0]
    assert torch.equal(before[:2], after[:2])
    assert episode.length > 2
    assert not torch.allclose(before[2:], after[2:])


@pytest.mark.parametrize("kind", ["head", "model"])
def test_a_critic_fits_returns_and_keeps_its_hands_off_the_policy(
    tiny: tuple[Any, Any], sample: Sample, kind: str
) -> None:
    model = copy.deepcopy(tiny[0])
    start = copy.deepcopy(model.state_dict())
    critic = Critic(CriticConfig(critic=kind, critic_lr=1e-2), model, value_clip=0.0)
    batch = collate(sample(4, 2))
    returns = batch.rewards[:, None].expand(batch.mask.shape)
    old = critic.values(batch, 4096)
    losses = [
        critic.fit(batch, range(8), returns=returns, old=old, mask=batch.mask, tokens=60)
        for _ in range(30)
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert losses[0] == pytest.approx(0.5 * float(returns[batch.mask].square().mean()), rel=1e-5)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_critic_continues_from_its_state(tiny: tuple[Any, Any], sample: Sample) -> None:
    batch = collate(sample(3, 2))
    returns = batch.rewards[:, None].expand(batch.mask.shape)
    config = CriticConfig(critic="model", critic_lr=1e-2)
    critic, other = (Critic(config, copy.deepcopy(tiny[0]), value_clip=0.2) for _ in range(2))

    def fit(one: Critic) -> float:
        old = one.values(batch, 4096)
        return one.fit(batch, range(6), returns=returns, old=old, mask=batch.mask, tokens=4096)

    fit(critic)
    other.load(copy.deepcopy(critic.state()))
    assert [fit(critic) for _ in range(2)] == [fit(other) for _ in range(2)]


def test_an_infinite_gradient_stops_training(tiny: tuple[Any, Any], sample: Sample) -> None:
    critic = Critic(CriticConfig(), copy.deepcopy(tiny[0]), value_clip=0.0)
    batch = collate(sample(2, 2))
    with torch.no_grad():
        critic.head.bias.fill_(1e30)
    returns = torch.zeros(batch.mask.shape)
    with pytest.raises(TrainingStopped, match="critic_lr"):
        critic.fit(batch, range(4), returns=returns, old=returns, mask=batch.mask, tokens=4096)


def test_a_mask_of_nothing_takes_no_step(tiny: tuple[Any, Any], sample: Sample) -> None:
    critic = Critic(CriticConfig(), copy.deepcopy(tiny[0]), value_clip=0.0)
    batch = collate(sample(2, 2))
    zero = torch.zeros(batch.mask.shape)
    nothing = torch.zeros_like(batch.mask)
    assert critic.fit(batch, range(4), returns=zero, old=zero, mask=nothing, tokens=99) == 0.0
    assert not critic.weights.optimizer.state


@verifier
def share_of_as(completion: str, truth: str) -> float:
    return completion.count("a") / 4


@verifier
def none(completion: str, truth: str) -> Verdict:
    return Verdict.error("off")


class _Coin(TransformersPolicy):
    """Writes `a` or `b`, each with chance ½, four times."""

    def __init__(self, tiny: tuple[Any, Any]) -> None:
        super().__init__(*tiny, check=False)
        self.letters = [self.tokenizer("a")["input_ids"][0], self.tokenizer("b")["input_ids"][0]]

    def generate_batch(self, prompts: Any, samplings: Any) -> Any:
        from rlvr.agents.types import Completion, StopReason

        out = []
        for sampling in samplings:
            rng = np.random.default_rng(sampling.seed)
            tokens = [self.letters[i] for i in rng.integers(2, size=sampling.max_tokens)]
            logprobs = [math.log(0.5)] * len(tokens)
            out.append(Completion(tokens=tokens, logprobs=logprobs, stop_reason=StopReason.LENGTH))
        return out


def _branched(
    tiny: tuple[Any, Any], judge: Any = share_of_as, **config: Any
) -> tuple[list[Trajectory], list[list[float]], int]:
    policy, sampling = _Coin(tiny), Sampling(max_tokens=4)
    tasks = [Task(id="t", prompt="write", truth="")]
    source = Source("e", lambda: PromptEnv(tasks, judge), 1.0)
    episodes = [Episode(env=PromptEnv(tasks, judge), seed=i, index=0) for i in range(2)]
    found = rollout(episodes, policy, sampling)
    branches = Branches(CriticConfig(critic="rollouts", **config), [source], policy, sampling)
    values, drawn = branches.values(found, [Prompt(source=0, index=0, env_seed=0)], [1, 2], {})
    return found, values, drawn


def test_values_by_rollouts_are_what_is_still_to_be_expected(tiny: tuple[Any, Any]) -> None:
    found, values, drawn = _branched(tiny, value_rollouts=400)
    for trajectory, row in zip(found, values, strict=True):
        text = trajectory.completion
        # V(s_t) = (a's so far + ½ of the letters to come)/4; standard error at most ½/√(4·400)
        wanted = [(text[:t].count("a") + (4 - t) / 2) / 4 for t in range(4)]
        assert row == pytest.approx(wanted, abs=5 * 0.0125)
    assert values[0][0] == values[1][0]  # one state, one estimate
    shared = len({(t.completion[:k]) for t in found for k in range(4)})
    assert drawn <= shared * 400 * 4


def test_one_value_stands_until_the_next_place(tiny: tuple[Any, Any]) -> None:
    _, values, _ = _branched(tiny, value_rollouts=3, value_every=2)
    for row in values:
        assert row[0] == row[1]
        assert row[2] == row[3]


def test_values_are_the_same_at_every_call_and_unknown_where_nothing_is_scored(
    tiny: tuple[Any, Any],
) -> None:
    assert _branched(tiny)[1] == _branched(tiny)[1]
    assert all(math.isnan(value) for row in _branched(tiny, none)[1] for value in row)


def test_settings_of_a_critic_are_checked() -> None:
    with pytest.raises(UsageError, match="critic 'heads'"):
        CriticConfig(critic="heads")
    for name in ("critic_lr", "critic_max_grad_norm", "value_rollouts", "value_every"):
        with pytest.raises(UsageError, match=name):
            CriticConfig(**dict[str, Any]({name: 0}))
    ppo: dict[str, Any] = {"algorithm": "ppo", "critic": "rollouts"}
    with pytest.raises(UsageError, match="value_every=2"):
        TrainConfig.of(**ppo, value_every=2)
    assert TrainConfig.of(**ppo, value_every=2, lam=1.0).critic.value_every == 2
    with pytest.raises(UsageError, match="warm up"):
        TrainConfig.of(**ppo, critic_warmup_steps=2)
