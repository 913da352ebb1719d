"""Plain policy gradients on a text environment, one token a step: the reward rises."""

from typing import Any

import torch

from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import PromptEnv
from rlvr.envs.token_mdp import TokenMDP
from rlvr.verifiers import Task, verifier

TASKS = [Task(id=q, prompt=q, truth=a) for q, a in (("a", "xy"), ("b", "yx"))]


@verifier
def share(completion: str, truth: Any) -> float:
    """Return the share of places with the right letter."""
    return sum(a == b for a, b in zip(completion, truth, strict=False)) / len(truth)


def test_a_table_of_logits_learns_to_spell_through_the_token_mdp() -> None:
    tokenizer = byte_tokenizer()
    env = TokenMDP(PromptEnv(TASKS, share), tokenizer, max_length=8, max_tokens=2)
    letters = torch.tensor(tokenizer("wxyz")["input_ids"])
    logits = torch.zeros(2, 2, len(letters), requires_grad=True)  # task, place, letter
    optimiser = torch.optim.Adam([logits], lr=0.3)
    torch.manual_seed(0)
    rewards = []
    for _ in range(60):
        loss = torch.zeros(())
        for episode in range(16):
            task, total, logprob = episode % 2, 0.0, torch.zeros(())
            env.reset(options={"index": task})
            for place in range(2):
                policy = torch.distributions.Categorical(logits=logits[task, place])
                drawn = policy.sample()
                logprob = logprob + policy.log_prob(drawn)
                total += env.step(letters[drawn].item())[1]
            rewards.append(total)
            loss = loss - (total - 0.5) * logprob / 16
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # a random letter of four is right in a quarter of the places
    assert sum(rewards[:32]) / 32 < 0.5
    assert sum(rewards[-64:]) / 64 > 0.9
