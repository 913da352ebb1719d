"""The single-turn environment: a prompt, one completion, a reward. The contextual bandit.

Nothing here knows what the task is about: the tasks are a sequence, the verifier is called through
`verify`, and whatever goes wrong in it comes out as an unscored verdict.
"""

from collections.abc import Sequence
from typing import Any

from ..verifiers import Message, Task, Verifier, verify
from .base import TaskEnv, check_truths, copied


class PromptEnv(TaskEnv):
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
        super().__init__(
            tasks, verifier, system=system, template=template, render_mode=render_mode, check=check
        )

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
        task = self._pose(seed, options)
        self._messages, self._said = self._chat(task.messages), 1
        self._running = True
        return self._messages[-1]["content"], self._info(task)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge a completion and end the episode.

        Raises:
            UsageError: The action is no text, or no episode is running.
        """
        task = self.task
        if not isinstance(action, str) or not self._running or task is None:
            raise self._refuse(action)
        self._running = False
        self.verdict = verdict = verify(self.verifier, action, task.truth, task=task)
        self._messages.append(Message(role="assistant", content=action))
        info: dict[str, Any] = {
            "task_id": task.id,
            "messages": copied(self._messages),
            "verdict": verdict.to_json(cost=False),
        }
        if verdict.reward is None:
            info["unscored"] = True
            return "", float("nan"), True, False, info
        return "", verdict.reward, True, False, info


__all__ = ["PromptEnv", "check_truths"]
