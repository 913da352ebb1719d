"""Generated tasks: as many as wanted, the same for the same seed, held-out ones never shown.

Item *i* of seed *s* is drawn from `SeedSequence([s, i])`, so that the items of neighbouring seeds
have nothing in common. A candidate that belongs to the other split (a hash of its canonical form)
is thrown away and the next one drawn from the same stream.

Up to `UNIQUE_UP_TO` items no prompt occurs twice: an item that repeats an earlier one is drawn
again, which makes the items from 0 to *i* a prefix that is the same for every `size`. Longer
sequences are drawn item by item, so that any index is there at once, and may repeat themselves.
"""

import dataclasses
import functools
import operator
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, overload

import numpy as np

from ..verifiers import Task, UsageError
from ..verifiers.errors import unknown
from .selection import TEST_SHARE, check_split, side
from .templates import Template

UNIQUE_UP_TO = 20_000
"""Items up to which repeats are ruled out: the items before the one asked for must be drawn too,
at about 30 microseconds each."""
KEPT = 100_000
"""Tasks kept of a longer sequence; then they are dropped and drawn again when asked for."""
DEFAULT_SIZE = 1000
"""Items where no size is asked for."""
MAX_SIZE = 10**12
"""Items of a sequence at most: endless for any training."""
MAX_DRAWS = 5_000
"""Candidates per item before the generator gives up: a tenth of a second or so."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every generator can be told; each adds its difficulty.

    Example:
        `Settings(size=200, seed=1, split="test")`
    """

    size: int | None = None
    """Number of tasks, from 1 to 10¹²; by default 1000, or all there are if there are fewer."""
    seed: int = 0
    """Which tasks, from 0 up."""
    split: str = "train"
    """`"train"`, or `"test"` for the held-out problems."""

    def __post_init__(self) -> None:
        """Check every range."""
        if self.size is not None:
            check_range("size", self.size, 1, MAX_SIZE)
        check_range("seed", self.seed, 0)
        check_split(str(self.split))


def check_range(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuse a setting that is no integer from `low` to `high`.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UsageError(f"{name} must be an integer, got {value!r:.100}")
    if value < low or (high is not None and value > high):
        limit = f"from {low} up" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} must be {limit}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One candidate of a generator.

    Example:
        `Problem(fields={"expression": "1 + 2"}, canonical="1+2", truth=3, solution="3")`
    """

    fields: Mapping[str, str]
    """What fills the holes of the prompt."""
    canonical: str
    """The problem as such: the same for prompts that ask the same thing. Decides the split."""
    truth: Any
    """As in `Task`."""
    solution: str | None = None
    """As in `Task`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """As in `Task`."""


S = TypeVar("S", bound=Settings)


