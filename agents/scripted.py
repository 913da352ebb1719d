"""A policy that says what it is told: for tests and for trying an environment by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .conversation import ChatFormat
from .types import Completion, Sampling, StopReason

Script = Callable[[str], str] | Mapping[str, str] | Sequence[str]
"""From prompt text to answer: a function, a table, or answers in the order of the calls."""


class ScriptedPolicy:
    """Answers from a script, as tokens with log-probability 0.

    Example:
        `ScriptedPolicy(byte_tokenizer(), lambda prompt: "4" if "2 + 2" in prompt else "?")`
    """

    def __init__(self, tokenizer: Any, script: Script, *, context: int = 4096) -> None:
        """Take the tokenizer that spells the answers, and the script."""
        self.tokenizer = tokenizer
        self.script = script
        self.context = context
        self.eos_ids = (int(tokenizer.eos_token_id),)
        self.format = ChatFormat(tokenizer, self.eos_ids)
        self.version = 0
        self.calls = 0

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Answer one prompt; cut off at `sampling.max_tokens`."""
        answer = self._answer(self.tokenizer.decode(prompt_ids, skip_special_tokens=False))
        ids = [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.eos_ids[0]]
        kept = ids[: min(sampling.max_tokens, self.context - len(prompt_ids))]
        reason = StopReason.EOS if len(kept) == len(ids) else StopReason.LENGTH
        zeros = [0.0] * len(kept)
        return Completion(tokens=kept, logprobs=zeros, stop_reason=reason, version=self.version)

    def sync(self, weights: Any = None) -> int:
        """Count an update; a script has no weights."""
        self.version += 1
        return self.version

    def _answer(self, prompt: str) -> str:
        self.calls += 1
        if callable(self.script):
            return self.script(prompt)
        if isinstance(self.script, Mapping):
            return next((text for key, text in self.script.items() if key in prompt), "")
        return self.script[(self.calls - 1) % len(self.script)]
