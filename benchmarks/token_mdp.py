"""Classic RL libraries on a text environment, one token a step.

The task: one of four letters of an alphabet of 16 is shown, the three after it are to be said; the
reward, paid at the end, is the share of right letters. The vocabulary has 20 tokens, the horizon is
3 tokens, a random policy earns 0.05 and the optimal one 1.

Two trainers meet it through `TokenMDP` as they would meet CartPole:

- Stable-Baselines3's PPO: `PPO("MlpPolicy", make_vec_env(...))`, the library as installed. Token
  ids are categories, so the policy is given a features extractor (SB3's own hook for that), which
  turns each id into a one-hot vector; nothing else of the library is changed or subclassed.
- A PPO in CleanRL's style: one file, one loop over `gymnasium.vector.SyncVectorEnv`, that knows
  nothing of text.

Stable-Baselines3 is needed by this benchmark alone; without it only the loop runs.

    python benchmarks/token_mdp.py --seeds 3
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from tokenizers import Tokenizer, decoders, models
from torch import nn
from torch.distributions import Categorical
from torch.nn.functional import one_hot
from transformers import PreTrainedTokenizerFast

from rlvr.envs import PromptEnv
from rlvr.envs.token_mdp import TokenMDP
from rlvr.verifiers import Task, verifier

LETTERS = "abcdefghijklmnop"
SPECIALS = ("<pad>", "<end>", "<ask>", "<say>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- ('<ask>' if message['role'] == 'user' else '<say>') + message['content'] + '<end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<say>' -}}{%- endif -%}"
)
HORIZON = 3
OPTIMAL = 1.0
WANTED = 0.95 * OPTIMAL


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of 16 letters and 4 special tokens."""
    vocabulary = {token: at for at, token in enumerate([*SPECIALS, *LETTERS])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=list(SPECIALS[2:]),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@verifier
def right_letters(completion: str, truth: Any) -> float:
    """Return the share of places with the right letter."""
    pairs = zip(completion, truth, strict=False)
    return sum(one == other for one, other in pairs) / len(truth)


def tasks() -> list[Task]:
    """Pose every fourth letter, to be answered by the three after it."""
    firsts = range(0, len(LETTERS), HORIZON + 1)
    return [
        Task(id=LETTERS[i], prompt=LETTERS[i], truth=LETTERS[i + 1 : i + 1 + HORIZON])
        for i in firsts
    ]


def token_env() -> Callable[[], gymnasium.Env[Any, Any]]:
    """Return what makes the environment; tasks and tokenizer are shared."""
    posed, tokenizer = tasks(), letter_tokenizer()

    def make() -> gymnasium.Env[Any, Any]:
        text = PromptEnv(posed, right_letters, check=False)
        return TokenMDP(text, tokenizer, max_length=7, max_tokens=HORIZON)

    return make


@dataclass(frozen=True, kw_only=True)
class Settings:
    """PPO's settings, the same for both trainers."""

    steps: int = 60_000
    envs: int = 32
    rollout: int = 48
    epochs: int = 6
    minibatches: int = 4
    rate: float = 2e-3
    entropy: float = 0.003
    clip: float = 0.2
    lam: float = 0.95
    width: int = 128


def stable_baselines(make: Callable[[], Any], seed: int, settings: Settings) -> Callable[..., Any]:
    """Train SB3's PPO; return its greedy policy."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class OneHot(BaseFeaturesExtractor):
        def __init__(self, space: gymnasium.spaces.Box) -> None:
            self.classes = int(space.high.max()) + 1
            super().__init__(space, space.shape[0] * self.classes)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return one_hot(observations.long(), self.classes).float().flatten(1)

    envs = make_vec_env(make, n_envs=settings.envs, seed=seed)
    model = PPO(
        "MlpPolicy",
        envs,
        seed=seed,
        device="cpu",
        gamma=1.0,
        n_steps=settings.rollout,
        batch_size=settings.envs * settings.rollout // settings.minibatches,
        n_epochs=settings.epochs,
        learning_rate=lambda left: settings.rate * left,
        ent_coef=settings.entropy,
        clip_range=settings.clip,
        gae_lambda=settings.lam,
        policy_kwargs={
            "features_extractor_class": OneHot,
            "net_arch": [settings.width],
        },
    )
    model.learn(settings.steps)
    return lambda observations: model.predict(observations, deterministic=True)[0]


class Agent(nn.Module):
    """Actor and critic on one-hot tokens."""

    def __init__(self, envs: Any, width: int) -> None:
        """Build two small networks."""
        super().__init__()
        observations = envs.single_observation_space
        self.classes = int(observations.high.max()) + 1
        inputs = observations.shape[0] * self.classes
        actions = int(envs.single_action_space.n)
        self.actor = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, actions))
        self.critic = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 1))
        nn.init.orthogonal_(self.actor[-1].weight, 0.01)

    def forward(self, observations: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        """Return the distribution of actions and the value."""
        hot = one_hot(observations, self.classes).float().flatten(1)
        return Categorical(logits=self.actor(hot)), self.critic(hot).squeeze(-1)


def cleanrl_style(make: Callable[[], Any], seed: int, settings: Settings) -> Callable[..., Any]:
    """Train with a PPO of one page; return its greedy policy."""
    torch.manual_seed(seed)
    n_envs, n_steps, batch = settings.envs, settings.rollout, settings.envs * settings.rollout
    envs = SyncVectorEnv(
        [lambda: RecordEpisodeStatistics(make())] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent = Agent(envs, settings.width)
    optimiser = torch.optim.Adam(agent.parameters(), lr=settings.rate, eps=1e-5)
    shape = (n_steps, n_envs)
    seen = torch.zeros((*shape, *envs.single_observation_space.shape), dtype=torch.long)
    actions = torch.zeros(shape, dtype=torch.long)
    logprobs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    observation = torch.as_tensor(envs.reset(seed=seed)[0])
    updates = settings.steps // batch
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = settings.rate * (1 - update / updates)
        for t in range(n_steps):
            with torch.no_grad():
                policy, values[t] = agent(observation)
                actions[t] = policy.sample()
                logprobs[t] = policy.log_prob(actions[t])
            seen[t] = observation
            following, reward, ended, cut, _ = envs.step(actions[t].numpy())
            observation, rewards[t] = torch.as_tensor(following), torch.as_tensor(reward)
            dones[t] = torch.as_tensor(ended | cut)
        advantages = torch.zeros(shape)
        with torch.no_grad():
            following_value, gae = agent(observation)[1], torch.zeros(n_envs)
            for t in reversed(range(n_steps)):
                goes_on = 1 - dones[t]
                error = rewards[t] + goes_on * following_value - values[t]
                gae = error + settings.lam * goes_on * gae
                advantages[t], following_value = gae, values[t]
        returns = (advantages + values).flatten()
        flat = advantages.flatten()
        for _ in range(settings.epochs):
            for at in torch.randperm(batch).chunk(settings.minibatches):
                policy, value = agent(seen.flatten(0, 1)[at])
                ratio = (policy.log_prob(actions.flatten()[at]) - logprobs.flatten()[at]).exp()
                gain = (flat[at] - flat[at].mean()) / (flat[at].std() + 1e-8)
                clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                loss = -torch.minimum(ratio * gain, clipped * gain).mean()
                loss += 0.5 * (value - returns[at]).square().mean()
                loss -= settings.entropy * policy.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimiser.step()
    envs.close()
    with torch.no_grad():
        return lambda observations: (
            agent(torch.as_tensor(observations))[0].logits.argmax(-1).numpy()
        )


def mean_return(make: Callable[[], Any], act: Callable[..., Any], episodes: int = 512) -> float:
    """Return the mean return of a policy over episodes that begin at fixed seeds."""
    env, total = make(), 0.0
    for seed in range(episodes):
        observation, _ = env.reset(seed=10_000 + seed)
        over = False
        while not over:
            with torch.no_grad():
                action = int(act(observation[None])[0])
            observation, reward, ended, cut, _ = env.step(action)
            total, over = total + float(reward), ended or cut
    return total / episodes


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, and print their returns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--only", choices=["sb3", "loop"])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings, make = Settings(steps=given.steps), token_env()
    trainers = {"sb3": stable_baselines, "loop": cleanrl_style}
    chance = mean_return(make, lambda seen: np.random.randint(20, size=len(seen)))
    print(f"random policy: {chance:.3f}; optimal {OPTIMAL:.3f}; wanted {WANTED:.3f}")
    for name, train in trainers.items():
        if given.only not in (None, name):
            continue
        found = []
        for seed in range(given.seeds):
            began = time.perf_counter()
            act = train(make, seed, settings)
            seconds = time.perf_counter() - began
            found.append(mean_return(make, act))
            print(f"{name} seed {seed}: return {found[-1]:.3f} after {seconds:.0f} s", flush=True)
        good = sum(one >= WANTED for one in found)
        print(f"{name}: {good} of {len(found)} seeds reach {WANTED:.2f}", flush=True)


if __name__ == "__main__":
    main()
