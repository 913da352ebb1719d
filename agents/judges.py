"""A policy as a judge: the callable from text to text that `judge` and `pairwise` ask.

The judge should be a model of its own. A policy that judges itself drifts with its own taste, and
one that is in the middle of a rollout cannot answer: its episodes wait for the judge, and the judge
for its episodes.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ..verifiers import ModelError, UsageError
from .types import Policy, Sampling

DEFAULT = Sampling(max_tokens=512, temperature=0.0)
"""How a judge answers unless told otherwise: with its likeliest words."""


def policy_judge(
    policy: Policy, sampling: Sampling | None = None, *, system: str = ""
) -> Callable[[str], Awaitable[str]]:
    """Make a judge of a policy.

    The text becomes one user message of the policy's chat template. Control tokens that it spells
    are encoded as letters, so that a completion inside it cannot end the message. What is asked at
    the same time is decoded together. The draws follow from the text, so that the same question
    gets the same answer, and a repeated one that is worded differently another.

    Args:
        policy: Who judges; not the policy that is trained, unless all its episodes are over when it
            is asked, as for a group verifier.
        sampling: How it draws; by default 512 tokens, the likeliest.
        system: A system message before the text.

    Returns:
        An `async` function from text to text.

    Raises:
        ModelError: When called: the text does not fit into the model's context.
        UsageError: When called: the policy is in the middle of a rollout.

    Example:
        >>> from rlvr.agents import ScriptedPolicy
        >>> from rlvr.agents.embedded import byte_tokenizer
        >>> from rlvr.verifiers import make, verify
        >>> scripted = ScriptedPolicy(byte_tokenizer(), lambda text: "So it is.\\nVerdict: yes")
        >>> verify(make("judge", ask=policy_judge(scripted)), "4", "4").reward
        1.0
    """
    drawn = sampling or DEFAULT
    chat: Any = policy

    async def ask(text: str) -> str:
        if getattr(policy, "_live", 0):
            raise UsageError(
                "the policy that is to judge is in the middle of a rollout; give the judge a model "
                "of its own"
            )
        message = {"role": "user", "content": text}
        before = [{"role": "system", "content": system}] if system else []
        ids = chat.format.prompt([*before, message])
        room = policy.context - len(ids)
        if room < drawn.max_tokens:
            raise ModelError(
                f"the judge's prompt has {len(ids)} tokens and its answer may have "
                f"{drawn.max_tokens}, more than its context of {policy.context}; judge shorter "
                "completions, or take a judge with a longer context"
            )
        digest = hashlib.sha256(f"{drawn.seed}\n{text}".encode("utf-8", "replace")).digest()
        seed = int.from_bytes(digest[:8], "big")
        await asyncio.sleep(0)  # questions that are asked together wait together
        found = await policy.generate(ids, replace(drawn, seed=seed))
        return chat.format.text(found.tokens)

    return ask
