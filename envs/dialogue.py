"""Episodes of several turns: the policy acts, the environment answers, until one of them ends it.

An environment of this kind overrides `answer`, and whatever else it needs: `open` for the state of
an episode (a database, a folder, a game), `judge` to look at that state instead of the last words.
Everything else (chat, turn limit, rewards, errors, release of the state, branching) is done here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ..verifiers import Message, Task, UsageError, Verdict, Verifier
from ..verifiers.protocol import as_verdict, failure, verify
from .base import copied, said_text
from .judging import asked, placed
from .neutral import neutral
from .replies import Reply, lifted, messages_of
from .snapshots import NOTHING, Chance, Progress
from .states import S, StateEnv, rng_of


class DialogueEnv(StateEnv[S]):
    """Several turns of one chat, with a state of its own, judged at the end.

    **Observation** `AnyText`: what the environment said last (several messages: a line apart).
    **Action** `AnyText`: the completion, decoded, without its stop token. **Reward** the turn's
    own (`Reply.reward`), and at the end the verdict's on top; `nan` at the end, with
    `info["unscored"]`, if the verifier or the environment's own code failed. **End**: `terminated`
    when a reply is `done`; `truncated` when `turns` actions brought no end (with `turns=1`
    `terminated`, since that turn was all there was). A truncated episode is judged too, with the
    answer `None`: the default is `unparsed`, 0; a task that judges its state may pay.
    **Start**: as in `PromptEnv`; the state follows from the task alone, chance during the episode
    from `np_random`.

    `info` of `reset`: `task_id`, `index`, `messages` (the chat so far), `tools`. `info` of a
    `step` that goes on: `task_id`, `turn` (actions so far), `turn_reward`, `messages` (what the
    environment says now); of the last: `messages` is the whole chat, and `verdict` is added.

    The state is released when the episode ends, is reset, fails or is interrupted, on `close`, when
    the environment is forgotten, and at the end of the process.

    Example:
        >>> class Guess(DialogueEnv[int]):
        ...     def answer(self, action, state):
        ...         hit = action == str(self.task.truth)
        ...         return Reply("yes" if hit else "no", done=hit)
        >>> env = Guess([Task(id="a", prompt="Which digit?", truth=4)], verifier="number", turns=3)
        >>> env.reset(seed=0)[0], env.step("3")[:3], env.step("4")[:3]
        ('Which digit?', ('no', 0.0, False), ('yes', 1.0, True))
    """

    TURNS: ClassVar[int] = 10
    """Actions per episode at most, where `turns` is not given."""
    ROLE: ClassVar[str] = "user"
    """Who says a reply that is a text."""
    _ENDED: ClassVar[str] = "it is over"

    def __init__(
        self,
        tasks: Sequence[Task],
        verifier: Verifier | str | None = None,
        *,
        turns: int | None = None,
        system: str | None = None,
        template: str | None = None,
        render_mode: str | None = None,
        check: bool = True,
        keep_markers: bool = False,
        debug: bool = False,
    ) -> None:
        """Make the environment.

        Args:
            tasks: The problems; at least one.
            verifier: Judges the final answer; a verifier or a registered name. It is given
                `state` and `messages` if it names them among its parameters. Not needed where
                `judge` is overridden.
            turns: Actions per episode at most.
            system: A system message put before every prompt.
            template: What to make of the newest message of the opening.
            render_mode: `"ansi"` makes `render` return the chat as text.
            check: Whether truths are shown to the verifier first.
            keep_markers: Whether what the environment says may spell control tokens of chat
                templates; otherwise a space breaks them up, because a tokenizer would take
                `<|im_end|>` for the end of the message.
            debug: Whether errors of the environment's own code are raised, instead of making the
                episode unscored.

        Raises:
            UsageError: There are no tasks, nobody judges, or an option is out of range.
            TaskError: The verifier cannot read a task's truth; names the task.
        """
        super().__init__(
            tasks, verifier, system=system, template=template, render_mode=render_mode, check=check
        )
        if verifier is None and type(self).judge is DialogueEnv.judge:
            raise UsageError(
                f"{type(self).__name__} needs a verifier: pass one, or override judge()"
            )
        turns = self.TURNS if turns is None else turns
        if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
            raise UsageError(f"turns must be an integer from 1 up, got {turns!r:.100}")
        self.turns = turns
        """Actions per episode at most."""
        self.keep_markers = keep_markers
        """Whether what the environment says may spell control tokens."""
        self.debug = debug
        """Whether errors of the environment's own code are raised."""
        self._turn = 0
        self._actions: list[str] = []
        self._begun = Chance(None, None, None)
        self._opens = type(self).open is not DialogueEnv.open

    def opening(self, task: Task, state: S) -> str | Sequence[Message]:
        """Return what the policy is told first; the task's prompt by default."""
        return task.messages

    def answer(self, action: str, state: S) -> Reply | str:
        """Answer one action; a text is a reply that goes on.

        What is wrong with the action is said in the reply. An exception is the environment's
        failure: it ends the episode without a score.
        """
        raise NotImplementedError(f"{type(self).__name__} must override answer()")

    def judge(self, task: Task, state: S, answer: str | None) -> Verdict | bool | float:
        """Judge the episode at its end, before the state is released.

        Args:
            task: The task.
            state: The final state.
            answer: What was given as the final answer; `None` if the turns ran out.
        """
        if answer is None:
            return Verdict.unparsed(f"no final answer within {self.turns} turns")
        context: dict[str, Any] = {"task": task}
        for name in asked(self.verifier):
            context[name] = state if name == "state" else self.messages
        return verify(self.verifier, answer, task.truth, **context)

    def solve(self, task: Task) -> Iterator[str]:
        """Yield the actions of a solution; each `yield` returns what was observed before it.

        By default `task.solution` as the one action. Used by `rlvr check` and for demonstrations.
        """
        if task.solution is not None:
            yield task.solution

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode; one that is going on is abandoned.

        Args:
            seed: Seeds the draw of the task and chance, of this and the following episodes.
            options: `{"index": i}` takes `tasks[i]`.

        Returns:
            The opening's newest message and the info.

        Raises:
            UsageError: An option is unknown or the index out of range.
            TaskError: The verifier cannot read the task's truth.
            Exception: Whatever `open` or `opening` raised, with a note that names the task.
        """
        task = self._pose(seed, options)
        self._begun = self._chance()
        self._open(task)
        self._running = True
        return self._messages[-1]["content"], self._info(task)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer an action, and judge the episode if that ends it.

        Raises:
            UsageError: The action is no text, or no episode is running.
        """
        task = self.task
        if not isinstance(action, str) or not self._running or task is None:
            raise self._refuse(action)
        try:
            reply, said = self._exchange(action)
        except BaseException as error:
            return self._failed(task, error, Reply(done=True), [])
        if reply.done or self._turn >= self.turns:
            return self._judged(task, action, reply, said)
        info = self._told(task, reply, said)
        return said_text(said), reply.reward, False, False, info

    def _open(self, task: Task) -> None:
        """Make the state and the opening of the chat."""
        self._turn, self._said, self._actions = 0, 1, []
        try:
            self._hold(self.open(task, rng_of(task)) if self._opens else None)
            opening = messages_of(self.opening(task, self._state), self.ROLE)
            if not opening:
                raise ValueError("the opening says nothing; return a text or messages")
            self._messages = self._chat(opening)
        except BaseException as error:
            self._let_go()
            error.add_note(f"raised while {type(self).__name__} began the task '{task.id}'")
            raise

    def message(self, action: str) -> Message:
        """Return an action as a message of the chat."""
        return {"role": "assistant", "content": action}

    def _exchange(self, action: str) -> tuple[Reply, list[Message]]:
        """Have an action answered and enter both into the chat."""
        self._turn += 1
        self._actions.append(action)
        self._messages.append(self.message(action))
        reply = self.answer(action, self._state)
        if type(reply) is not Reply:
            reply = lifted(reply)
        said = messages_of(reply.messages, self.ROLE)
        reply.reward = float(reply.reward)
        if not math.isfinite(reply.reward):
            raise ValueError(f"a turn's reward is a finite number, got {reply.reward}")
        if not said and not reply.done:
            raise ValueError("a reply that does not end the episode says something, got nothing")
        if not self.keep_markers:
            for message in said:
                message["content"] = neutral(message["content"])
        self._messages += said
        self._said = len(said)
        return reply, said

    def _judged(
        self, task: Task, action: str, reply: Reply, said: list[Message]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge the episode and close it."""
        answer = None
        if reply.done:
            answer = action if reply.answer is None else reply.answer
        try:
            verdict = as_verdict(self.judge(task, self._state, answer))
        except BaseException as error:
            return self._failed(task, error, reply, said)
        return self._ended(task, reply, said, verdict)

    def _told(self, task: Task, reply: Reply, messages: Sequence[Message]) -> dict[str, Any]:
        """Return the info of a step."""
        info: dict[str, Any] = {
            "task_id": task.id,
            "turn": self._turn,
            "turn_reward": reply.reward,
            "messages": copied(messages),
        }
        return {**reply.info, **info} if reply.info else info

    def _ended(
        self, task: Task, reply: Reply, said: list[Message], verdict: Verdict
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Close the episode with a verdict."""
        self.abandon()
        self.verdict = verdict
        truncated = not reply.done and self.turns > 1
        info = self._told(task, reply, self._messages)
        info["verdict"] = verdict.to_json(cost=False)
        reward = math.nan
        if verdict.reward is None:
            info["unscored"] = True
        else:
            reward = reply.reward + verdict.reward
        return said_text(said), reward, not truncated, truncated, info

    def _failed(
        self, task: Task, error: BaseException, reply: Reply, said: list[Message]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Close the episode without a score; Ctrl-C is raised again."""
        self.abandon()
        if self.debug:
            raise error
        return self._ended(task, reply, said, placed(failure(error), error))

    def _pose(self, seed: int | None, options: Mapping[str, Any] | None) -> Task:
        """Release what the last episode held, then choose the task."""
        self.abandon()
        return super()._pose(seed, options)

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), self.turns)

    def _progress(self, task: Task) -> Progress:
        base = super()._progress(task)
        return Progress(**{**vars(base), "actions": tuple(self._actions), "begun": self._begun})

    def _resume(self, task: Task, progress: Progress, state: Any) -> None:
        """Have the state again, as a copy or by replay, and the chat."""
        assert progress.begun is not None
        self._begun = progress.begun
        if state is NOTHING:
            self._replay(task, progress)
        else:
            self._hold(self.copy_state(state))
            self._turn, self._actions = len(progress.actions), list(progress.actions)
        super()._resume(task, progress, state)

    def _replay(self, task: Task, progress: Progress) -> None:
        """Make the state again by answering the same actions."""
        self._set_chance(self._begun)
        self._open(task)
        try:
            for action in progress.actions:
                self._exchange(action)
            if self._messages != list(progress.messages):
                raise UsageError(
                    f"{type(self).__name__} cannot be restored: the same actions brought another "
                    f"chat at task '{task.id}'; make open() and answer() depend on the task, the "
                    "actions and np_random alone, or override copy_state()"
                )
        except BaseException:
            self._let_go()
            raise
