"""Demonstrations of several turns: an environment's own solver, with mistakes mixed in.

The solver plays, and the environment answers as it does in training, so that a model that imitates
the actions sees what it will see. Each action has a mistake with the same chance: a number of it
becomes another number of the chat, or where it has none, it becomes an action of another
demonstration. The solver goes on from what came of it, so that the form stays right to the end. A
model cannot tell from the chat which episodes will have a mistake, so that the chance per action
is chosen for the share of episodes without one: 1 − right^(1/K) for K actions.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np

from ..agents.conversation import new_messages
from ..envs import DialogueEnv
from ..envs.playing import MAX_ACTIONS, solution_of
from ..verifiers import TaskError
from .sources import Source

SHOWN = 2000, 8000
"""Demonstrations that are played, at least and at most, to be drawn from: as many as there are
tasks. A small model that sees few of them again and again learns them, mistakes and all, by heart:
after 600 steps on 2000 without mistakes the embedded default solves nine in ten unseen tasks of
the calculator, on 8000 all but two in a hundred."""

_NUMBER = re.compile(r"\d+")

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An episode to imitate.

    Example:
        `Demonstration(opening=[{"role": "user", "content": "1 to 9?"}], tools=[],
        actions=["5", "7"], said=[[{"role": "user", "content": "higher"}], []])`
    """

    opening: Sequence[Message]
    """The chat before the first action."""
    tools: Sequence[Any]
    """What may be called."""
    actions: Sequence[str]
    """What is imitated."""
    said: Sequence[Sequence[Message]]
    """What the environment said after each action."""


def has_turns(source: Source) -> bool:
    """Whether an environment's episodes may have several turns."""
    inner = source.instances(1)[0].unwrapped
    return isinstance(inner, DialogueEnv) and inner.turns > 1


def play_demonstrations(
    sources: Sequence[Source], right: float, seed: int = 0, count: int | None = None
) -> list[Demonstration]:
    """Let the solvers of some environments play.

    Args:
        sources: The environments; those with more tasks are shown more often.
        right: Share of demonstrations without a mistake.
        seed: Of the choice of tasks and mistakes.
        count: How many; none: as many as there are tasks, within `SHOWN`.

    Raises:
        TaskError: A task has no solution to show.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 8]))
    sizes = np.array([len(source.tasks or ()) for source in sources], dtype=float)
    if count is None:
        count = int(np.clip(sizes.sum(), *SHOWN))
    others: list[str] = []
    out: list[Demonstration] = []
    for number in rng.choice(len(sources), size=count, p=sizes / sizes.sum()).tolist():
        source = sources[number]
        index = int(rng.integers(len(source.tasks or ())))
        found = _played(source, index, (), rng, others)
        others += found.actions[: MAX_ACTIONS - len(others)]
        actions = len(found.actions)
        wrong = np.flatnonzero(rng.random(actions) < 1 - right ** (1 / actions)).tolist()
        if wrong:
            found = _played(source, index, wrong, rng, others)
        out.append(found)
    return out


def _played(
    source: Source,
    index: int,
    wrong: Sequence[int],
    rng: np.random.Generator,
    others: Sequence[str],
) -> Demonstration:
    """Play one task, with a mistake in the actions of some numbers."""
    env = source.instances(1)[0]
    task = env.unwrapped.tasks[index]  # pyright: ignore
    observation, info = env.reset(seed=index, options={"index": index})
    opening = [dict(m) for m in info.get("messages") or [{"role": "user", "content": observation}]]
    chat, actions, said = [*opening], [], []
    tools, plan = list(info.get("tools") or ()), solution_of(env, task)
    while len(actions) < MAX_ACTIONS:
        at = len(actions)
        astray = any(at > number for number in wrong)
        action = _next(plan, observation, at > 0, astray)
        if action is None:
            break
        if at in wrong:
            action = mistaken(action, [m["content"] for m in chat], others, rng)
        actions.append(action)
        chat.append({"role": "assistant", "content": action})
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        new = [] if over else [dict(m) for m in new_messages(info, chat, observation)]
        chat += new
        said.append(new)
        if over:
            break
    _abandon(env)
    if not actions:
        raise TaskError(
            f"task '{task.id}' has no solution to demonstrate; give tasks a `solution`, the "
            "environment a `solve`, or demonstrations of your own with --data"
        )
    return Demonstration(opening=opening, tools=tools, actions=actions, said=said)


def _next(plan: Iterator[str], observation: str, begun: bool, astray: bool) -> str | None:
    """Return a solver's next action; `None` at its end, or where a mistake led it astray."""
    send = getattr(plan, "send", None)
    try:
        return send(observation) if begun and send is not None else next(plan)
    except StopIteration:
        return None
    except Exception:
        if not astray:
            raise
        return None


def mistaken(
    action: str, chat: Sequence[str], others: Sequence[str], rng: np.random.Generator
) -> str:
    """Return an action with a mistake in the right form.

    Args:
        action: The right one.
        chat: The texts so far, whose numbers are taken.
        others: Actions to choose from where the action has no number.
        rng: Source of the choice.

    Example:
        >>> mistaken("add 12", ["12 + 7 = ?"], [], np.random.default_rng(0))
        'add 7'
    """
    found = list(_NUMBER.finditer(action))
    if not found:
        different = sorted(set(others) - {action})
        return different[rng.integers(len(different))] if different else action
    place = found[rng.integers(len(found))]
    known = [n for n in _NUMBER.findall(" ".join(chat)) if n != place.group()]
    if not known:
        return action
    return action[: place.start()] + known[rng.integers(len(known))] + action[place.end() :]


def _abandon(env: "gymnasium.Env[str, str]") -> None:
    abandon = getattr(env.unwrapped, "abandon", None)
    if abandon is not None:
        abandon()


def fingerprint(shown: Sequence[Demonstration]) -> str:
    """Return a hash of everything that demonstrations show."""
    digest = hashlib.sha256()
    for one in shown:
        digest.update(json.dumps(asdict(one), sort_keys=True, default=str).encode())
    return digest.hexdigest()
