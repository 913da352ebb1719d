"""Transforms of the prompt: a system message, worked examples.

They change the chat, `info["messages"]`, in front of the newest message; the observation is the
newest message's text and stays what it is. What the environment later repeats of its own chat is
changed in the same way, so that a policy never sees two versions of it.
"""

import abc
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...verifiers import Message, Task, UsageError
from .transform import TextEnv, Transform

TRIES = 50
"""Tasks looked at per wanted example: most data sets have solutions everywhere or nowhere."""

Example = tuple[str, str]
"""A question and its answer."""


class PromptTransform(Transform[str, str], abc.ABC):
    """Changes the chat with which an episode begins."""

    _KEPT: ClassVar[tuple[str, ...]] = ("_inner", "_outer")

    def __init__(self, env: TextEnv, **settings: Any) -> None:
        """Wrap an environment."""
        super().__init__(env, **settings)
        self._inner: list[Message] = []
        """The chat's beginning as the environment wrote it."""
        self._outer: list[Message] = []
        """The same as the policy sees it."""

    @abc.abstractmethod
    def change(self, messages: list[Message], info: dict[str, Any]) -> list[Message]:
        """Return the chat to begin with, its last message unchanged.

        Args:
            messages: The environment's chat; may be changed.
            info: Of `reset`.
        """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode and change its chat."""
        observation, info = self.env.reset(seed=seed, options=options)
        messages = _chat(info, observation)
        self._inner = [message.copy() for message in messages]
        changed = self.change(messages, info)
        self._outer = [message.copy() for message in changed]
        return observation, {**info, "messages": changed}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the action on; where the answer repeats the whole chat, change its beginning."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        size, given = len(self._inner), info.get("messages") or []
        # new messages alone can look like the chat's beginning, but not with our action behind it
        whole = len(given) > size and given[:size] == self._inner
        if whole and given[size].get("role") == "assistant":
            info = {**info, "messages": self._seen(given)}
        return observation, float(reward), terminated, truncated, info

    def _restored(self, observation: str, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return observation, {**info, "messages": self._seen(_chat(info, observation))}

    def _seen(self, messages: list[Message]) -> list[Message]:
        """Return a chat that begins as the environment wrote it, as the policy sees it."""
        return [message.copy() for message in self._outer] + messages[len(self._inner) :]


class SystemPrompt(PromptTransform):
    """Puts a system message before the chat.

    Example:
        >>> from rlvr import envs
        >>> env = SystemPrompt(envs.make("rlvr/Arithmetic-v0"), "Answer with a number.")
        >>> env.reset(seed=0)[1]["messages"][0]
        {'role': 'system', 'content': 'Answer with a number.'}
    """

    def __init__(self, env: TextEnv, text: str, *, replace: bool = False) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            text: The system message, not empty.
            replace: Whether it takes the place of a system message that is there; otherwise that
                is an error.

        Raises:
            UsageError: The text is none.
        """
        if not isinstance(text, str) or not text:
            raise UsageError(f"SystemPrompt needs a text that is not empty, got {text!r:.100}")
        super().__init__(env, text=text, replace=replace)
        self.text = text
        self.replace = replace

    def change(self, messages: list[Message], info: dict[str, Any]) -> list[Message]:
        """Put the system message first.

        Raises:
            UsageError: There is one already.
        """
        if messages[0]["role"] == "system":
            if not self.replace:
                raise UsageError(
                    f"task '{info.get('task_id', '')}' has a system message already: "
                    f"{messages[0]['content']!r:.100}; pass replace=True to replace it"
                )
            messages = messages[1:]
        return [Message(role="system", content=self.text), *messages]


