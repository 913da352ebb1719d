"""`rlvr chat ENV`: an environment tried by hand, with oneself as the policy."""

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium

from .. import envs
from ..agents.conversation import new_messages
from ..envs.playing import solution_of
from .sources import EnvChoice

if TYPE_CHECKING:
    from .commands import ChatCommand

HELP = """An answer ends with an empty line, or with a line that is only a dot.
:next   another task      :solve  what the solver does next
:quit   leave             :help   this text"""
COMMANDS = (":next", ":solve", ":quit", ":help")


def run_chat(given: "ChatCommand") -> None:
    """Pose tasks and take answers from the standard input, until `:quit` or its end.

    Raises:
        UsageError: The environment or an option is unknown.
    """
    choice = EnvChoice.parse(given.env)
    env = envs.make(choice.id, disable_env_checker=True, **choice.options)
    try:
        _Session(env, given.index, given.seed).run()
    finally:
        env.close()


class _Session:
    """One person's episodes in one environment."""

    def __init__(self, env: "gymnasium.Env[str, str]", index: int | None, seed: int | None) -> None:
        self.env, self.index, self.seed = env, index, seed
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # an answer may be any bytes
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.messages: list[dict[str, Any]] = []
        self.seen: list[str] = []
        """What was observed after each action."""
        self.over = False

    def run(self) -> None:
        """Take one answer or command after the other."""
        print(HELP)
        self.begin()
        while (text := self.read()) is not None:
            if text == ":quit":
                return
            if text == ":next":
                self.begin()
            elif text == ":solve":
                self.say("solver", self.advice())
            elif text in COMMANDS:
                print(HELP)
            elif self.over:
                print("The episode is over; :next poses another task, :quit leaves.")
            else:
                self.act(text)

    def begin(self) -> None:
        """Pose a task: the one asked for, then those behind it, or drawn ones."""
        options = None if self.index is None else {"index": self.index}
        observation, info = self.env.reset(seed=self.seed, options=options)
        tasks = getattr(self.env.unwrapped, "tasks", None)
        if self.index is not None and tasks is not None:
            self.index = (self.index + 1) % len(tasks)
        self.seed, self.seen, self.over = None, [], False
        given = info.get("messages") or [{"role": "user", "content": observation}]
        self.messages = [dict(message) for message in given]
        print(f"\ntask {info.get('task_id', '')}")
        for schema in info.get("tools") or ():
            self.say("tool offered", _signature(schema))
        self.show(self.messages)

    def act(self, text: str) -> None:
        """Take a step and show what came of it."""
        self.messages.append({"role": "assistant", "content": text})
        observation, reward, terminated, truncated, info = self.env.step(text)
        self.seen.append(observation)
        said = [dict(m) for m in new_messages(info, self.messages, observation)]
        self.over = terminated or truncated
        self.show([message for message in said if message["content"] or not self.over])
        self.messages += said
        if reward or self.over:
            print(f"reward {float(reward):g}" + (" (out of turns)" if truncated else ""))
        if self.over:
            print(_verdict(info.get("verdict") or {}))

    def advice(self) -> str:
        """Return the solver's next action, given what was observed so far."""
        task = getattr(self.env.unwrapped, "task", None)
        if self.over or task is None:
            return "nothing: the episode is over" if self.over else "no solution is known"
        try:
            action = _after(solution_of(self.env, task), self.seen)
        except Exception as error:
            return f"lost its way: {type(error).__name__}: {error}"
        return "nothing more" if action is None else action

    def read(self) -> str | None:
        """Read lines up to an empty one or a dot; a command stands alone. `None` at the end."""
        lines: list[str] = []
        while True:
            try:
                line = input(("... " if lines else ">>> ") if self.terminal else "")
            except EOFError:
                return "\n".join(lines) if lines else None
            word = line.strip()
            if not lines and word.startswith(":"):
                if word in COMMANDS:
                    return word
                print(f"no command '{_printable(word)}'; there are {', '.join(COMMANDS)}")
            elif word == "." or (not word and lines):
                return "\n".join(lines)
            elif word or lines:
                lines.append(line)

    def show(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Print messages."""
        for message in messages:
            self.say(str(message["role"]), str(message["content"]))

    def say(self, who: str, text: str) -> None:
        """Print who says what."""
        label = f"\x1b[1m[{who}]\x1b[0m" if self.terminal else f"[{who}]"
        print(f"{label} {_printable(text)}", flush=True)


def _after(plan: Iterator[str], seen: Sequence[str]) -> str | None:
    """Return a solver's action after some observations; `None` if it has no more."""
    send = getattr(plan, "send", None)
    try:
        action = next(plan)
        for observation in seen:
            action = next(plan) if send is None else send(observation)
    except StopIteration:
        return None
    return action


def _signature(schema: Mapping[str, Any]) -> str:
    """Return a tool's schema in a line."""
    function = schema.get("function", schema)
    parameters = function.get("parameters", {}).get("properties", {})
    listed = ", ".join(f"{name}: {one.get('type', 'any')}" for name, one in parameters.items())
    return f"{function.get('name')}({listed}): {function.get('description', '')}"


def _verdict(verdict: Mapping[str, Any]) -> str:
    """Return a verdict in a line."""
    evidence = verdict.get("evidence") or {}
    shown = json.dumps(evidence, ensure_ascii=False) if evidence else ""
    return _printable(f"verdict {verdict.get('status', 'none')} {shown}".rstrip())


def _printable(text: str) -> str:
    """Spell control characters out, so that no text can steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
