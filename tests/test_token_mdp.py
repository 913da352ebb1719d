"""Text environments as per-token Markov decision processes."""

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from envs_harness import broken, same
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.agents import Episode, ScriptedPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import DialogueEnv, PromptEnv, Reply, make
from rlvr.envs.token_mdp import TokenMDP
from rlvr.envs.wrappers import ScaleReward, SystemPrompt
from rlvr.verifiers import Task, Unscored, UsageError, Verdict, verifier

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
V = len(TOKENIZER)
TASKS = [Task(id=f"t{i}", prompt=f"Digit {i}?", truth=str(i)) for i in range(5)]


class Game(DialogueEnv[list[str]]):
    """Says how many letters it was told; pays a quarter for every "a"; ends with an answer."""

    def open(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Remember nothing yet."""
        return []

    def answer(self, action: str, state: list[str]) -> Reply:
        """Answer."""
        state.append(action)
        paid = 0.25 * action.count("a")
        return Reply(f"{len(action)} letters", reward=paid, done="0" <= action[:1] <= "9")


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def game(**options: Any) -> TokenMDP:
    chosen = {"max_length": 128, "max_tokens": 4, **options}
    return TokenMDP(Game(TASKS, same, turns=4), TOKENIZER, **chosen)


def single(judge: Any = same, **options: Any) -> TokenMDP:
    chosen = {"max_length": 40, "max_tokens": 3, **options}
    return TokenMDP(PromptEnv(TASKS, judge), TOKENIZER, **chosen)


def shown(observation: np.ndarray[Any, Any]) -> str:
    return TOKENIZER.decode(observation[observation < V])


@pytest.mark.parametrize("make_env", [single, game])
def test_it_is_a_gymnasium_environment_of_tokens(make_env: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(make_env(), skip_render_check=True)
    env = make_env()
    assert env.action_space == gymnasium.spaces.Discrete(262)
    assert env.observation_space.dtype == np.int64
    assert env.unwrapped.tasks is TASKS


def test_the_observation_is_the_conversation_padded_with_the_vocabulary_size() -> None:
    env = single()
    observation, info = env.reset(options={"index": 2})
    assert shown(observation) == "<|user|>Digit 2?<|end|><|assistant|>"
    assert info["task_id"] == "t2"
    later, reward, *ends, info = env.step(ids("7")[0])
    assert shown(later) == "<|user|>Digit 2?<|end|><|assistant|>7"
    assert (reward, ends, info) == (0.0, [False, False], {})
    assert shown(observation).endswith("<|assistant|>")
    assert list(later[11:]) == [*ids("7"), *[V] * 28]


def test_the_reward_comes_with_the_token_that_ends_the_turn() -> None:
    env = single()
    env.reset(options={"index": 3})
    assert env.step(ids("3")[0])[1:4] == (0.0, False, False)
    observation, reward, terminated, truncated, info = env.step(EOS)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["verdict"]["status"] == "correct"
    assert shown(observation).endswith("<|assistant|>3<|end|>")


def test_a_turn_ends_after_max_tokens_and_after_a_stop_text() -> None:
    env = single(max_tokens=2)
    env.reset(options={"index": 0})
    assert [env.step(token)[2] for token in ids("ab")] == [False, True]
    env = game(stop=["b!"], max_tokens=9)
    env.reset(options={"index": 0})
    assert [env.step(token)[4] != {} for token in ids("ab!")] == [False, False, True]
    assert env.unwrapped.messages[-1] == {"role": "user", "content": "3 letters"}  # pyright: ignore


def test_environment_text_is_appended_in_one_go_through_the_chat_template() -> None:
    env = game()
    env.reset(options={"index": 1})
    for token in [*ids("ba"), EOS]:
        observation, *_ = env.step(token)
    expected = "<|user|>Digit 1?<|end|><|assistant|>ba<|end|><|user|>2 letters<|end|><|assistant|>"
    assert shown(observation) == expected
    for token in ids("x<y"):
        env.step(token)
    observation, reward, *_ = env.step(ids("a")[0])  # four tokens: the template ends the message
    assert shown(observation) == expected + "x<ya<|end|><|user|>4 letters<|end|><|assistant|>"
    assert reward == 0.25


def test_its_tokens_and_rewards_are_those_of_a_rollout() -> None:
    says = ["aa", "no", "1"]
    policy = ScriptedPolicy(TOKENIZER, says)
    episode = Episode(env=Game(TASKS, same, turns=4), seed=0, index=1)
    trajectory = rollout([episode], policy)[0]
    env = game(max_length=256)
    env.reset(options={"index": 1})
    total, over = 0.0, False
    for text in says:
        for token in [*ids(text), EOS]:
            _, reward, over, _, _ = env.step(token)
            total += reward
    assert over
    assert env.tokens == trajectory.tokens
    # two letters "a" at a quarter each, and the verdict's 1
    assert total == trajectory.reward == 2 * 0.25 + 1.0


@settings(max_examples=60)
@given(
    actions=st.lists(
        st.sampled_from([*ids("a1b"), EOS, EOS]) | st.integers(0, V - 1), min_size=40, max_size=80
    ),
    multi=st.booleans(),
    index=st.integers(0, 4),
    length=st.integers(12, 90),
)
def test_the_rewards_sum_to_the_text_environments(
    actions: list[int], multi: bool, index: int, length: int
) -> None:
    paid: list[float] = []

    class Watched(gymnasium.Wrapper[str, str, str, str]):
        """Remembers what was paid."""

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            """Step and remember."""
            answer = super().step(action)
            paid.append(float(answer[1]))
            return answer[0], float(answer[1]), answer[2], answer[3], answer[4]

    text = Game(TASKS, same, turns=3) if multi else PromptEnv(TASKS, same)
    env = TokenMDP(Watched(text), TOKENIZER, max_length=length, max_tokens=5)
    observation, _ = env.reset(options={"index": index})
    total, over, before = 0.0, False, list(observation[observation < V])
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        now = list(observation[observation < V])
        assert observation in env.observation_space
        assert now[: len(before)] == before
        total, before = total + reward, now
        over = terminated or truncated
        if over:
            break
    assert over
    assert total == sum(paid)


def test_a_full_conversation_ends_the_turn_and_truncates_the_episode() -> None:
    env = game(max_length=13)
    observation, _ = env.reset(options={"index": 1})
    assert len(observation[observation < V]) == 11
    env.step(ids("a")[0])
    observation, reward, terminated, truncated, info = env.step(ids("a")[0])
    assert (reward, terminated, truncated) == (0.5, False, True)
    assert info["turn"] == 1
    assert shown(observation).endswith("<|assistant|>aa")
    assert TOKENIZER.decode(env.tokens).endswith("aa<|end|><|user|>2 letters<|end|><|assistant|>")
    assert not env.unwrapped.running  # pyright: ignore
    with pytest.raises(UsageError, match="call reset"):
        env.step(0)


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"'t0' has 11 tokens and max_length is 11"):
        single(max_length=11).reset(options={"index": 0})


def test_an_unscored_episode_raises_unless_a_number_was_chosen_for_it() -> None:
    env = single(broken)
    env.reset(options={"index": 0})
    with pytest.raises(Unscored, match=r"task 't0' has no reward \(.*no disk.*unscored=0.0"):
        env.step(EOS)
    env.reset(options={"index": 1})
    env = single(broken, unscored=-0.5)
    env.reset(options={"index": 0})
    _, reward, terminated, _, info = env.step(EOS)
    assert (reward, terminated, info["unscored"]) == (-0.5, True, True)


@pytest.mark.parametrize("action", [V, -1, "a", 1.0, None, True, [1], np.array([1, 2])])
def test_what_is_no_token_is_refused(action: Any) -> None:
    env = single()
    env.reset(seed=0)
    with pytest.raises(UsageError, match="an integer from 0 to 261"):
        env.step(action)
    assert env.step(np.int64(3))[1] == 0.0


def test_a_step_without_a_running_episode_is_refused() -> None:
    env = single()
    with pytest.raises(UsageError, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    env.step(EOS)
    with pytest.raises(UsageError, match="call reset"):
        env.step(0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 1},
        {"max_tokens": 0},
        {"max_tokens": 2.0},
        {"stop": "x"},
        {"stop": [""]},
        {"unscored": math.nan},
        {"unscored": "0"},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        single(**options)


@pytest.mark.parametrize("at", range(7))
def test_going_on_from_a_snapshot_equals_the_unbroken_episode(at: int) -> None:
    actions = [*ids("ab"), EOS, *ids("x"), EOS, *ids("1"), EOS]
    env = game()
    env.reset(options={"index": 1})
    taken: Any = None
    after = []
    for number, action in enumerate(actions):
        if number == at:
            taken = env.snapshot()
        step = env.step(action)
        after += [step] if number >= at else []
    for _ in range(2):
        env.restore(taken)
        for action, (observation, *rest) in zip(actions[at:], after, strict=True):
            again, *others = env.step(action)
            assert (again == observation).all()
            assert others == rest


def test_many_run_side_by_side_as_gymnasium_makes_them() -> None:
    def tokens(env: Any) -> TokenMDP:
        return TokenMDP(env, TOKENIZER, max_length=64, max_tokens=2)

    envs = gymnasium.make_vec(
        "rlvr/Arithmetic-v0", num_envs=3, vectorization_mode="sync", wrappers=[tokens]
    )
    assert isinstance(envs, SyncVectorEnv)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (3, 64)
    for _ in range(6):
        observations, rewards, *_ = envs.step(envs.action_space.sample())
        assert observations in envs.observation_space
        assert rewards.shape == (3,)
    envs.close()


def test_it_goes_over_other_transforms_and_is_made_again_from_its_spec() -> None:
    text = SystemPrompt(ScaleReward(make("rlvr/Arithmetic-v0", digits=1), 3.0), "Add.")
    env = TokenMDP(text, TOKENIZER, max_length=48, max_tokens=2)
    assert env.spec is not None
    for one in (env, gymnasium.make(env.spec)):
        observation, _ = one.reset(options={"index": 0})
        assert shown(observation) == "<|system|>Add.<|end|><|user|>5 + 2 = ?<|end|><|assistant|>"
        one.step(ids("7")[0])
        assert one.step(EOS)[1] == 3.0


def test_special_tokens_in_an_action_stay_visible_to_the_verifier() -> None:
    seen: list[str] = []

    @verifier
    def watching(completion: str, truth: Any) -> Verdict:
        """Remember the completion."""
        seen.append(completion)
        return Verdict.wrong()

    env = single(watching)
    env.reset(options={"index": 0})
    user = TOKENIZER.convert_tokens_to_ids("<|user|>")
    for token in (user, *ids("0"), EOS):
        env.step(token)
    assert seen == ["<|user|>0"]
