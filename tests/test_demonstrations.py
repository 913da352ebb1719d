"""Demonstrations of several turns, and training and evaluation on whole conversations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_harness import lines

from rlvr.agents.embedded import EmbeddedConfig, build, byte_tokenizer
from rlvr.agents.rollouts import Episode, rollout
from rlvr.agents.scripted import ScriptedPolicy
from rlvr.agents.transformers_policy import TransformersPolicy
from rlvr.agents.types import Sampling
from rlvr.envs import DialogueEnv, Reply, make
from rlvr.envs.tasks.guess_number import GuessNumberEnv
from rlvr.rl_core import TrainConfig, demonstrations, train
from rlvr.rl_core.batch import collate
from rlvr.rl_core.cli import main
from rlvr.rl_core.demonstrations import Demonstration, mistaken, play_demonstrations
from rlvr.rl_core.evaluation import evaluate
from rlvr.rl_core.report import conversation
from rlvr.rl_core.sources import Source, open_sources
from rlvr.rl_core.warm_start import (
    WarmStart,
    _Encoder,  # pyright: ignore[reportPrivateUsage]
    drawn_from,
    embedded_for,
    imitate,
)
from rlvr.verifiers import Task, TaskError, UsageError, Verdict, verifier

pytestmark = pytest.mark.usefixtures("short_runs")
TOOLS = Path(__file__).parent.parent / "examples" / "tools.toml"
GAME = "rlvr/GuessNumber-v0 numbers=7 high=99"
PPO = {
    "algorithm": "ppo",
    "lam": 1.0,
    "critic_lr": 3e-3,
    "lr": 2e-4,
    "prompts_per_step": 192,
    "steps": 40,
}
"""What the header of the example gives for PPO."""


def _solved(shown: Demonstration) -> bool:
    return len(shown.actions) > 0 and shown.said[-1] == []


def test_the_share_without_a_mistake_is_as_set() -> None:
    sources = open_sources([GAME])
    right = play_demonstrations(sources, 1.0, count=60)
    assert all(_solved(one) for one in right)
    # halving 7 numbers: the first guess is the middle one
    for one in right:
        low, high = (int(word.strip(".")) for word in one.opening[0]["content"].split()[8:11:2])
        assert one.actions[0] == str((low + high) // 2)
    mixed = play_demonstrations(sources, 0.3, count=400)
    middle = 0
    for one in mixed:
        words = one.opening[0]["content"].split()
        middle += one.actions[0] == str((int(words[8]) + int(words[10].strip("."))) // 2)
    # the middle number is the first guess without a mistake: by turns K = 1, 2, 3 of the solution
    # (1, 2 and 4 of 7 numbers) in 0.3^(1/K) of the episodes, in all (0.3 + 2·0.548 + 4·0.669)/7 =
    # 0.582; five standard errors: 5·√(0.58·0.42/400) = 0.123
    assert abs(middle / 400 - 0.582) < 0.123
    again = play_demonstrations(sources, 0.3, count=400)
    assert again == mixed


@pytest.mark.parametrize(("size", "played"), [(20, 30), (40, 40), (60, 50)])
def test_as_many_demonstrations_are_played_as_there_are_tasks(
    monkeypatch: pytest.MonkeyPatch, size: int, played: int
) -> None:
    monkeypatch.setattr(demonstrations, "SHOWN", (30, 50))
    assert len(play_demonstrations(open_sources([f"{GAME} size={size}"]), 0.5)) == played


def test_a_mistake_is_another_number_of_the_chat() -> None:
    rng = np.random.default_rng(0)
    seen = {mistaken("add(1, 22)", ["1 and 22 or 333"], [], rng) for _ in range(200)}
    assert seen == {"add(22, 22)", "add(333, 22)", "add(1, 1)", "add(1, 333)"}


def test_an_action_without_a_number_becomes_another_action() -> None:
    rng = np.random.default_rng(0)
    assert {mistaken("up", [], ["up", "down", "left"], rng) for _ in range(50)} == {"down", "left"}
    assert mistaken("up", [], ["up"], rng) == "up"
    assert mistaken("7", ["7"], [], rng) == "7"


class Strict(DialogueEnv[None]):
    """Its solver cannot cope with another answer than it expects."""

    def answer(self, action: str, state: None) -> Reply:
        """Repeat the number."""
        return Reply(f"you said {action}", done=action == "3")

    def judge(self, task: Task, state: None, answer: str | None) -> Verdict:
        """Pay."""
        return Verdict.correct()

    def solve(self, task: Task) -> Any:
        """Count to three."""
        for number in "12":
            said = yield number
            assert said == f"you said {number}"
        yield "3"


def test_a_solver_led_astray_ends_its_demonstration() -> None:
    tasks = [Task(id=str(i), prompt=f"from 0 to {i + 4}", truth=0) for i in range(9)]
    shown = play_demonstrations([Source("s", lambda: Strict(tasks))], 0.3, count=60)
    assert {len(one.actions) for one in shown} == {1, 2, 3}
    assert all(0 < len(one.actions) == len(one.said) for one in shown)


def test_a_task_that_nobody_solves_cannot_be_demonstrated() -> None:
    class Unsolved(Strict):
        solve = DialogueEnv.solve

    tasks = [Task(id="x", prompt="p", truth=0)]
    with pytest.raises(TaskError, match="task 'x' has no solution"):
        play_demonstrations([Source("s", lambda: Unsolved(tasks))], 1.0, count=1)


def test_a_demonstration_has_the_tokens_of_a_rollout() -> None:
    (shown,) = play_demonstrations(open_sources([GAME + " size=1"]), 1.0, count=1)
    model, tokenizer = build(EmbeddedConfig(width=32, layers=1, heads=2))
    prompt, tokens, trained = _Encoder(model, tokenizer).episode(shown)
    policy = ScriptedPolicy(tokenizer, list(shown.actions))
    env = make("rlvr/GuessNumber-v0", numbers=7, high=99, size=1, disable_env_checker=True)
    (found,) = rollout([Episode(env=env, seed=0, index=0)], policy)
    assert [*prompt, *tokens] == found.tokens
    assert [*[False] * len(prompt), *trained] == found.trained
    assert found.verdict["status"] == "correct"


def test_imitation_learns_an_episode_and_not_what_the_environment_says() -> None:
    shown = Demonstration(
        opening=[{"role": "user", "content": "go"}],
        tools=[],
        actions=["ab", "cd"],
        said=[[{"role": "user", "content": "qwertzuiop" * 3}], []],
    )
    model, tokenizer = build(EmbeddedConfig(width=32, layers=1, heads=2, context=128))
    loss = imitate(model, tokenizer, drawn_from([shown]), WarmStart(steps=60, batch=2))
    assert loss < 0.1
    encoder = _Encoder(model, tokenizer)
    _, imitated = encoder.rectangle([shown])
    assert int(imitated.sum()) == 6  # ab and cd, each with its end


def test_a_demonstration_that_does_not_fit_is_cut_or_refused() -> None:
    model, tokenizer = build(EmbeddedConfig(width=32, layers=1, heads=2, context=16))
    long = Demonstration(
        opening=[{"role": "user", "content": "go"}],
        tools=[],
        actions=["a" * 9, "b" * 9],
        said=[[{"role": "user", "content": "on"}], []],
    )
    prompt, tokens, trained = _Encoder(model, tokenizer).episode(long)
    assert len(prompt) + len(tokens) == 16
    assert len(tokens) == len(trained)
    wide = Demonstration(
        opening=[{"role": "user", "content": "x" * 16}], tools=[], actions=["a"], said=[[]]
    )
    with pytest.raises(TaskError, match="the model's context is 16"):
        _Encoder(model, tokenizer).episode(wide)


def test_evaluation_rows_hold_whole_chats() -> None:
    sources = open_sources([GAME + " size=2"])
    policy = ScriptedPolicy(byte_tokenizer(), lambda prompt: "1")
    found = evaluate(policy, sources, tasks=2, sampling=Sampling(max_tokens=4))
    row = found.rows[0]
    assert row["turns"] == 3  # numbers=7 takes three guesses
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert [text for _, text in conversation(row)][::2] == ["1", "1", "1"]
    assert found.unscored == 0


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder that `rlvr sft` has left."""
    place = str(tmp_path_factory.mktemp("taught") / "model")
    shared = ["--steps", "2", "--batch", "4", "--lr", "1e-3"]
    assert main(["sft", "--env", GAME, "--out", place, *shared]) == 0
    return place


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "rloo"},
        pytest.param({"algorithm": "ppo", "lam": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_training_on_turns_leaves_whole_chats_and_a_report(
    taught: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    train(
        TrainConfig(),
        env=GAME + " size=20",
        model=taught,
        steps=2,
        eval_every=2,
        eval_tasks=4,
        prompts_per_step=2,
        group_size=2,
        max_tokens=3,
        out=str(out),
        quiet=True,
        **settings,
    )
    assert all(row["turns"] == 3 for row in lines(out, "evaluations.jsonl"))
    page = (out / "report.html").read_text()
    assert 'class="said"' in page
    assert "Write one" in page  # what the environment said to a model that knows nothing


def test_values_by_rollouts_train_on_turns(taught: str, tmp_path: Path) -> None:
    result = train(
        env=GAME + " size=20",
        model=taught,
        algorithm="ppo",
        critic="rollouts",
        lam=1.0,
        value_every=3,
        value_rollouts=1,
        steps=1,
        eval_tasks=0,
        prompts_per_step=2,
        max_tokens=3,
        out=str(tmp_path / "run"),
        quiet=True,
    )
    assert result.finished
    (line,) = lines(tmp_path / "run")
    assert line["branch_tokens"] > 0


@verifier
def endless(completion: str, truth: Any) -> bool:
    while True:
        pass


@verifier
def looks(completion: str, truth: Any, state: Any) -> bool:
    return state is None


def test_the_verifier_of_a_dialogue_has_a_time_limit() -> None:
    tasks = [Task(id="a", prompt="go", truth=0)]

    class Asks(DialogueEnv[None]):
        def answer(self, action: str, state: None) -> Reply:
            return Reply(done=True)

    source = Source("asks", lambda: Asks(tasks, endless))
    assert source.guard(0.3) == ""
    for env in source.instances(2):
        env.reset(seed=0)
        verdict = env.step("x")[4]["verdict"]
        assert verdict["status"] == "error"
    source.close()
    assert "looks at the state" in Source("looks", lambda: Asks(tasks, looks)).guard(1.0)
    assert Source("ours", lambda: Asks(tasks, "number")).guard(1.0) == ""
    assert "judges by itself" in Source("own", lambda: Strict(tasks)).guard(1.0)
    (game,) = open_sources(["rlvr/GuessNumber-v0"])
    assert game.guard(1.0) == ""


def test_a_verifier_in_place_of_none_is_refused() -> None:
    tasks = GuessNumberEnv(
        [Task(id="a", prompt="p", truth={"low": 1, "high": 2, "number": 1})]
    ).tasks
    with pytest.raises(UsageError, match="judges by itself"):
        open_sources([lambda: GuessNumberEnv(tasks)], verifier="number")


@pytest.mark.slow
def test_the_embedded_default_is_built_of_episodes_where_there_are_turns() -> None:
    sources, short = open_sources([GAME + " size=20"]), WarmStart(steps=3, batch=4)
    first, _ = embedded_for(sources, short)
    again, _ = embedded_for(sources, short)
    other, _ = embedded_for(open_sources(["rlvr/GCD-v0 size=20"]), short)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_trained_tokens_are_exactly_the_sampled_ones() -> None:
    model, tokenizer = build(EmbeddedConfig(width=32, layers=2, heads=2, seed=3))
    policy = TransformersPolicy(model, tokenizer)
    (source,) = open_sources(["rlvr/Calculator-v0 final=tag turns=3 explain=false size=4"])
    sampled: dict[int, list[tuple[int, ...]]] = {}

    class Noted:
        """The policy, with a note of what it drew for each episode."""

        def __getattr__(self, name: str) -> Any:
            return getattr(policy, name)

        async def generate(self, prompt_ids: Any, sampling: Sampling) -> Any:
            drawn = await policy.generate(prompt_ids, sampling)
            sampled.setdefault(sampling.seed, []).append(tuple(drawn.tokens))
            return drawn

    episodes = [Episode(env=env, seed=i, index=i % 4) for i, env in enumerate(source.instances(8))]
    noted: Any = Noted()
    found = rollout(episodes, noted, Sampling(max_tokens=12))
    batch = collate(found)
    assert {len(t.turns) for t in found} == {3}
    for row, trajectory in enumerate(found):
        drawn = [token for turn in sampled[trajectory.seed] for token in turn]
        mask = batch.mask[row, : len(batch.continuations[row])]
        assert [t for t, m in zip(batch.continuations[row], mask, strict=True) if m] == drawn
        (again,) = policy.logprobs([batch.prompts[row]], [batch.continuations[row]])
        assert torch.allclose(again[mask], batch.logprobs[row][: len(mask)][mask], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, PPO], ids=["rloo", "ppo"])
def test_a_task_with_a_tool_is_learned(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = TrainConfig.from_toml(TOOLS)
    result = train(config, **settings, out=str(tmp_path / "run"), quiet=True)
    before, after = result.evaluations[0][1], result.evaluations[-1][1]
    assert before.tasks == after.tasks == 200
    assert before.solved < 0.3
    assert after.solved > 0.8
    assert after.unscored == 0
