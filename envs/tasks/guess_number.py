"""`rlvr/GuessNumber-v0`: find a hidden number by guesses that are answered "higher" or "lower".

**Prompt** the range, and behind it the number of guesses; the template's holes are `{low}` and
`{high}`. **Truth** `{"low": 1, "high": 100, "number": 37}`; no text shows the number while the game
goes on. **Difficulty** how many numbers the range has, and how many guesses there are (`turns`; by
default as many as halving the range needs, and with fewer it takes luck). **Reward** 1 for the
number within the guesses. With `hints=0.5`, narrowing the range is paid, too: each guess by the
share of log(numbers) that its answer rules out, 0.5 in all, however many guesses it takes.

The guess is the one number of the action, or of its `<answer>…</answer>`, behind any `</think>`;
whatever else is answered, and costs a guess. The last guess ends the game. The range is what tells
tasks apart: those of the test split are never trained on. Halving the range solves every task;
random numbers of the range find it in `turns`/`numbers` of the games, random texts in none.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...verifiers import Message, Task, TaskError, UsageError, Verdict
from ..dialogue import DialogueEnv
from ..procedural import Problem, Procedural, Settings, check_range
from ..replies import Reply

MAX_CHARS = 2_000
"""Characters of an action that are read, thoughts left out."""
MAX_DIGITS = 12
"""Digits of a guess; the settings allow eleven."""
PUNCTUATION = ".,;:!?\"'`*()"
"""What may stand around a guess."""


@dataclass(frozen=True, kw_only=True)
class GuessNumberSettings(Settings):
    """Difficulty.

    Example:
        `GuessNumberSettings(numbers=7, high=99)`
    """

    numbers: int = 100
    """How many numbers the range has, from 2 up."""
    high: int = 100_000
    """Largest number of any range; ranges begin at 1 or later."""
    prompt: str = (
        "I am thinking of a whole number from {low} to {high}. Guess it: write one number at a "
        "time, and I say whether mine is higher or lower."
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("numbers", self.numbers, 2, 10**9)
        check_range("high", self.high, self.numbers, 10**10)


class GuessNumber(Procedural[GuessNumberSettings]):
    """Ranges, with a number hidden in each."""

    name = "guess-number"
    Config = GuessNumberSettings
    fields = ("low", "high")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draw the range, then the number in it."""
        numbers = self.config.numbers
        low = int(rng.integers(1, self.config.high - numbers + 1, endpoint=True))
        high = low + numbers - 1
        number = int(rng.integers(low, high, endpoint=True))
        return Problem(
            fields={"low": str(low), "high": str(high)},
            canonical=f"{low} {high}",
            truth={"low": low, "high": high, "number": number},
        )

    def space(self) -> int:
        """Count the ranges."""
        return self.config.high - self.config.numbers + 1


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where the number may be.

    Example:
        `Range(low=1, high=100, number=37)`
    """

    low: int
    """Smallest number that it may be."""
    high: int
    """Largest."""
    number: int
    """The number."""

    @property
    def size(self) -> int:
        """How many numbers it may be."""
        return self.high - self.low + 1

    def after(self, guess: int) -> "Range":
        """Return what is left when a guess was answered."""
        if guess == self.number:
            return replace(self, low=guess, high=guess)
        if guess < self.number:
            return replace(self, low=max(self.low, guess + 1))
        return replace(self, high=min(self.high, guess - 1))


@dataclass
class Game:
    """A game on its way.

    Example:
        `Game(left=Range(low=1, high=49, number=37), size=100, guesses=1)` after 50 was guessed
    """

    left: Range
    """Where the number may be, after what was said."""
    size: int
    """How many numbers it might have been at first."""
    guesses: int = 0
    """Actions so far, those without a number included."""
    last: int | None = None
    """The newest guess."""


class GuessNumberEnv(DialogueEnv[Game]):
    """The game, which knows by itself whether it was won."""

    def __init__(
        self, tasks: Sequence[Task], verifier: None = None, *, hints: float = 0.0, **settings: Any
    ) -> None:
        """Make the game.

        Args:
            tasks: A `GuessNumber`, or tasks with truths like its.
            verifier: Has no part in the game; leave it out.
            hints: What narrowing the range down to the number is paid in all, from 0 to 1.
            settings: As in `DialogueEnv`; `turns` is the number of guesses.

        Raises:
            UsageError: A setting is out of range.
        """
        if verifier is not None:
            raise UsageError("a game of GuessNumber is judged by its state; leave `verifier` out")
        if isinstance(hints, bool) or not isinstance(hints, int | float) or not 0 <= hints <= 1:
            raise UsageError(f"hints must be a number from 0 to 1, got {hints!r:.100}")
        self.hints = float(hints)
        """What narrowing the range is paid in all."""
        super().__init__(tasks, **settings)
        if settings.get("turns") is None:
            self.turns = range_of(tasks[0]).size.bit_length()  # halving n numbers needs log2 n + 1

    def open(self, task: Task, rng: np.random.Generator) -> Game:
        """Begin a game."""
        left = range_of(task)
        return Game(left=left, size=left.size)

    def opening(self, task: Task, state: Game) -> list[Message]:
        """Say how many guesses there are."""
        *before, newest = task.messages
        newest["content"] += f" You have {self.turns} guesses."
        return [*before, newest]

    def answer(self, action: str, state: Game) -> Reply:
        """Answer one guess."""
        state.guesses += 1
        guess, problem = guess_of(action)
        over = state.guesses >= self.turns
        if guess is None:
            return Reply(problem, done=over)
        before, state.left, state.last = state.left, state.left.after(guess), guess
        paid = 0.0
        if self.hints and state.size > 1:
            paid = self.hints * math.log(before.size / state.left.size) / math.log(state.size)
        if guess == state.left.number:
            return Reply("Found.", reward=paid, done=True)
        said = "higher" if guess < state.left.number else "lower"
        return Reply(said, reward=paid, done=over)

    def judge(self, task: Task, state: Game, answer: str | None) -> Verdict:
        """Say whether the number was found."""
        if state.last is None:
            return Verdict.unparsed(f"no number in {state.guesses} actions")
        seen = {"answer": str(state.last), "guesses": state.guesses}
        if state.last == state.left.number:
            return Verdict.correct(**seen)
        return Verdict.wrong(reason=f"not found in {state.guesses} guesses", **seen)

    def solve(self, task: Task) -> Iterator[str]:
        """Halve the range, without a look at the number."""
        known = range_of(task)
        low, high = known.low, known.high
        while low <= high:
            middle = (low + high) // 2
            said = yield str(middle)
            if said == "higher":
                low = middle + 1
            else:
                high = middle - 1

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), self.hints)


def range_of(task: Task) -> Range:
    """Return the range of a task.

    Raises:
        TaskError: The truth is none of this game.
    """
    truth = task.truth
    names = ("low", "high", "number")
    whole = isinstance(truth, dict) and all(type(truth.get(name)) is int for name in names)
    if not whole or not truth["low"] <= truth["number"] <= truth["high"]:
        raise TaskError(
            f"task '{task.id}': the truth of a guessing game is a range with a number in it, like "
            f"{{'low': 1, 'high': 9, 'number': 4}}, got {truth!r:.100}"
        )
    return Range(**{name: truth[name] for name in names})


def guess_of(action: str) -> tuple[int | None, str]:
    """Return the guess that an action makes, or none and what is wrong with it.

    Example:
        >>> guess_of("<think>50 was too low</think>I say 75!")
        (75, '')
        >>> guess_of("50 or 75")
        (None, 'Write one number; there are 2.')
    """
    text = action.rpartition("</think>")[2]
    if len(text) > MAX_CHARS:
        return None, f"Write one number; that were {len(text)} characters."
    before, tag, inside = text.rpartition("<answer>")
    if tag:
        text = inside.partition("</answer>")[0]
        if "<answer>" in before:
            return None, "Write one <answer>, not several."
    words = [word.strip(PUNCTUATION) for word in text.split()]
    numbers = [word for word in words if any(character.isdigit() for character in word)]
    if len(numbers) != 1:
        return None, f"Write one number; there are {len(numbers) or 'none'}."
    number = numbers[0]
    if not (number.isascii() and number.isdigit()) or len(number) > MAX_DIGITS:
        return None, f"Write one whole number, such as 42, in at most {MAX_DIGITS} digits."
    return int(number), ""
