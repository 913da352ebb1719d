"""Where prompts come from: environments, their instances, and the order of their tasks.

A *source* is one environment with its options. It keeps as many instances as a rollout needs; they
share the tasks. `Schedule` says which tasks a training step poses: each source's tasks are walked
through in a new seeded order every epoch, and the only state is how far each walk has come.
"""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from .. import envs
from ..agents.rollouts import Episode
from ..agents.types import Trajectory
from ..envs import PromptEnv, TaskEnv
from ..envs.judging import asked
from ..verifiers import Isolated, Task, TaskError, UsageError, Verifier, guarded

IN_PYTHON = "python:"
"""What the settings of a run call an object begins with this, if it was given in Python."""

EnvLike = "str | gymnasium.Env[str, str] | Callable[[], gymnasium.Env[str, str]]"
"""An id with options, an environment, or a function that makes one."""


@dataclass(frozen=True, kw_only=True)
class EnvChoice:
    """An environment's id with its options, as written in a configuration."""

    id: str
    """`"rlvr/GCD-v0"` or `"module:id"`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `make`."""
    weight: float = 1.0
    """Share of the prompts, relative to the other environments."""

    @classmethod
    def parse(cls, text: str) -> "EnvChoice":
        """Read `"rlvr/Arithmetic-v0 terms=3 high=10 weight=2"`.

        Values are read as JSON where they can be, else as text; quote what holds spaces.

        Raises:
            UsageError: The text is empty, or an option is not `name=value`.

        Example:
            >>> EnvChoice.parse("rlvr/GSM8K-v0 path='my file.jsonl' size=10").options
            {'path': 'my file.jsonl', 'size': 10}
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(
                f"environment {text!r}: {error}; quote what holds spaces: path='my file.jsonl'"
            ) from error
        if not words:
            raise UsageError("an environment is an id with options, got an empty text")
        options: dict[str, Any] = {}
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError(
                    f"environment '{words[0]}': an option is name=value, got '{word}'; "
                    f'for example "{words[0]} size=100"'
                )
            options[name] = option_value(value)
        weight = options.pop("weight", 1.0)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < math.inf:
            raise UsageError(
                f"environment '{words[0]}': weight must be above 0 and finite, got {weight!r}"
            )
        return cls(id=words[0], options=options, weight=float(weight))


def option_value(text: str) -> Any:
    """Read an option's value: JSON where it can be, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class Source:
    """One environment: its name, its tasks and its instances."""

    def __init__(
        self,
        name: str,
        make: Callable[[], "gymnasium.Env[str, str]"],
        weight: float = 1.0,
    ) -> None:
        """Make the first instance, so that every fault shows before training starts."""
        self.name = name
        self.weight = weight
        self._make = make
        self._envs = [make()]
        spec = self._envs[0].spec
        self.label = spec.id if spec else type(self._envs[0].unwrapped).__name__
        """What its episodes are called; different for every source of a run."""
        self._judge: Verifier | None = None
        tasks = getattr(self._envs[0].unwrapped, "tasks", None)
        self.tasks: Sequence[Task] | None = tasks
        """The tasks; `None` for an environment that poses problems of its own."""

    def guard(self, timeout: float) -> str:
        """Put the verifier behind a limit of `timeout` seconds; 0 leaves it as it is.

        Returns:
            What has no limit all the same, and why; empty if nothing.
        """
        inner = self._envs[0].unwrapped
        if not timeout:
            return ""
        if not isinstance(inner, TaskEnv):
            return f"{self.name} is no TaskEnv: a `step` that hangs is waited for"
        if inner.verifier is None:
            ours = type(inner).__module__.startswith(f"{envs.__name__}.")
            return (
                "" if ours else f"{self.name} judges by itself: a `step` that hangs is waited for"
            )
        try:
            judge = guarded(inner.verifier, timeout)
        except UsageError as error:
            return f"{self.name}: {error}; a check that hangs is waited for"
        if judge is not inner.verifier and "state" in asked(inner.verifier):
            return (
                f"{self.name}: its verifier looks at the state of the episode, which cannot be "
                "sent to a process that could be killed; a check that hangs is waited for"
            )
        self._judge = inner.verifier = judge
        return ""

    def instances(self, count: int) -> list["gymnasium.Env[str, str]"]:
        """Return `count` different instances, making what is missing."""
        while len(self._envs) < count:
            self._envs.append(self.fresh())
        return self._envs[:count]

    def fresh(self) -> "gymnasium.Env[str, str]":
        """Make an instance that the caller keeps."""
        env = self._make()
        if self._judge is not None and isinstance(env.unwrapped, TaskEnv):
            env.unwrapped.verifier = self._judge
        return env

    def close(self) -> None:
        """Close every instance."""
        for env in self._envs:
            env.close()
        if isinstance(self._judge, Isolated):
            self._judge.close()


