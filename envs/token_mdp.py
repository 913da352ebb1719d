"""Any text environment as a per-token Markov decision process, for classic RL code.

The conversation is a list of token ids that only grows, formatted as the agents format it: the
prompt through the chat template, the policy's tokens as they were chosen, the environment's texts
as the template's delta. A library that knows nothing of language models sees a `Discrete` action,
a `Box` of integers, and a reward.
"""

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from ..verifiers import Unscored, UsageError
from .conversation import ChatFormat, end_ids, new_messages
from .wrappers.transform import TextEnv, Transform

Ids = np.ndarray[Any, np.dtype[np.int64]]
Step = tuple[Ids, float, bool, bool, dict[str, Any]]


class TokenMDP(Transform[Ids, Any]):
    """One token a step.

    **Action** `Discrete(V)`, V = `len(tokenizer)`: the next token of the assistant's message.
    **Observation** int64 `Box` of shape `[max_length]`: the conversation's ids so far, then V as
    padding. **Reward** what the environment pays, with the token that ends a turn; 0 before it:
    the sum over an episode is the text environment's. **Turn end**: an end-of-sequence token, a
    stop text, `max_tokens` tokens, or no room left. The text then goes to the environment without
    the end token, and its answer is appended in one go. **End**: as the environment says;
    `truncated` also where the conversation has no room for another token. **Info**: the
    environment's at `reset` and at the end of a turn, else empty.

    The state is the conversation, so the process is Markov as far as the environment's own state
    shows in it. `tokens` is the whole conversation, also where the observation had to cut it.

    A wrapper like any other: `TokenMDP(gymnasium.make(id), tokenizer, …)`, or for many of them
    `gymnasium.make_vec(id, n, vectorization_mode="sync", wrappers=[lambda env: TokenMDP(…)])`.
    There is no registered id, because a tokenizer is an object and a spec holds names.

    Example:
        >>> from rlvr import envs
        >>> from rlvr.agents.embedded import byte_tokenizer
        >>> tokenizer = byte_tokenizer()
        >>> text = envs.make("rlvr/Arithmetic-v0", digits=1)
        >>> env = TokenMDP(text, tokenizer, max_length=32, max_tokens=4)
        >>> prompt, _ = env.reset(options={"index": 0})
        >>> tokenizer.decode(prompt[prompt < len(tokenizer)])
        '<|user|>5 + 2 = ?<|end|><|assistant|>'
        >>> five, end = tokenizer("7")["input_ids"][0], tokenizer.eos_token_id
        >>> [env.step(token)[1:3] for token in (five, end)]
        [(0.0, False), (1.0, True)]
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("tokens", "_start", "_messages", "_tools", "_running")

    def __init__(
        self,
        env: TextEnv,
        tokenizer: Any,
        *,
        max_length: int,
        max_tokens: int,
        stop: Sequence[str] = (),
        unscored: float | None = None,
        eos_ids: Sequence[int] | None = None,
        thoughts: str = "refuse",
    ) -> None:
        """Wrap a text environment.

        Args:
            env: The environment, single- or multi-turn, wrapped or not.
            tokenizer: A transformers tokenizer; without a chat template it gets a plain one.
            max_length: Tokens of a conversation at most, prompt included, at least 2.
            max_tokens: Tokens of a turn at most, at least 1.
            stop: Texts that end a turn; they stay in it.
            unscored: The reward where the environment has none because its verifier failed;
                `None` raises `Unscored` instead.
            eos_ids: The ids that end a turn; by default the tokenizer's own.
            thoughts: What to do where the template drops earlier thoughts: `"refuse"` or `"keep"`.

        Raises:
            UsageError: An option is out of range.
            ModelError: The tokenizer has no end token.
        """
        settings = {"max_length": max_length, "max_tokens": max_tokens, "stop": stop}
        settings |= {"unscored": unscored, "eos_ids": eos_ids, "thoughts": thoughts}
        super().__init__(env, tokenizer=tokenizer, **settings)
        _check(max_length, max_tokens, stop, unscored)
        ends = end_ids(tokenizer) if eos_ids is None else eos_ids
        self.format = ChatFormat(tokenizer, ends, thoughts=thoughts)
        self.tokenizer = tokenizer
        self.vocabulary = len(tokenizer)
        self.max_length, self.max_tokens = max_length, max_tokens
        self.stop = tuple(stop)
        self.unscored = None if unscored is None else float(unscored)
        self.action_space = Discrete(self.vocabulary)
        self.observation_space = Box(0, self.vocabulary, (max_length,), np.int64)
        self.tokens: list[int] = []
        """The conversation so far."""
        self._start = 0
        self._messages: list[Any] = []
        self._tools: Sequence[Any] = ()
        self._running = False
        self._row = np.full(max_length, self.vocabulary, dtype=np.int64)
        self._shown = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Ids, dict[str, Any]]:
        """Begin an episode with the prompt's tokens.

        Raises:
            UsageError: The prompt leaves no room for a token.
        """
        self._running = False
        observation, info = self.env.reset(seed=seed, options=options)
        given = info.get("messages") or [{"role": "user", "content": str(observation)}]
        self._messages = [dict(message) for message in given]
        self._tools = list(info.get("tools") or ())
        self.tokens = list(self.format.prompt(self._messages, self._tools))
        if len(self.tokens) >= self.max_length:
            raise UsageError(
                f"the prompt of task '{info.get('task_id', '')}' has {len(self.tokens)} tokens and "
                f"max_length is {self.max_length}; there must be room for at least one more"
            )
        self._start, self._shown, self._running = len(self.tokens), 0, True
        return self._observation(), info

    def step(self, action: Any) -> Step:
        """Append a token; if it ends the turn, let the environment answer.

        Raises:
            UsageError: The action is no token, or no episode is running.
            Unscored: The environment's verifier failed, and `unscored` gives no number for that.
            ModelError: The chat template has no place for what the environment says.
        """
        token = self._token(action)
        self.tokens.append(token)
        turn = self.tokens[self._start :]
        if not self._ends(token, turn):
            return self._observation(), 0.0, False, False, {}
        return self._answered(turn)

    def _answered(self, turn: list[int]) -> Step:
        """Hand the turn to the environment and append what it says."""
        self._running = False  # until all has gone well
        text = self.format.text(turn)
        observation, reward, terminated, truncated, info = self.env.step(text)
        paid = self._paid(float(reward), info)
        if not (terminated or truncated):
            spoken = [*self._messages, {"role": "assistant", "content": text}]
            said = new_messages(info, spoken, str(observation))
            self.tokens += self.format.delta(said, turn, history=self._messages, tools=self._tools)
            self._messages = [*spoken, *(dict(message) for message in said)]
            self._start = len(self.tokens)
            truncated = len(self.tokens) >= self.max_length
            self._running = not truncated
            if truncated:
                self._abandon()
        return self._observation(), paid, terminated, truncated, info

    def _restored(self, observation: str, info: dict[str, Any]) -> tuple[Ids, dict[str, Any]]:
        self._shown = 0
        return self._observation(), info

    def _ends(self, token: int, turn: list[int]) -> bool:
        if token in self.format.eos_ids or len(turn) >= self.max_tokens:
            return True
        if len(self.tokens) >= self.max_length:
            return True
        text = self.format.spell(turn) if self.stop else ""
        return any(stop in text for stop in self.stop)

    def _token(self, action: Any) -> int:
        if not self._running:
            raise UsageError("step without a running episode: call reset() first")
        try:
            token = -1 if isinstance(action, bool) else operator.index(action)
        except TypeError:
            token = -1
        if not 0 <= token < self.vocabulary:
            raise UsageError(
                f"an action is a token's id, an integer from 0 to {self.vocabulary - 1}, "
                f"got {action!r:.100}"
            )
        return token

    def _paid(self, reward: float, info: dict[str, Any]) -> float:
        """Return a reward that is a number."""
        if not info.get("unscored", False) and np.isfinite(reward):
            return reward
        if self.unscored is not None:
            return self.unscored
        verdict = info.get("verdict") or {}
        reason = dict(verdict.get("evidence") or {}).get("reason", f"the reward is {reward}")
        raise Unscored(
            f"task '{info.get('task_id', '')}' has no reward ({reason}); TokenMDP(unscored=0.0) "
            "would count such an episode as 0, or reset() and go on without it"
        )

    def _observation(self) -> Ids:
        """Return the conversation's ids, padded; a fresh array, because trainers keep them."""
        size = min(len(self.tokens), self.max_length)
        if size < self._shown or self._shown == 0:
            self._row[:] = self.vocabulary
            self._shown = 0
        self._row[self._shown : size] = self.tokens[self._shown : size]
        self._shown = size
        return self._row.copy()


def _check(max_length: Any, max_tokens: Any, stop: Any, unscored: Any) -> None:
    """Refuse settings out of range."""
    for name, value, least in (("max_length", max_length, 2), ("max_tokens", max_tokens, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be an integer from {least} up, got {value!r:.100}")
    if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
        raise UsageError(f"stop must be a list of texts that are not empty, got {stop!r:.100}")
    number = isinstance(unscored, int | float) and not isinstance(unscored, bool)
    if unscored is not None and not (number and np.isfinite(unscored)):
        raise UsageError(f"unscored must be None or a finite number, got {unscored!r:.100}")