class Procedural(Sequence[Task], Generic[S]):
    """A sequence of generated tasks.

    A generator sets `name`, `Config` (with a `prompt` template among its settings, unless `render`
    is overridden too) and `fields`, and implements `draw`; `space` if it can count.
    """

    name: ClassVar[str]
    """What task ids begin with."""
    Config: ClassVar[type[Settings]]
    """The settings."""
    fields: ClassVar[tuple[str, ...]] = ()
    """The holes that the prompt template may have."""

    def __init__(self, **settings: Any) -> None:
        """Make the sequence; nothing is drawn yet unless it is a close fit.

        Args:
            settings: The fields of `Config`.

        Raises:
            UsageError: A setting is unknown or out of range, or there are too few problems.
        """
        known = [setting.name for setting in dataclasses.fields(self.Config)]
        for setting in settings:
            if setting not in known:
                raise unknown(f"setting of {type(self).__name__}", setting, known)
        self._settings = settings
        self.config: S = self.Config(**settings)  # pyright: ignore
        if self.fields:
            template = self.config.prompt  # pyright: ignore
            self._template = Template(template, self.fields, "prompt")
        self._lock = threading.Lock()
        self._size = DEFAULT_SIZE if self.config.size is None else int(self.config.size)
        self._items: dict[int, Task] = {}
        self._drawn = 0
        self._seen: set[str] = set()
        self._check_space()

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw one candidate, or `None` to have another draw."""

    def space(self) -> int | None:
        """Return how many different prompts the settings allow, or `None` if that is unknown."""
        return None

    def render(self, problem: Problem) -> str:
        """Return the prompt."""
        return self._template.fill(problem.fields)

    def __len__(self) -> int:
        """Return the number of tasks."""
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Task, ...]: ...
    def __getitem__(self, index: int | slice) -> Task | tuple[Task, ...]:
        """Return one task, or a tuple of some; drawn on first use and kept."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        at = operator.index(index)
        if at < 0:
            at += len(self)
        if not 0 <= at < len(self):
            raise IndexError(f"no task {index}: there are {len(self)}")
        return self._items.get(at) or self._make(at)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the settings: the tasks follow from them."""
        return functools.partial(type(self), **self._settings), ()

    def __repr__(self) -> str:
        """Show the settings."""
        return f"{type(self).__name__}({self.config})"

    def _make(self, index: int) -> Task:
        """Draw item `index`, and those before it where repeats are ruled out."""
        with self._lock:
            if self._size > UNIQUE_UP_TO:
                if len(self._items) >= KEPT:
                    self._items.clear()
                task = self._items[index] = self._item(index)
                return task
            while self._drawn <= index:
                task = self._item(self._drawn)
                self._seen.add(str(task.prompt))
                self._items[self._drawn] = task
                self._drawn += 1
            return self._items[index]

    def _item(self, index: int) -> Task:
        """Draw candidates until one is of the right split and new."""
        config = self.config
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, index])))
        for _ in range(MAX_DRAWS):
            problem = self.draw(rng)
            if problem is None or side(problem.canonical) != config.split:
                continue
            prompt = self.render(problem)
            if prompt in self._seen:
                continue
            return Task(
                id=f"{self.name}-{config.split}-{config.seed}-{index}",
                prompt=prompt,
                truth=problem.truth,
                metadata=problem.metadata,
                solution=problem.solution,
            )
        raise self._too_small(f"{MAX_DRAWS} draws brought no new one after {index}")

    def _check_space(self) -> None:
        """Refuse a size that the space cannot hold; when it is close, draw everything now."""
        space, size = self.space(), self._size
        if space is None:
            return
        share = TEST_SHARE if self.config.split == "test" else 1 - TEST_SHARE
        room = round(space * share)
        if self.config.size is None and 2 * size > room:
            self._take_all()
        elif size > room:
            raise self._too_small(f"of {space} problems about {room} are on that side")
        elif 2 * size > room and size <= UNIQUE_UP_TO:
            self._make(size - 1)

    def _take_all(self) -> None:
        """Draw until nothing new comes, and let that be the size."""
        try:
            self._make(self._size - 1)
        except UsageError:
            if not self._drawn:
                raise
            self._size = self._drawn

    def _too_small(self, why: str) -> UsageError:
        return UsageError(
            f"{type(self).__name__} cannot make {self._size} different problems of the split "
            f"'{self.config.split}': {why}; lower `size` or widen the settings ({self.config})"
        )


DrawFunction = Callable[..., "Task | Mapping[str, Any]"]
"""`(rng, **settings)`: draws one problem as a `Task` or a row; must take every random choice from
`rng`."""


class Drawn(Procedural[Settings]):
    """A plain function `(rng, **settings)` as a generator."""

    Config = Settings

    def __init__(
        self,
        function: DrawFunction,
        read: Callable[[Mapping[str, Any]], Task],
        name: str,
        *,
        size: int | None = Settings.size,
        seed: int = Settings.seed,
        split: str = Settings.split,
        **settings: Any,
    ) -> None:
        """Wrap `function`; `read` turns a row that it returns into a task."""
        self.name = name  # pyright: ignore
        self._function = function
        self._read = read
        self._given = settings
        super().__init__(size=size, seed=seed, split=split)

    def draw(self, rng: np.random.Generator) -> Problem:
        """Call the function."""
        result = self._function(rng, **self._given)
        task = result if isinstance(result, Task) else self._read(result)
        if not isinstance(task.prompt, str):
            raise UsageError(f"{self.name}: a drawn prompt is a text, got {task.prompt!r:.100}")
        return Problem(
            fields={"prompt": task.prompt},
            canonical=" ".join(task.prompt.casefold().split()),
            truth=task.truth,
            solution=task.solution,
            metadata=task.metadata,
        )

    def _check_space(self) -> None:
        """Draw everything now unless a size was asked for: nobody knows how much there is."""
        if self.config.size is None:
            self._take_all()

    def render(self, problem: Problem) -> str:
        """Return the prompt as drawn."""
        return problem.fields["prompt"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the function and its settings."""
        make = functools.partial(
            type(self), self._function, self._read, self.name, **self._settings, **self._given
        )
        return make, ()


def settings_of(generator: type[Procedural[Any]]) -> dict[str, Any]:
    """Return the settings of a generator with their defaults."""
    return {setting.name: setting.default for setting in dataclasses.fields(generator.Config)}


__all__ = ["Drawn", "Problem", "Procedural", "Settings", "check_range", "settings_of"]
