"""What every environment over tasks shares: which task is posed, and the chat that poses it.

Nothing here knows whether an episode has one turn or many.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.utils import seeding

from .. import verifiers
from ..verifiers import Message, Task, TaskError, UsageError, Verdict, Verifier
from ..verifiers.errors import unknown
from .snapshots import NOTHING, Chance, Progress, Release, Snapshot, mark_of
from .spaces import AnyText
from .templates import Template


class TaskEnv(gymnasium.Env[str, str]):
    """An environment that poses tasks; `PromptEnv` and `DialogueEnv` are the two kinds."""

    metadata: ClassVar[dict[str, Any]] = {  # pyright: ignore  (gymnasium leaves ClassVar out)
        "render_modes": ["ansi"],
        "render_fps": 1,
    }

    _ENDED: ClassVar[str] = "it ended with its one step"

    def __init__(
        self,
        tasks: Sequence[Task],
        verifier: Verifier | str | None,
        *,
        system: str | None = None,
        template: str | None = None,
        render_mode: str | None = None,
        check: bool = True,
    ) -> None:
        """Make the environment.

        Args:
            tasks: The problems; at least one.
            verifier: Judges; a verifier, a registered name, or `None` for an environment that
                judges by itself.
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
            raise UsageError(
                f"{type(self).__name__} needs a sequence of at least one Task, got {tasks!r:.100}"
            )
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise unknown("render_mode", str(render_mode), self.metadata["render_modes"])
        if system is not None and not isinstance(system, str):
            raise UsageError(f"system must be a text, got {system!r:.100}")
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.render_mode = render_mode
        self.tasks = tasks
        self.verifier: Any = None if verifier is None else verifiers.make(verifier)
        self.system = system
        self.template = None if template is None else Template(template, ["prompt"])
        self.task: Task | None = None
        """The task of the present or last episode."""
        self.verdict: Verdict | None = None
        """The last verdict, its cost included."""
        self._messages: list[Message] = []
        self._index = 0
        self._said = 1
        """How many of the last messages the environment said last."""
        self._running = False
        self._checked: set[int] | None = None
        if check and isinstance(tasks, list | tuple):
            check_truths(tasks, self.verifier)
        elif check and hasattr(self.verifier, "check_truth"):
            self._checked = set()

    @property
    def messages(self) -> list[Message]:
        """The chat of the present or last episode, from the prompt on; a copy."""
        return copied(self._messages)

    @property
    def running(self) -> bool:
        """Whether an episode is going on, so that `step` may be called."""
        return self._running

    @property
    def np_random(self) -> np.random.Generator:
        """The generator of the last seed, made when it is first asked for."""
        if self._np_random is None and self._np_random_seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(self._np_random_seed)
        return super().np_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._np_random, self._np_random_seed = value, -1  # as gymnasium marks an unknown seed

    def snapshot(self) -> Snapshot:
        """Return where the episode stands, so that it can be gone on from, as often as wanted.

        Raises:
            UsageError: No episode is running.
        """
        if not self._running or self.task is None:
            raise UsageError("snapshot without a running episode: call reset() first")
        return Snapshot(self._progress(self.task), *self._state_copy())

    def restore(self, snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
        """Go on from a snapshot instead of what is going on now.

        Args:
            snapshot: Of this environment or one made in the same way; it stays usable. (What
                `gymnasium.make` puts around an environment wants one `reset` before.)

        Returns:
            The newest observation and the info of `reset`, with the chat so far.

        Raises:
            UsageError: It was taken from another environment or task, or replay does not bring
                the same chat (the environment is not deterministic).
        """
        if not isinstance(snapshot, Snapshot):
            raise UsageError(f"restore takes what snapshot() returned, got {snapshot!r:.100}")
        progress = snapshot.progress
        count = len(self.tasks)
        mine = progress.index < count and self._mark(self.tasks[progress.index]) == progress.mark
        if not mine:
            raise UsageError(
                f"the snapshot (task {progress.index}) is of another environment, task or settings "
                f"than this {type(self).__name__} with {count} tasks; restore it where it was "
                "taken, or in an environment made in the same way"
            )
        task = self._pose(None, {"index": progress.index})
        self._resume(task, progress, snapshot.state)
        self._running = True
        newest = self._messages[len(self._messages) - self._said :]
        return said_text(newest), self._info(task)

    def render(self) -> str | None:
        """Return the chat so far as text in the mode `"ansi"`, else nothing."""
        if self.render_mode is None:
            return None
        return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self._messages)

    def _pose(self, seed: int | None, options: Mapping[str, Any] | None) -> Task:
        """Seed the generator and choose the task."""
        self._running = False
        if options and isinstance(seed, int) and seed >= 0:
            # nothing is drawn: the generator, which takes longer to make than all the rest of
            # this method, waits until somebody asks for it
            self._np_random, self._np_random_seed = None, seed
        else:
            super().reset(seed=seed)
        self._index = index = self._chosen(options)
        task = self.tasks[index]
        if self._checked is not None and index not in self._checked:
            check_truths([task], self.verifier)
            self._checked.add(index)
        self.task, self.verdict = task, None
        return task

    def _info(self, task: Task) -> dict[str, Any]:
        """Return the info of `reset`."""
        return {
            "task_id": task.id,
            "index": self._index,
            "messages": copied(self._messages),
            "tools": self._tools(),
        }

    def _tools(self) -> list[dict[str, Any]]:
        """Return the JSON schemas of the tools that the policy may call."""
        return []

    def _refuse(self, action: Any) -> UsageError:
        """Say why an action cannot be taken."""
        if not isinstance(action, str):
            return UsageError(
                f"an action is the completion's text (str), got {type(action).__name__}: "
                f"{action!r:.100}; decode tokens before step"
            )
        ended = f"{self._ENDED}; " if self.verdict else ""
        return UsageError(f"step without a running episode: {ended}call reset() first")

    def _chosen(self, options: Mapping[str, Any] | None) -> int:
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

    def _chat(self, messages: list[Message]) -> list[Message]:
        """Return a task's messages, with system text and template."""
        if self.template is not None:
            newest = messages[-1]
            filled = self.template.fill({"prompt": newest["content"]})
            messages[-1] = Message(role=newest["role"], content=filled)
        if self.system is not None:
            if messages[0]["role"] == "system":
                raise UsageError(
                    f"task '{self.task.id if self.task else ''}' has a system message of its own; "
                    "leave `system` out"
                )
            messages.insert(0, Message(role="system", content=self.system))
        return messages

    def _progress(self, task: Task) -> Progress:
        """Return what of the episode is the same for every kind of environment."""
        return Progress(
            index=self._index,
            mark=self._mark(task),
            chance=self._chance(),
            messages=tuple(copied(self._messages)),
            said=self._said,
        )

    def _state_copy(self) -> tuple[Any, Release | None]:
        """Return a copy of the episode's state, and what frees it."""
        return NOTHING, None

    def _resume(self, task: Task, progress: Progress, state: Any) -> None:
        """Take over what a snapshot holds; the task is posed already."""
        self._messages, self._said = copied(progress.messages), progress.said
        self._set_chance(progress.chance)

    def _mark(self, task: Task) -> str:
        """Return what tells this environment and task from others."""
        return mark_of(type(self), task, self._settings())

    def _settings(self) -> tuple[Any, ...]:
        """Return the settings that an episode depends on."""
        return (self.system, None if self.template is None else self.template.text)

    def _chance(self) -> Chance:
        """Return where the generator stands."""
        return Chance.of(self._np_random, self._np_random_seed)

    def _set_chance(self, chance: Chance) -> None:
        self._np_random, self._np_random_seed = chance.generator(), chance.seed


def check_truths(tasks: Sequence[Task], verifier: Verifier | None) -> None:
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


def said_text(messages: Sequence[Message]) -> str:
    """Return messages as one observation: their texts, a line apart."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(message["content"] for message in messages)


def copied(messages: Sequence[Message]) -> list[Message]:
    """Copy a chat: what an environment hands out, its user may change."""
    return [message.copy() for message in messages]
