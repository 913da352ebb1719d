"""Choosing tasks: subsets, filters, orders, and the split into train and test.

The split is a property of the problem, not of its place in a list: a hash of the problem's
canonical text. It is the same in every run, for every seed and whatever else is in the list, so
that a problem of the one side can never turn up on the other.
"""

import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import overload

import numpy as np

from ..verifiers import Task, UsageError
from ..verifiers.errors import unknown

TEST_SHARE = 0.2
"""Share of all problems that are held out."""
SPLITS = ("train", "test")


def side(canonical: str) -> str:
    """Return the split that a problem belongs to, `"train"` or `"test"`.

    Args:
        canonical: One text per problem: two ways of writing the same problem must share it.

    Example:
        >>> side("12 + 7"), side("3 + 4")
        ('train', 'test')
    """
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 else "train"


def check_split(split: str | None) -> None:
    """Refuse a split that is neither.

    Raises:
        UsageError: It is not `"train"`, `"test"` or `None`.
    """
    if split is not None and split not in SPLITS:
        raise unknown("split", str(split), SPLITS)


def canonical_prompt(task: Task) -> str:
    """Return what a task asks, whatever its case and white space: the split of rows hashes it."""
    text = "\n".join(message["content"] for message in task.messages)
    return " ".join(text.casefold().split())


class Subset(Sequence[Task]):
    """Chosen tasks of a sequence, in the order of the indices; holds no copies."""

    def __init__(self, tasks: Sequence[Task], indices: Sequence[int]) -> None:
        """View `tasks[i]` for each of `indices`."""
        self._tasks = tasks
        self._indices = tuple(indices)

    def __len__(self) -> int:
        """Return the number of chosen tasks."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> "Subset": ...
    def __getitem__(self, index: int | slice) -> "Task | Subset":
        """Return one chosen task, or a view of some."""
        if isinstance(index, slice):
            return Subset(self._tasks, self._indices[index])
        return self._tasks[self._indices[index]]


def subset(tasks: Sequence[Task], which: int | Iterable[int]) -> Subset:
    """View the first `which` tasks, or those at the indices `which`.

    Args:
        tasks: Any sequence of tasks.
        which: How many from the start (no more than there are), or the indices to keep.

    Returns:
        A view.

    Raises:
        UsageError: The number is negative, or an index is out of range.
    """
    count = len(tasks)
    if isinstance(which, int | np.integer):
        if which < 0:
            raise UsageError(f"a subset has at least 0 tasks, got {which}")
        return Subset(tasks, range(min(int(which), count)))
    indices = [operator.index(i) for i in which]
    for i in indices:
        if not -count <= i < count:
            raise UsageError(f"no task {i}: the {count} tasks have the indices 0 to {count - 1}")
    return Subset(tasks, indices)


def filter_tasks(tasks: Sequence[Task], predicate: Callable[[Task], bool]) -> Subset:
    """View the tasks for which `predicate` is true, in their order.

    Raises:
        UsageError: There is none.
    """
    kept = [i for i, task in enumerate(tasks) if predicate(task)]
    if not kept:
        raise UsageError(f"the filter keeps none of {len(tasks)} tasks; loosen it")
    return Subset(tasks, kept)


def shuffled(tasks: Sequence[Task], seed: int) -> Subset:
    """View all tasks in a random order, the same for the same seed."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"seed must be an integer from 0 up, got {seed!r}")
    order = np.random.default_rng(np.random.SeedSequence([int(seed)])).permutation(len(tasks))
    return Subset(tasks, order.tolist())


def split_tasks(tasks: Sequence[Task], split: str) -> Subset:
    """View one side of the tasks, by a hash of each prompt: about 80 % train, 20 % test.

    Raises:
        UsageError: No such split, or no task falls on that side.
    """
    check_split(split)
    kept = [i for i, task in enumerate(tasks) if side(canonical_prompt(task)) == split]
    if not kept:
        raise UsageError(
            f"none of the {len(tasks)} tasks falls on the side '{split}'; give more tasks, or "
            "register the two sides as environments of their own"
        )
    return Subset(tasks, kept)