def open_sources(
    chosen: Sequence[Any], verifier: Verifier | str | None = None, split: str | None = None
) -> list[Source]:
    """Open environments.

    Args:
        chosen: Ids with options, environments, or functions that make one.
        verifier: Judges in place of the environments' own.
        split: Asked of every id that takes the option `split` and was not given one.

    Raises:
        UsageError: An id or option is unknown, or something is no environment.
    """
    found = [_open(one, verifier, split) for one in chosen]
    labels = [source.label for source in found]
    for number, source in enumerate(found, 1):
        if labels.count(source.label) > 1:
            source.label = f"{source.label}#{number}"
    return found


def spelt(given: Any) -> str:
    """Return a text as it is, and the name of an object that was given in its place.

    Example:
        >>> spelt("rlvr/GCD-v0"), spelt(len)
        ('rlvr/GCD-v0', 'python:len')
    """
    if isinstance(given, str):
        return given
    inner = given.unwrapped if isinstance(given, gymnasium.Env) else given
    name = getattr(inner, "name", None) or getattr(inner, "__name__", None)
    return IN_PYTHON + str(name or type(inner).__name__)


def _open(one: Any, verifier: Verifier | str | None, split: str | None) -> Source:
    if isinstance(one, str):
        choice = EnvChoice.parse(one)
        options = dict(choice.options)
        judge = options.get("verifier") if verifier is None else None
        for what, name in (("env", choice.id), ("verifier", judge)):
            if str(name).startswith(IN_PYTHON):
                raise UsageError(
                    f"{what}='{name}' was given in Python, as an object that no file holds; go on "
                    f"with train(config, {what}=…, resume=True)"
                )
        if split is not None and "split" not in options and takes_split(choice.id):
            options["split"] = split
        if verifier is not None:
            options["verifier"] = verifier
        return Source(
            choice.id.rpartition(":")[2], lambda: _make(choice.id, options), choice.weight
        )
    if isinstance(one, gymnasium.Env):
        return Source(*_copies(one, verifier))
    if callable(one):
        return Source(getattr(one, "__name__", "env"), lambda: _judged(one(), verifier))
    raise UsageError(
        f"an environment is an id with options, an environment or a function that makes one, got "
        f"{one!r:.100}"
    )


def takes_split(id: str) -> bool:
    """Whether an environment has a held-out side of its own."""
    envs.make  # noqa: B018  (importing `envs` registered our ids)
    name = id.rpartition(":")[2]
    return name in envs.names() and "split" in envs.options(name)


def _make(id: str, options: Mapping[str, Any]) -> "gymnasium.Env[str, str]":
    return envs.make(id, disable_env_checker=True, **options)


def _copies(
    env: "gymnasium.Env[str, str]", verifier: Verifier | str | None
) -> tuple[str, Callable[[], "gymnasium.Env[str, str]"]]:
    """Return a name and a factory for the likes of an environment."""
    inner = env.unwrapped
    if not isinstance(inner, PromptEnv) or env is not inner:
        raise UsageError(
            f"one {type(env).__name__} cannot run several episodes at once; pass a function that "
            "makes it, such as lambda: MyEnv(…)"
        )
    template = None if inner.template is None else inner.template.text
    return type(inner).__name__, lambda: PromptEnv(
        inner.tasks,
        inner.verifier if verifier is None else verifier,
        system=inner.system,
        template=template,
        check=False,
    )


