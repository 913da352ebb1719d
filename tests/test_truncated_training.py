"""Training on truncated samples, end to end: rollouts, batches, every pass of the learner."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from envs_harness import Asking

from rlvr.agents import Completion, Episode, Sampling, Trajectory, TransformersPolicy, rollout
from rlvr.agents.decoding import Decoding
from rlvr.agents.kept import Kept
from rlvr.envs import PromptEnv
from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.batch import collate
from rlvr.rl_core.collection import Collected
from rlvr.rl_core.config import OptimizerConfig, TrainConfig
from rlvr.rl_core.held_out import HeldOut
from rlvr.rl_core.learner import Learner
from rlvr.rl_core.token_records import token_records
from rlvr.verifiers import Task, UsageError, verifier

CUTS = {
    "top-p": {"top_p": 0.7},
    "top-k": {"top_k": 5},
    "min-p": {"min_p": 0.1},
    "all": {"top_p": 0.9, "top_k": 20, "min_p": 0.02, "temperature": 0.8},
}


@verifier
def even(completion: str, truth: str) -> bool:
    return len(completion) % 2 == 0


def _peaked(tiny: tuple[Any, Any]) -> Any:
    """A model whose distributions are uneven, so that every cut leaves several ids and not all."""
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.model.norm.weight.mul_(2.0)
    return model


@pytest.fixture(scope="module")
def model(tiny: tuple[Any, Any]) -> Any:
    return _peaked(tiny)


def _draw(tiny: tuple[Any, Any], model: Any, **cut: Any) -> list[Trajectory]:
    """Roll out 12 episodes of 3 prompts; rewards differ within groups."""
    tasks = [Task(id=str(i), prompt="say " + "x" * (3 * i), truth="") for i in range(3)]
    episodes = [
        Episode(env=PromptEnv(tasks, even), seed=i, index=i // 4, group=i // 4) for i in range(12)
    ]
    policy = TransformersPolicy(model, tiny[1], check=False)
    found = rollout(episodes, policy, Sampling(**{"max_tokens": 10, **cut}))
    for i, trajectory in enumerate(found):
        keep = trajectory.turns[0].start + 2 + i % 9
        for name in ("tokens", "trained", "logprobs", "kept"):
            value = getattr(trajectory, name)
            setattr(trajectory, name, None if value is None else value[:keep])
        trajectory.reward = float(i % 3 == 0)
    return found


@pytest.fixture(scope="module")
def sampled(tiny: tuple[Any, Any], model: Any) -> Callable[[str], list[Trajectory]]:
    """Episodes by the name of a cut, drawn once."""
    drawn = {name: _draw(tiny, model, **cut) for name, cut in CUTS.items()}
    return drawn.__getitem__


def _learner(
    tiny: tuple[Any, Any], model: Any, name: str, temperature: float = 1.0, **config: Any
) -> Learner:
    changes = config.pop("changes", {})
    row = algorithm(name, **changes)
    return Learner(
        copy.deepcopy(model),
        row,
        OptimizerConfig(lr=1e-2, max_grad_norm=1e9, **config),
        vocabulary=len(tiny[1]),
        temperature=temperature,
        max_tokens=10,
        reference=copy.deepcopy(model) if row.needs_reference else None,
    )


@pytest.mark.parametrize("name", CUTS)
def test_recorded_logprobs_are_the_learners(
    tiny: tuple[Any, Any], model: Any, sampled: Callable[[str], list[Trajectory]], name: str
) -> None:
    found, temperature = sampled(name), CUTS[name].get("temperature", 1.0)
    batch = collate(found)
    assert batch.kept is not None
    counts = [len(ids) for kept in batch.kept if kept for ids in kept]
    assert 1 < sum(counts) / len(counts) < len(tiny[1]) / 2
    learner = _learner(tiny, model, "grpo", temperature, changes={"beta": 0.1})
    own, theirs = learner.logprobs(batch), learner.logprobs(batch, learner.reference)
    assert (own - batch.logprobs).abs().max() < 1e-5
    assert torch.equal(own, theirs)
    metrics = learner.update(found, 0)
    assert metrics["mismatch"] < 1e-5
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    blind = [copy.copy(trajectory) for trajectory in found]
    for trajectory in blind:
        trajectory.kept = None
    gap = _learner(tiny, model, "grpo", temperature, changes={"beta": 0}).update(blind, 0)
    assert gap["mismatch"] > 0.05


def test_rows_that_join_and_leave_keep_what_could_be_drawn_of_their_own(
    tiny: tuple[Any, Any], model: Any
) -> None:
    policy = TransformersPolicy(model, tiny[1], check=False)
    prompts = [[3, *range(70, 72 + i), 4] for i in range(6)]
    cuts = [{"top_k": 5}, {}, {"top_p": 0.6}, {"top_k": 5, "temperature": 0.0}, {"min_p": 0.2}, {}]
    samplings = [Sampling(max_tokens=2 + i, seed=i, **cut) for i, cut in enumerate(cuts)]
    rows: Decoding[int] = Decoding(policy)
    out: dict[int, Completion] = {}
    with torch.inference_mode():
        rows.join([0, 1, 2, 3], prompts[:4], samplings[:4])
        out |= rows.step() + rows.step() + rows.step()
        rows.join([4, 5], prompts[4:], samplings[4:])
        while len(rows):
            out |= rows.step()
    assert [out[i].kept is not None for i in range(6)] == [True, False, True, False, True, False]
    for i in (0, 1, 2, 4, 5):
        found = out[i]
        (full,) = policy.logprobs([prompts[i]], [found.tokens], 1.0, [found.kept])
        assert len(found.kept or found.tokens) == len(found.tokens)
        assert found.logprobs == pytest.approx(full.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["grpo", "vpg-rtg", "dpo"])
@pytest.mark.parametrize("tokens", [1, 60])
def test_how_a_step_is_cut_up_does_not_change_the_update(
    tiny: tuple[Any, Any],
    model: Any,
    sampled: Callable[[str], list[Trajectory]],
    name: str,
    tokens: int,
) -> None:
    exact = copy.deepcopy(model).double()
    whole = _learner(tiny, exact, name)
    parts = _learner(tiny, exact, name, micro_batch_tokens=tokens)
    assert whole.update(sampled("all"), 10)["grad_norm"] > 0
    parts.update(sampled("all"), 10)
    for mine, theirs in zip(whole.parameters, parts.parameters, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-10)  # pyright: ignore


def test_a_truncated_update_does_not_touch_what_could_not_be_drawn(
    tiny: tuple[Any, Any], model: Any, sampled: Callable[[str], list[Trajectory]]
) -> None:
    learner = _learner(tiny, model, "grpo", changes={"beta": 0.1, "entropy_bonus": 0.01})
    slopes: list[torch.Tensor] = []

    def note(module: Any, inputs: Any, logits: torch.Tensor) -> None:
        logits.register_hook(slopes.append)

    learner.model.get_output_embeddings().register_forward_hook(note)
    learner.update(sampled("top-k")[:4], 0)
    union = torch.zeros(slopes[0].shape[-1], dtype=torch.bool)
    for trajectory in sampled("top-k")[:4]:
        assert trajectory.kept is not None
        assert {len(ids) for ids in trajectory.kept} == {0, 5}
        union[torch.tensor(trajectory.kept.ids.tolist())] = True
    assert 5 < int(union.sum()) < len(union)
    assert slopes[0][..., union].abs().max() > 0
    assert slopes[0][..., ~union].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("trpo", {}),
        ("grpo", {"kl_estimator": "full", "beta": 0.1}),
        ("grpo", {"entropy_bonus": 0.01, "beta": 0}),
    ],
)
def test_what_reads_the_whole_distribution_reads_what_was_left(
    tiny: tuple[Any, Any],
    model: Any,
    sampled: Callable[[str], list[Trajectory]],
    name: str,
    changes: dict[str, Any],
) -> None:
    learner = _learner(tiny, model, name, changes=changes)
    before = [parameter.detach().clone() for parameter in learner.parameters]
    metrics = learner.update(sampled("top-p"), 0)
    assert all(value == value for value in metrics.values())
    moved = zip(learner.parameters, before, strict=True)
    assert any(not torch.equal(now, then) for now, then in moved)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in learner.parameters)
    if name == "trpo":
        assert 0 < metrics["natural/kl"] <= learner.row.kl_limit
        assert metrics["natural/gain"] > 0
    entropies = learner.entropies(collate(sampled("top-k")))
    assert float(entropies.max()) <= torch.tensor(5.0).log() + 1e-5


def test_records_of_tokens_show_ratios_of_one(
    tiny: tuple[Any, Any], model: Any, sampled: Callable[[str], list[Trajectory]]
) -> None:
    learner = _learner(tiny, model, "grpo", changes={"beta": 0.1})
    learner.update(sampled("all"), 0)
    records = token_records(learner, 4, str, 0)
    assert [record["ratio"] for record in records] == [1] * 4


@pytest.fixture(scope="module")
def turns(tiny: tuple[Any, Any], model: Any) -> list[Trajectory]:
    """Episodes of three turns."""
    policy = TransformersPolicy(model, tiny[1], check=False)
    episodes = [Episode(env=Asking(), seed=i, group=i // 2) for i in range(4)]
    return rollout(episodes, policy, Sampling(max_tokens=5, top_k=5, top_p=0.9))


def test_every_sampled_token_of_an_episode_of_several_turns_has_what_could_be_drawn(
    tiny: tuple[Any, Any], model: Any, turns: list[Trajectory]
) -> None:
    for trajectory in turns:
        assert trajectory.kept is not None
        assert len(trajectory.kept) == len(trajectory.tokens)
        assert len(trajectory.turns) == 3
        every = zip(trajectory.tokens, trajectory.trained, trajectory.kept, strict=True)
        for token, mine, ids in every:
            assert (token in ids and 1 <= len(ids) <= 5) if mine else not len(ids)
    batch = collate(turns)
    own = _learner(tiny, model, "vpg").logprobs(batch)
    assert (own - batch.logprobs).abs().max() < 1e-5


def test_episodes_in_a_checkpoint_keep_what_could_be_drawn(turns: list[Trajectory]) -> None:
    text = json.dumps(Collected(trajectories=turns, drawn=turns[:2]).to_json())
    back = Collected.from_json(json.loads(text))
    assert back.trajectories == turns
    assert back.drawn[0].kept == turns[0].kept


def test_batches_of_cut_off_and_whole_episodes_go_together(
    tiny: tuple[Any, Any], model: Any, turns: list[Trajectory]
) -> None:
    whole = _draw(tiny, model)
    assert all(trajectory.kept is None for trajectory in whole)
    assert collate(whole).kept is None
    both = [*whole, *turns]
    batch = collate(both)
    own = _learner(tiny, model, "vpg").logprobs(batch)
    assert (own - batch.logprobs).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, at: ids[:-1], "and has"),
        (lambda ids, at: [*ids[:at], [], *ids[at:]], "one entry for each"),
        (lambda ids, at: [*ids[:at], [299], *ids[at + 1 :]], "not once among the 1 ids"),
        (lambda ids, at: [*ids[:at], [*ids[at], *ids[at]], *ids[at + 1 :]], "not once among"),
    ],
)
def test_a_token_that_could_not_be_drawn_is_refused(
    turns: list[Trajectory], change: Callable[[list[Any], int], Any], message: str
) -> None:
    broken = copy.copy(turns[0])
    assert broken.kept is not None
    broken.kept = Kept(change(list(broken.kept), broken.turns[1].start))
    with pytest.raises(UsageError, match=message):
        collate([broken])


@pytest.mark.parametrize("setting", [{"top_p": 0.0}, {"top_k": 1}, {"top_k": -1}, {"min_p": 1.0}])
def test_a_cut_that_leaves_nothing_to_learn_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        TrainConfig.of(**setting)


def test_training_cuts_off_and_evaluation_does_not(tiny: tuple[Any, Any]) -> None:
    config = TrainConfig.of(top_p=0.8, top_k=40, min_p=0.05, temperature=0.7, eval_temperature=0.3)
    sampling = config.rollout.sampling()
    assert (sampling.top_p, sampling.top_k, sampling.min_p) == (0.8, 40, 0.05)
    run: Any = None
    held = HeldOut(config, run, [], None, sampling, print)
    assert not held.sampling.truncated
    assert held.sampling.temperature == 0.3
