"""A reward model as a verifier: a sequence classifier with one output, as RLHF trains them.

A reward model knows no right and wrong: its score is a taste, its scale its own, and far from what
it was trained on it means nothing; a policy that climbs it long enough gets there. Keep a KL price,
look at samples, and prefer a verifier where the answer can be checked.

Nothing is cut off: a conversation that is longer than the model reads has no score.
"""

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..envs.control_tokens import texts_of
from ..verifiers import ModelError, Status, Task, UsageError, Verdict
from .classifiers import load_classifier, longest_input
from .conversation import ChatFormat

CACHED = 65_536
"""Scores that are remembered: a hash and a number each, some ten megabytes in all."""

Conversation = tuple[Sequence[Mapping[str, Any]], str]
"""The prompt's messages and the completion."""


class RewardModel:
    """Judge a completion by a reward model: a sequence classifier with one label.

        r = clip(f(s), low, high),   f(s) = 1/(1 + e^(−s)) with `sigmoid`, else s

    s is the model's output for the task's messages and the completion as the assistant's, rendered
    by the chat template of the model's own tokenizer. No verdict is `correct`, because no score
    says so: a reward above 0 is `partial`, and 0 or less `wrong`. A conversation that is too long
    for the model, or a score that is not finite, is an `error`: unscored.

    The model is loaded when an environment is made with it, or at the first completion.

    Args:
        path: A folder or hub id of an `AutoModelForSequenceClassification` with `num_labels=1` and
            a tokenizer that has a chat template.
        sigmoid: Whether the score is brought to (0, 1): under the model that it was trained by, the
            probability of being preferred to a completion of score 0.
        low: Least reward; none: no bound.
        high: Greatest reward; none: no bound.
        batch: Conversations scored together at most; none: 1 on a CPU, where the last bits of a
            score would depend on what waits beside it, and 16 elsewhere.
        max_tokens: Tokens that a conversation may have; none: what the model reads.
        device: As for `load_model`.
        dtype: Likewise.
        trust_remote_code: Likewise.

    Example:
        `make("reward-model", path="models/my-reward-model", sigmoid=True)`

    Reference:
        Ouyang et al., 2022, arXiv 2203.02155, section 3.5; Stiennon et al., 2020, arXiv 2009.01325.
    """

    name = "reward-model"

    def __init__(
        self,
        *,
        path: str | Path,
        sigmoid: bool = False,
        low: float | None = None,
        high: float | None = None,
        batch: int | None = None,
        max_tokens: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        """Check the options."""
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        if any(isinstance(b, bool) or not isinstance(b, int | float) for b in bounds) or not (
            bounds[0] < bounds[1]
        ):
            raise UsageError(f"low= and high= are numbers, low below high, got {low!r}, {high!r}")
        for option, value in (("batch", batch), ("max_tokens", max_tokens)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise UsageError(f"{option}= is a whole number from 1 up, got {value!r}")
        self.path = str(path)
        self.sigmoid = sigmoid
        self.bounds = bounds
        self.batch = batch
        self.max_tokens = max_tokens
        self.options = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
        self._begin()

    def _begin(self) -> None:
        """Start without a model."""
        self.model: Any = None
        self.tokenizer: Any = None
        self._lock = threading.RLock()
        self._waiting: list[_Waiting] = []
        self._queue = threading.Lock()
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Travel as the options: the model is loaded again where it arrives."""
        own = ("path", "sigmoid", "bounds", "batch", "max_tokens", "options")
        return {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew elsewhere."""
        self.__dict__.update(state)
        self._begin()

    def check_truth(self, truth: Any) -> None:
        """Load the model, so that one that cannot be used shows before anything is trained.

        Every truth is accepted: none is read.
        """
        self.load()

    def load(self) -> None:
        """Load model and tokenizer, if that has not been done.

        Raises:
            UsageError: There is no such folder.
            ModelError: It is no classifier with one trained output, or has no chat template.
        """
        if self.model is not None:  # without the lock, which a pass over others' completions holds
            return
        with self._lock:
            if self.model is None:
                model, self.tokenizer = load_classifier(self.path, **self.options)
                limit = longest_input(model.config, self.tokenizer)
                self.limit = min(self.max_tokens or limit, limit)
                ends = self.tokenizer.eos_token_id
                self.format = ChatFormat(self.tokenizer, () if ends is None else (ends,))
                self.rows = self.batch or (1 if model.device.type == "cpu" else 16)
                if model.config.pad_token_id is None:
                    self.rows = 1  # without it, the model cannot tell where a padded row ends
                self.model = model

    def __call__(
        self, completion: str, truth: Any, *, task: Task | None = None, **context: Any
    ) -> Verdict:
        """Score one completion; those that other threads wait for are scored together."""
        if task is None:
            return Verdict.error(
                "a reward model scores a completion with its prompt, and no task= was given"
            )
        self.load()
        own = _Waiting(task.messages, completion)
        with self._queue:
            self._waiting.append(own)
        with self._lock:  # whoever comes first scores what the others wait for, too
            if own.outcome is None:
                with self._queue:
                    others = [one for one in self._waiting if one is not own]
                    some = [own, *others[: self.rows - 1]]
                    self._waiting = others[self.rows - 1 :]
                self._settle(some)
        if isinstance(own.outcome, BaseException):
            raise own.outcome
        assert own.outcome is not None
        return self._verdict(own.outcome)

    def _settle(self, some: "list[_Waiting]") -> None:
        """Score what waits, each alone if they fail together."""
        try:
            for one, score in zip(some, self._scores([w.pair for w in some]), strict=True):
                one.outcome = score
        except Exception as error:
            if len(some) == 1:
                some[0].outcome = error
                return
            for one in some:
                self._settle([one])

    def _verdict(self, score: float) -> Verdict:
        if not math.isfinite(score):
            return Verdict.error(f"the reward model's score is {score}")
        reward = min(
            max(squashed(score) if self.sigmoid else score, self.bounds[0]), self.bounds[1]
        )
        verdict = Verdict.score(reward, score=score)
        if reward < 1:
            return verdict
        return Verdict(reward=reward, status=Status.PARTIAL, evidence=verdict.evidence)

    def scores(self, conversations: Sequence[Conversation]) -> list[float]:
        """Score many conversations, `batch` at a time, longest first.

        Args:
            conversations: Pairs of the prompt's messages and the completion.

        Returns:
            The model's outputs, neither squashed nor clipped, in the order of the conversations.

        Raises:
            ModelError: A conversation is longer than the model reads.
        """
        self.load()
        ordered = sorted(
            range(len(conversations)), key=lambda i: -sum(map(len, _texts(conversations[i])))
        )
        found = [0.0] * len(conversations)
        for start in range(0, len(ordered), self.rows):
            places = ordered[start : start + self.rows]
            with self._lock:
                values = self._scores([conversations[i] for i in places])
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def _scores(self, conversations: Sequence[Conversation]) -> list[float]:
        """Score some conversations in one pass, those left out that are remembered."""
        keys = [_key(one) for one in conversations]
        missing = dict.fromkeys(key for key in keys if key not in self._known)
        new = [conversations[keys.index(key)] for key in missing]
        known = {key: self._known[key] for key in keys if key not in missing}
        known |= zip(missing, self._forward(new), strict=True)
        for key, value in known.items():
            self._known[key] = value
            self._known.move_to_end(key)
        while len(self._known) > CACHED:
            self._known.popitem(last=False)
        return [known[key] for key in keys]

    def _forward(self, conversations: Sequence[Conversation]) -> list[float]:
        """Run the model."""
        import torch

        if not conversations:
            return []
        rows = [self._ids(*one) for one in conversations]
        width = max(map(len, rows))
        filler = self.model.config.pad_token_id or 0
        ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows])
        attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        with torch.inference_mode():
            out = self.model(input_ids=ids.to(device), attention_mask=attention.to(device))
        return out.logits[:, 0].double().cpu().tolist()

    def _ids(self, messages: Sequence[Mapping[str, Any]], completion: str) -> list[int]:
        """Return a conversation's tokens; control tokens that its texts spell are letters."""
        whole: Any = [*messages, {"role": "assistant", "content": completion}]
        control = self.format.control
        mark = control.mark(texts_of(whole))
        whole = control.guard(whole, mark) if mark else whole
        ids = control.encode(self.format.render(whole, answer=False), mark)
        if not 0 < len(ids) <= self.limit:
            raise ModelError(
                f"the conversation has {len(ids)} tokens, and the reward model reads 1 to "
                f"{self.limit}; nothing is cut off: lower max_tokens of the rollout"
            )
        return ids

    def __repr__(self) -> str:
        """Show where the model is from."""
        return f"reward-model({self.path!r})"


class _Waiting:
    """A completion that waits for its score."""

    def __init__(self, messages: Sequence[Mapping[str, Any]], completion: str) -> None:
        self.pair: Conversation = (messages, completion)
        self.outcome: float | Exception | None = None


def squashed(score: float) -> float:
    """Return 1/(1 + e^(−s)), without overflow.

    Example:
        >>> squashed(0.0), squashed(-1000.0)
        (0.5, 0.0)
    """
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


def _texts(conversation: Conversation) -> list[str]:
    return [*(message["content"] for message in conversation[0]), conversation[1]]


def _key(conversation: Conversation) -> bytes:
    messages = [[message["role"], message["content"]] for message in conversation[0]]
    return hashlib.sha256(json.dumps([messages, conversation[1]]).encode()).digest()