class FewShot(PromptTransform):
    """Puts worked examples before the question, as messages of a user and an assistant.

    Examples are given, or drawn from the environment's own tasks that have a `solution`: the same
    ones for the same task, so that a group's members share their prompt, and never the task's own.
    An environment over test tasks would show test solutions: give it examples of the other side.

    Example:
        >>> from rlvr import envs
        >>> env = FewShot(envs.make("rlvr/Arithmetic-v0"), [("1 + 1 = ?", "2")])
        >>> [message["role"] for message in env.reset(seed=0)[1]["messages"]]
        ['user', 'assistant', 'user']
    """

    def __init__(
        self, env: TextEnv, examples: int | Sequence[Example | Task], *, seed: int = 0
    ) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            examples: How many to draw, at least 1; or the examples: pairs of question and answer,
                or tasks with a solution.
            seed: Of the draw, from 0 up.

        Raises:
            UsageError: There are no examples, or one of them has no answer.
        """
        super().__init__(env, examples=examples, seed=seed)
        number = isinstance(examples, int)
        if (number and (examples is True or examples < 1)) or (not number and not len(examples)):
            raise UsageError(
                f"examples must be a number from 1 up or a list of examples, got {examples!r:.100}"
            )
        if not isinstance(seed, int) or seed < 0:
            raise UsageError(f"seed must be an integer from 0 up, got {seed!r:.100}")
        self.count = examples if isinstance(examples, int) else len(examples)
        self.seed = seed
        self._given = None if isinstance(examples, int) else [_pair(one) for one in examples]
        if self._given is None and not hasattr(env.unwrapped, "tasks"):
            raise UsageError(f"{env.unwrapped} has no `tasks` to draw from; give the examples")

    def change(self, messages: list[Message], info: dict[str, Any]) -> list[Message]:
        """Put the examples behind the system message, if there is one."""
        start = 1 if messages[0]["role"] == "system" else 0
        shown: list[Message] = []
        for question, answer in self._chosen(messages[-1]["content"], info):
            shown.append(Message(role="user", content=question))
            shown.append(Message(role="assistant", content=answer))
        return [*messages[:start], *shown, *messages[start:]]

    def _chosen(self, asked: str, info: dict[str, Any]) -> list[Example]:
        if self._given is None:
            return self._drawn(asked, str(info.get("task_id", "")))
        return [example for example in self._given if example[0] != asked]

    def _drawn(self, asked: str, task_id: str) -> list[Example]:
        """Draw solved tasks, other than the one that is asked.

        Raises:
            UsageError: Too few tasks have a solution.
        """
        unwrapped: Any = self.env.unwrapped
        key = hashlib.blake2b(f"{task_id}\0{asked}".encode("utf-8", "backslashreplace"))
        rng = np.random.default_rng([self.seed, int.from_bytes(key.digest()[:8])])
        found: dict[str, Example] = {}
        for _ in range(TRIES * self.count):
            task = unwrapped.tasks[int(rng.integers(len(unwrapped.tasks)))]
            question = _asked(task, getattr(unwrapped, "template", None))
            if task.solution is not None and task.id != task_id and question != asked:
                found.setdefault(question, (question, task.solution))
            if len(found) == self.count:
                return list(found.values())
        raise UsageError(
            f"{TRIES * self.count} tasks drawn, {len(found)} different ones with a solution among "
            f"them, {self.count} wanted; give FewShot the examples themselves"
        )


def _chat(info: dict[str, Any], observation: str) -> list[Message]:
    """Return the chat of an info, whose messages may be changed."""
    given = info.get("messages") or [Message(role="user", content=observation)]
    return [message.copy() for message in given]


def _pair(example: Any) -> Example:
    """Return an example as question and answer."""
    if isinstance(example, Task) and example.solution is not None:
        return example.text, example.solution
    texts = list(example) if isinstance(example, list | tuple) else []
    if len(texts) != 2 or not all(isinstance(text, str) and text for text in texts):
        raise UsageError(
            "an example is a pair of texts (question, answer) or a Task with a solution, "
            f"got {example!r:.200}"
        )
    return texts[0], texts[1]


def _asked(task: Task, template: Any) -> str:
    """Return a task's question as the environment words it."""
    return task.text if template is None else template.fill({"prompt": task.text})
