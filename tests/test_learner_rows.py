"""Every row of the table through the learner: exact, and with a step that follows its loss."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlvr.agents import Trajectory
from rlvr.rl_core.algorithm_config import AlgorithmConfig, CriticConfig
from rlvr.rl_core.algorithms import COLUMNS, PRESETS, TABLE, algorithm
from rlvr.rl_core.config import OptimizerConfig, TrainConfig
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.monitor import action_space
from rlvr.rl_core.token_records import token_records
from rlvr.verifiers import UsageError

Sample = Callable[..., list[Trajectory]]


def _learner(
    tiny: tuple[Any, Any], name: str, critic: str = "head", tokens: int = 4096, **changes: Any
) -> Learner:
    model = copy.deepcopy(tiny[0]).double()
    reference = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        reference.model.norm.weight.mul_(0.9)
    return Learner(
        model,
        algorithm(name, **changes),
        OptimizerConfig(lr=1e-3, max_grad_norm=1e9, warmup_steps=0, micro_batch_tokens=tokens),
        vocabulary=len(tiny[1]),
        temperature=1.0,
        max_tokens=8,
        reference=reference,
        critic=CriticConfig(critic=critic, critic_lr=1e-3, critic_max_grad_norm=1e9),
    )


def _flat(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.parameters])


def _updated(
    learner: Learner, episodes: list[Trajectory], step: int = 10
) -> tuple[dict[str, float], torch.Tensor]:
    greedy = [float(t.group % 2) for t in episodes]
    return learner.update(episodes, step, greedy=greedy), _flat(learner)


@pytest.mark.parametrize("name", [name for name in TABLE if name not in PRESETS])
def test_a_row_moves_the_weights_the_same_way_however_the_step_is_cut(
    tiny: tuple[Any, Any], sample: Sample, name: str
) -> None:
    episodes = sample(groups=6 if name == "trpo" else 10, size=3)  # its steps take many gradients
    learner = _learner(tiny, name)
    start = _flat(learner)
    metrics, whole = _updated(learner, episodes)
    parts, cut = _updated(_learner(tiny, name, tokens=150), episodes)
    moved = (whole - start).norm()
    assert moved > 0
    # Adam divides by the gradient's own size, so that rounding of a gradient that is 0 is not 0.
    assert (whole - cut).norm() < 1e-3 * moved
    for key in ("loss", "grad_norm"):
        assert parts[key] == pytest.approx(metrics[key], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "critic"),
    [
        *((n, c) for n in ("ppo", "vpg-q", "vpg-td", "vpg-baseline") for c in ("head", "model")),
        ("trpo", "head"),
        pytest.param("trpo", "model", marks=pytest.mark.slow),
    ],
)
def test_a_critic_learns_beside_the_policy(
    tiny: tuple[Any, Any], sample: Sample, name: str, critic: str
) -> None:
    learner, episodes = _learner(tiny, name, critic), sample(groups=6, size=2)
    first, _ = _updated(learner, episodes)
    assert first["value"] == 0.0  # the head begins at 0
    later = [_updated(learner, episodes, step)[0] for step in range(11, 14)]
    assert later[-1]["value_loss"] < first["value_loss"]
    assert later[-1]["value"] != 0.0


def test_the_record_of_a_token_is_the_gradient_of_the_loss(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=3, size=4)
    learner = _learner(tiny, "grpo")
    learner.update(episodes, 0)
    records = token_records(learner, len(episodes), str, 0)
    assert len(records) == len(episodes)
    row, norm = learner.row, 0.0
    for record, episode in zip(records, episodes, strict=True):
        length = episode.length
        assert record["text"] == [str(token) for token in episode.tokens[-length:]]
        told = record["coefficient"]
        coefficients = told if isinstance(told, list) else [told] * length
        # On-policy: ∂L/∂l = (−A + β(1 − e^{−x})) / (B L), with x = l − l_ref and B = 12.
        kl = record["kl"] if isinstance(record["kl"], list) else [record["kl"]] * length
        wanted = torch.tensor(kl).neg().expm1().neg() * row.beta - record["advantage"]
        assert torch.allclose(
            torch.tensor(coefficients), wanted / (12 * length), rtol=1e-3
        )  # 4 digits
        norm += wanted.norm().item()
    assert norm > 0


def test_records_of_several_updates_have_the_denominators_of_their_own(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=4, size=4)
    learner = _learner(tiny, "dr-grpo", updates=2)
    learner.update(episodes, 0)
    records = token_records(learner, 16, str, 0)
    for record in (records[0], records[3]):  # the first update: 8 completions, C = 8, ratio 1
        assert record["coefficient"] == pytest.approx(-record["advantage"] / 64, abs=1e-6)


def test_records_end_where_they_would_fill_the_disk(
    tiny: tuple[Any, Any], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = sample(groups=2, size=4)
    learner = _learner(tiny, "rloo", beta=0)
    learner.update(episodes, 0)
    for most, count in ((1, 1), (sum(t.length for t in episodes[:3]), 3), (8192, 8)):
        monkeypatch.setattr("rlvr.rl_core.token_records.RECORDED", most)
        assert len(token_records(learner, 16, str, 0)) == count


def test_diagnostics_measure_where_the_mass_lies(tiny: tuple[Any, Any], sample: Sample) -> None:
    learner, episodes = _learner(tiny, "rloo", beta=0), sample(groups=2, size=4)
    metrics = learner.update(episodes, 0)
    assert metrics["rollout_k3"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["weight_effective"] == pytest.approx(1.0, abs=1e-6)
    found = action_space(learner, 4)
    assert 0 < found["top1/1"] < found["top8/1"] < found["top64/1"] < 1


def test_episodes_of_an_older_policy_leave_the_loss(tiny: tuple[Any, Any], sample: Sample) -> None:
    episodes = sample(groups=4, size=4)
    for t in episodes:
        t.version = 5
        version = 5 if t.group < 2 else 2  # an episode is as old as its oldest token
        t.turns = [dataclasses.replace(turn, version=version) for turn in t.turns]
    learner = _learner(tiny, "dr-grpo", max_staleness=1)
    metrics = learner.update(episodes, 0, version=6)
    assert metrics["trained"] == 0.5
    _, expected = _updated(_learner(tiny, "dr-grpo"), episodes[:8], 0)
    assert torch.allclose(_flat(learner), expected, atol=1e-7)


def test_the_samplers_log_probabilities_weigh_the_tokens(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=2, size=4)
    off = copy.deepcopy(episodes)
    for t in off:  # the sampler held every token for 4 times as likely as the learner does
        t.logprobs = [p + 1.3863 * m for p, m in zip(t.logprobs, t.trained, strict=True)]
    plain = _learner(tiny, "dr-grpo").update(episodes, 0)
    weighed = _learner(tiny, "dr-grpo", mismatch="tis_token").update(off, 0)
    assert weighed["mismatch_weight"] == pytest.approx(0.25, abs=1e-3)
    assert weighed["grad_norm"] == pytest.approx(0.25 * plain["grad_norm"], rel=1e-3)


def test_beta_follows_the_divergence_and_is_kept(tiny: tuple[Any, Any], sample: Sample) -> None:
    episodes = sample(groups=4, size=4)
    learner = _learner(tiny, "rloo", beta=0.1)
    learner.kl_target, learner.kl_horizon = 1e-9, 32
    learner.update(episodes, 0)
    # KL is far above its target: 0.1 (1 + 0.2 · 16/32) = 0.11
    sign = 0.11 if learner.last is not None and (learner.last.found.kl or 0) > 1e-9 else 0.09
    assert learner.beta == pytest.approx(sign)
    other = _learner(tiny, "rloo", beta=0.1)
    other.load(learner.state())
    assert other.beta == learner.beta
    assert other.update(episodes, 1)["loss"] != learner.update(episodes[:8], 1)["loss"]


@pytest.mark.parametrize(("name", "words"), [("remax", "greedy="), ("ppo", "values=")])
def test_what_a_row_reads_and_was_not_given_is_asked_for(
    tiny: tuple[Any, Any], sample: Sample, name: str, words: str
) -> None:
    learner = _learner(tiny, name, "rollouts")
    with pytest.raises(UsageError, match=words):
        learner.update(sample(groups=2, size=2), 0)


def test_a_group_whose_greedy_completion_is_unscored_does_not_train(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=4, size=4)
    greedy = [float("nan") if t.group == 3 else 0.0 for t in episodes]
    learner = _learner(tiny, "remax")
    learner.update(episodes, 0, greedy=greedy)
    alone = _learner(tiny, "remax")
    alone.update(episodes[:12], 0, greedy=greedy[:12])
    assert torch.equal(_flat(learner), _flat(alone))


def test_values_that_were_given_take_the_critics_place(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=2, size=3)
    values = [[0.25] * t.length for t in episodes]
    learner = _learner(tiny, "vpg-advantage", "rollouts", lam=1.0)
    metrics = learner.update(episodes, 0, values=values)
    assert learner.critic is None
    assert metrics["value"] == 0.25
    found = learner.last
    assert found is not None
    for row, t in enumerate(episodes):  # λ = γ = 1: A = R − V
        wanted = torch.full((t.length,), t.reward - 0.25)
        assert torch.allclose(found.found.values[row, : t.length], wanted, atol=1e-6)


def test_a_joint_value_loss_moves_the_trunk_and_a_weight_of_zero_does_not(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=3, size=2)
    for t in episodes:
        t.reward = 0.0
    moved = {}
    for weight in (0.0, 0.5):
        learner = _learner(tiny, "vpg-advantage", value_coef=weight, entropy_bonus=0.0)
        assert learner.critic is not None
        with torch.no_grad():
            learner.critic.head.weight.fill_(0.1)
        learner.row = dataclasses.replace(learner.row, psi="rtg", baseline="none")
        start = _flat(learner)
        learner.update(episodes, 0)
        moved[weight] = float((_flat(learner) - start).norm())
    assert moved[0.0] == 0.0
    assert moved[0.5] > 0.0


def test_the_policy_waits_while_the_critic_warms_up(tiny: tuple[Any, Any], sample: Sample) -> None:
    learner, episodes = _learner(tiny, "ppo"), sample(groups=4, size=2)
    learner.critic_config = CriticConfig(critic_warmup_steps=2)
    start = _flat(learner)
    losses = [learner.update(episodes, step)["value_loss"] for step in range(2)]
    assert torch.equal(start, _flat(learner))
    assert losses[1] < losses[0]
    learner.update(episodes, 2)
    assert not torch.equal(start, _flat(learner))


def test_completions_that_ran_out_of_length_leave_the_loss_and_not_the_baseline(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=2, size=4)
    for i, t in enumerate(episodes):
        t.reward, t.truncated = float(i % 4 == 0), i % 4 == 0
    learner = _learner(tiny, "dapo", updates=1, scale="none")
    metrics = learner.update(episodes, 0)
    assert metrics["trained"] == 0.75
    assert learner.last is not None
    found = learner.last.found
    assert not found.mask[0].any()
    assert not found.mask[4].any()
    assert found.values[1, 0].item() == -0.25  # 0 less the mean of 1, 0, 0, 0


def test_the_soft_length_penalty_is_part_of_the_reward(
    tiny: tuple[Any, Any], sample: Sample
) -> None:
    episodes = sample(groups=2, size=4)
    for t in episodes:
        t.reward = 0.0
    learner = _learner(tiny, "dr-grpo", overlong_buffer=4)  # C = 8: free up to 4 tokens
    learner.update(episodes, 0)
    assert learner.last is not None
    wanted = [min(0.0, (4 - t.length) / 4) for t in episodes]
    assert min(wanted) < 0
    assert learner.last.found.rewards.tolist() == pytest.approx(wanted)


def test_every_column_of_a_row_can_be_set_in_a_configuration() -> None:
    fields = {field.name for field in dataclasses.fields(AlgorithmConfig)}
    assert set(COLUMNS) - fields == {"updates"}  # this one is `updates_per_step`
    config = TrainConfig.of(algorithm="ppo", epochs=2, updates_per_step=4, value_clip=0.5)
    assert (config.algorithm.row().epochs, config.updates) == (2, 4)
    assert TrainConfig.of(algorithm="gspo").updates == algorithm("gspo").updates == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm": "vpg", "epochs": 2}, "epochs=2 would be biased"),
        ({"algorithm": "dapo", "prompts_per_step": 8}, "of dapo"),
        ({"kl_target": -1.0}, "kl_target"),
        ({"kl_horizon": 0.0}, "kl_horizon"),
        ({"overlong_buffer": 300}, "overlong_buffer=300"),
        ({"critic": "valuehead"}, "critic 'valuehead'"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_way_out(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        TrainConfig.of(**settings)