def _judged(env: Any, verifier: Verifier | str | None) -> "gymnasium.Env[str, str]":
    if not isinstance(env, gymnasium.Env):
        raise UsageError(f"the function must return a gymnasium.Env, got {type(env).__name__}")
    if verifier is None:
        return env
    if not isinstance(env.unwrapped, TaskEnv) or env.unwrapped.verifier is None:
        raise UsageError(
            f"verifier= replaces the one of an environment over tasks, and "
            f"{type(env.unwrapped).__name__} judges by itself; leave it out"
        )
    from ..verifiers import make

    env.unwrapped.verifier = make(verifier)
    return env


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt of a step: a source, its task, and the seed of whatever else it draws."""

    source: int
    """Which source."""
    index: int | None
    """Which of its tasks; `None` if it has none to choose from."""
    env_seed: int
    """Seeds the environment, the same for all episodes of the group."""


class Schedule:
    """Which tasks each step poses: a seeded walk through every source, a new order each time."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        """Start every walk at its beginning."""
        self.sources = sources
        self.seed = seed
        self.cursors = [0] * len(sources)
        """Tasks taken from each source so far: all that a checkpoint needs."""
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def step(self, step: int, prompts: int, number: int = 0) -> list[Prompt]:
        """Return the prompts of a step, or of a further round of it, and move on."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 1, step, number]))
        weights = np.array([source.weight for source in self.sources])
        picks = rng.choice(len(weights), size=prompts, p=weights / weights.sum())
        seeds = rng.integers(2**31, size=prompts)
        return [
            Prompt(source=int(pick), index=self._next(int(pick)), env_seed=int(seed))
            for pick, seed in zip(picks, seeds, strict=True)
        ]

    def _next(self, number: int) -> int | None:
        tasks = self.sources[number].tasks
        at = self.cursors[number]
        self.cursors[number] += 1
        if tasks is None:
            return None
        epoch, place = divmod(at, len(tasks))
        key = (number, epoch)
        if key not in self._orders:
            entropy = np.random.SeedSequence([self.seed, 2, number, epoch])
            self._orders = {k: v for k, v in self._orders.items() if k[0] != number}
            self._orders[key] = np.random.default_rng(entropy).permutation(len(tasks))
        return int(self._orders[key][place])


def episodes_of(
    sources: Sequence[Source], prompts: Sequence[Prompt], group_size: int, entropy: Sequence[int]
) -> list[Episode]:
    """Make `group_size` episodes of each prompt, each with a seed of its own.

    Args:
        sources: The sources.
        prompts: The prompts, one group each.
        group_size: Episodes per prompt.
        entropy: What the episodes' seeds are derived from.
    """
    count = len(prompts) * group_size
    seeds = np.random.SeedSequence(list(entropy)).generate_state(count, np.uint64)
    per_source = [sum(p.source == i for p in prompts) * group_size for i in range(len(sources))]
    free = [iter(s.instances(n)) for s, n in zip(sources, per_source, strict=True)]
    return [
        Episode(
            env=next(free[prompt.source]),
            seed=int(seeds[group * group_size + member]),
            env_seed=prompt.env_seed,
            index=prompt.index,
            group=group,
        )
        for group, prompt in enumerate(prompts)
        for member in range(group_size)
    ]


def labelled(
    found: Sequence[Trajectory], prompts: Sequence[Prompt], sources: Sequence[Source]
) -> Sequence[Trajectory]:
    """Call episodes after their source: two may have the same environment with other options.

    Args:
        found: The episodes; group g answers `prompts[g]`.
        prompts: What they answer.
        sources: Of the prompts.
    """
    for trajectory in found:
        trajectory.env = sources[prompts[trajectory.group].source].label
    return found


def training_tasks(sources: Sequence[Source]) -> list[Task]:
    """Return the tasks of all sources that have any.

    Raises:
        TaskError: None has.
    """
    tasks = [task for source in sources if source.tasks is not None for task in source.tasks]
    if not tasks:
        names = ", ".join(source.name for source in sources)
        raise TaskError(f"the environments {names} have no list of tasks (`env.unwrapped.tasks`)")
    return tasks
