"""The single-turn environment: a prompt, one completion, a reward. The contextual bandit.

Nothing here knows what the task is about: the tasks are a sequence, the verifier is called through
`verify`, and whatever goes wrong in it comes out as an unscored verdict.
"""

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.utils import seeding

from .. import verifiers
from ..verifiers import Message, Task, TaskError, UsageError, Verdict, Verifier, verify
from ..verifiers.errors import unknown
from .spaces import AnyText
from .templates import Template


class PromptEnv(gymnasium.Env[str, str]):
    """One prompt, one answer.

    **Observation** `AnyText`: the newest message's text, after `reset` the task's prompt, after
    `step` the empty text. **Action** `AnyText`: the completion, decoded, without its stop token.
    **Reward** the verdict's; `nan`, with `info["unscored"]`, if the verifier failed.
    **End**: `terminated` after the one step; never `truncated`. **Start**: a task drawn from
    `np_random`, or the one at `options={"index": i}`.

    `info` of `reset`: `task_id`, `index`, `messages` (the chat so far), `tools` (none). `info` of
    `step`: `task_id`, `messages` (with the completion), `verdict` as JSON without its cost; the
    whole verdict is the attribute `verdict`.

    Example:
        >>> from rlvr.verifiers import Task, verifier
        >>> env = PromptEnv([Task(id="a", prompt="2 + 2 = ?", truth="4")],
        ...                 verifier(lambda completion, truth: completion == truth))
        >>> env.reset(seed=0)[0]
        '2 + 2 = ?'
        >>> env.step("4")[1:4]
        (1.0, True, False)
    """

    metadata: ClassVar[dict[str, Any]] = {  # pyright: ignore  (gymnasium leaves ClassVar out)
        "render_modes": ["ansi"],
        "render_fps": 1,
    }

    def __init__(
        self,
        tasks: Sequence[Task],
        verifier: Verifier | str,
        *,
        system: str | None = None,
        template: str | None = None,
        render_mode: str | None = None,
        check: bool = True,
    ) -> None:
        """Make the environment.

        Args:
            tasks: The problems; at least one.
            verifier: Judges the completions; a verifier or a registered name.
            system: A system message put before every prompt.
            template: What to make of the newest message: `"{prompt}\\nThink first."`.
            render_mode: `"ansi"` makes `render` return the chat as text.
            check: Whether every truth is shown to the verifier first: at once for a list or
                tuple, else when a task is first drawn.

        Raises:
            UsageError: There are no tasks, or an option is out of range.
            TaskError: The verifier cannot read a task's truth; names the task.
        """
        if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not len(tasks):
            raise UsageError(f"PromptEnv needs a sequence of at least one Task, got {tasks!r:.100}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise unknown("render_mode", str(render_mode), self.metadata["render_modes"])
        if system is not None and not isinstance(system, str):
            raise UsageError(f"system must be a text, got {system!r:.100}")
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.render_mode = render_mode
        self.tasks = tasks
        self.verifier = verifiers.make(verifier)
        self.system = system
        self.template = None if template is None else Template(template, ["prompt"])
        self.task: Task | None = None
        """The task of the present or last episode."""
        self.verdict: Verdict | None = None
        """The last verdict, its cost included."""
        self._messages: list[Message] = []
        self._running = False
        self._checked: set[int] | None = None
        if check and isinstance(tasks, list | tuple):
            check_truths(tasks, self.verifier)
        elif check and hasattr(self.verifier, "check_truth"):
            self._checked = set()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seeds the draw of the task, of this and the following episodes.
            options: `{"index": i}` takes `tasks[i]`.

        Returns:
            The prompt and the info.

        Raises:
            UsageError: An option is unknown or the index out of range.
            TaskError: The verifier cannot read the task's truth.
        """
        self._running = False
        if options and isinstance(seed, int) and seed >= 0:
            # nothing is drawn: the generator, which takes longer to make than all the rest of
            # this method, waits until somebody asks for it
            self._np_random, self._np_random_seed = None, seed
        else:
            super().reset(seed=seed)
        index = self._index(options)
        task = self.tasks[index]
        if self._checked is not None and index not in self._checked:
            check_truths([task], self.verifier)
            self._checked.add(index)
        self.task, self.verdict = task, None
        self._messages = self._chat(task)
        self._running = True
        info = {
            "task_id": task.id,
            "index": index,
            "messages": _copied(self._messages),
            "tools": [],
        }
        return self._messages[-1]["content"], info

    @property
    def np_random(self) -> np.random.Generator:
        """The generator of the last seed, made when it is first asked for."""
        if self._np_random is None and self._np_random_seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(self._np_random_seed)
        return super().np_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._np_random, self._np_random_seed = value, -1  # as gymnasium marks an unknown seed

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge a completion and end the episode.

        Raises:
            UsageError: The action is no text, or no episode is running.
        """
        if not isinstance(action, str):
            raise UsageError(
                f"an action is the completion's text (str), got {type(action).__name__}: "
                f"{action!r:.100}; decode tokens before step"
            )
        if not self._running or self.task is None:
            raise UsageError(
                "step without a running episode: "
                + ("it ended with its one step; " if self.verdict else "")
                + "call reset() first"
            )
        task = self.task
        self._running = False
        self.verdict = verdict = verify(self.verifier, action, task.truth, task=task)
        self._messages.append(Message(role="assistant", content=action))
        info: dict[str, Any] = {
            "task_id": task.id,
            "messages": _copied(self._messages),
            "verdict": verdict.to_json(cost=False),
        }
        if verdict.reward is None:
            info["unscored"] = True
            return "", float("nan"), True, False, info
        return "", verdict.reward, True, False, info

    def render(self) -> str | None:
        """Return the chat so far as text in the mode `"ansi"`, else nothing."""
        if self.render_mode is None:
            return None
        return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self._messages)

    def _index(self, options: dict[str, Any] | None) -> int:
        """Return the index that the options ask for, or draw one."""
        if not options:
            return int(self.np_random.integers(len(self.tasks)))
        for key in options:
            if key != "index":
                raise unknown("reset option", str(key), ["index"])
        given, count = options["index"], len(self.tasks)
        try:
            index = -1 if isinstance(given, bool) else operator.index(given)
        except TypeError:
            index = -1
        if not 0 <= index < count:
            raise UsageError(
                f"options['index'] must be an integer from 0 to {count - 1} "
                f"(there are {count} tasks), got {given!r:.100}"
            )
        return index

    def _chat(self, task: Task) -> list[Message]:
        """Return the task's messages, with system text and template."""
        messages = task.messages
        if self.template is not None:
            newest = messages[-1]
            filled = self.template.fill({"prompt": newest["content"]})
            messages[-1] = Message(role=newest["role"], content=filled)
        if self.system is not None:
            if messages[0]["role"] == "system":
                raise UsageError(
                    f"task '{task.id}' has a system message of its own; leave `system` out"
                )
            messages.insert(0, Message(role="system", content=self.system))
        return messages


def check_truths(tasks: Sequence[Task], verifier: Verifier) -> None:
    """Let a verifier look at the truth of every task, if it can (`check_truth`).

    Raises:
        TaskError: It cannot read one; names the task.
    """
    check = getattr(verifier, "check_truth", None)
    if check is None:
        return
    for task in tasks:
        try:
            check(task.truth)
        except TaskError as error:
            raise TaskError(f"task '{task.id}': {error}") from error


def _copied(messages: list[Message]) -> list[Message]:
    """Copy a chat: what an environment hands out, its user may change."""
    return [message.copy() for message in messages]
