"""`rlvr/GridPuzzle-v0`: walk over a small grid to the goal, through a door whose key lies about.

**Prompt** the rules and the map, or with `view` only what is near; the template's hole is `{map}`.
**Truth** `{"map": ["#####", …], "view": 0}`. **Difficulty** the size, how many walls there are,
whether there is a door, how far one sees, and how long the way is. **Reward** 1 for reaching the
goal within `turns` actions, else 0.

An action is one to ten of the words up, down, left and right, the last of `<answer>…</answer>` if
there is one, behind any `</think>`; they are taken in order until one ends the game. Anything else
moves nothing and costs a turn. The key is picked up by stepping on it, the door opened by walking
into it. Maps that are turned or mirrored are one problem: those of the test split are never trained
on. Every map can be solved; `solve` takes the shortest way. Random texts never move; a random word
a turn reaches the goal in about 1 of 12 games with the default settings.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...verifiers import Task, TaskError, UsageError, Verdict
from ..dialogue import DialogueEnv
from ..procedural import Problem, Procedural, Settings, check_range
from ..replies import Reply

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
"""The words, and the step of each in rows and columns."""
WALL, FLOOR, START, KEY, DOOR, GOAL = "#.@kDG"
MAX_CHARS = 2_000
"""Characters of an action that are read, thoughts left out."""
MAX_MOVES = 10
"""Moves of an action at most."""
PUNCTUATION = ".,;:!?\"'`*()"
"""What may stand around a move."""

Cell = tuple[int, int]
"""Row and column."""


@dataclass(frozen=True, kw_only=True)
class GridPuzzleSettings(Settings):
    """Difficulty.

    Example:
        `GridPuzzleSettings(side=4, door=False, longest=6)`
    """

    side: int = 5
    """Rows and columns inside the outer wall, from 3 to 12."""
    walls: int = 15
    """Per cent of the cells inside that are walls, from 0 to 40."""
    door: bool = True
    """Whether a wall with a locked door parts start and goal."""
    view: int = 0
    """Rows and columns that are seen in each direction; 0 is all of them."""
    shortest: int = 3
    """Moves that the shortest way takes at least."""
    longest: int = 20
    """Moves that it takes at most."""
    prompt: str = (
        "Walk from @ to G. # is a wall, k a key, D a door that only opens with the key. Each turn "
        "write up, down, left or right, or up to ten of them in order.\n{map}"
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("side", self.side, 3, 12)
        check_range("walls", self.walls, 0, 40)
        check_range("view", self.view, 0, 12)
        check_range("shortest", self.shortest, 1)
        check_range("longest", self.longest, self.shortest)
        if not isinstance(self.door, bool):
            raise UsageError(f"door must be true or false, got {self.door!r:.100}")


class GridPuzzle(Procedural[GridPuzzleSettings]):
    """Maps with a way to the goal."""

    name = "grid-puzzle"
    Config = GridPuzzleSettings
    fields = ("map",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw walls and places, and keep what can be solved in the wanted number of moves."""
        config = self.config
        cells = _with_door(rng, config) if config.door else _open(rng, config)
        if cells is None:
            return None
        grid = ["".join(row) for row in np.pad(cells, 1, constant_values=WALL)]
        way = shortest_way(grid)
        if way is None or not config.shortest <= len(way) <= config.longest:
            return None
        game = Walk(grid=grid, view=config.view, at=_find(grid, START))
        return Problem(
            fields={"map": game.seen()},
            canonical=_canonical(grid),
            truth={"map": grid, "view": config.view},
            metadata={"difficulty": f"{len(way)} moves"},
        )


def _scattered(rng: np.random.Generator, config: GridPuzzleSettings) -> np.ndarray:
    """Draw floor with some walls."""
    drawn = rng.random((config.side, config.side)) * 100 < config.walls
    return np.where(drawn, WALL, FLOOR)


def _open(rng: np.random.Generator, config: GridPuzzleSettings) -> np.ndarray | None:
    """Draw a map without a door."""
    cells = _scattered(rng, config)
    return _placed(rng, cells, {START: cells == FLOOR, GOAL: cells == FLOOR})


def _with_door(rng: np.random.Generator, config: GridPuzzleSettings) -> np.ndarray | None:
    """Draw two rooms, with start and key in one of them and the goal in the other."""
    cells = _scattered(rng, config)
    column = int(rng.integers(1, config.side - 1))
    cells[:, column] = WALL
    cells[int(rng.integers(config.side)), column] = DOOR
    near = (cells == FLOOR) & (np.arange(config.side) < column)
    far = (cells == FLOOR) & (np.arange(config.side) > column)
    placed = _placed(rng, cells, {START: near, KEY: near, GOAL: far})
    return None if placed is None else np.rot90(placed, int(rng.integers(4)))


def _placed(
    rng: np.random.Generator, cells: np.ndarray, where: dict[str, np.ndarray]
) -> np.ndarray | None:
    """Put things on different cells of those that are allowed for each."""
    for thing, allowed in where.items():
        free = np.argwhere(allowed & (cells == FLOOR))
        if not len(free):
            return None
        row, column = free[rng.integers(len(free))]
        cells[row, column] = thing
    return cells


def _canonical(grid: Sequence[str]) -> str:
    """Return the first, in the order of the alphabet, of a map's eight turned and mirrored ones."""
    cells = np.array([list(row) for row in grid])
    turned = [np.rot90(one, k) for one in (cells, cells.T) for k in range(4)]
    return min("/".join("".join(row) for row in one) for one in turned)


def _find(grid: Sequence[str], thing: str) -> Cell:
    """Return where a thing is.

    Raises:
        ValueError: It is not there exactly once.
    """
    found = [(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == thing]
    if len(found) != 1:
        raise ValueError(f"the map has {len(found)} of '{thing}'")
    return found[0]


def shortest_way(grid: Sequence[str]) -> list[str] | None:
    """Return the moves of a shortest way from start to goal, or `None` if there is none."""
    first: tuple[Cell, bool] = (_find(grid, START), False)
    came: dict[tuple[Cell, bool], tuple[tuple[Cell, bool], str] | None] = {first: None}
    waiting: deque[tuple[Cell, bool]] = deque([first])
    while waiting:
        state = waiting.popleft()
        if grid[state[0][0]][state[0][1]] == GOAL:
            moves = []
            while (step := came[state]) is not None:
                state, word = step
                moves.append(word)
            return moves[::-1]
        for word in MOVES:
            after = moved(grid, *state, word)
            if after not in came:
                came[after] = (state, word)
                waiting.append(after)
    return None


def moved(grid: Sequence[str], at: Cell, has_key: bool, word: str) -> tuple[Cell, bool]:
    """Return place and key after a move; a move into a wall or a locked door changes nothing."""
    row, column = at[0] + MOVES[word][0], at[1] + MOVES[word][1]
    cell = grid[row][column]
    if cell == WALL or (cell == DOOR and not has_key):
        return at, has_key
    return (row, column), has_key or cell == KEY


@dataclass
class Walk:
    """A walk on its way.

    Example:
        `Walk(grid=["####", "#@G#", "####"], view=0, at=(1, 1))`
    """

    grid: Sequence[str]
    """The map, the outer wall included, as it was at first."""
    view: int
    """As in `GridPuzzleSettings`."""
    at: Cell
    """Where one stands."""
    has_key: bool = False
    """Whether the key was picked up."""
    turns: int = 0
    """Actions so far."""
    moves: int = 0
    """Moves so far that could be read."""

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        return self.grid[self.at[0]][self.at[1]] == GOAL

    def seen(self) -> str:
        """Return the map as it is now, or what is near."""
        rows, columns = (_span(at, self.view) for at in self.at)
        return "\n".join(
            "".join(self._cell(r, c) for c in range(*columns.indices(len(self.grid[0]))))
            for r in range(*rows.indices(len(self.grid)))
        )

    def _cell(self, row: int, column: int) -> str:
        if (row, column) == self.at:
            return START
        cell = self.grid[row][column]
        return FLOOR if cell == START or (cell == KEY and self.has_key) else cell


def _span(at: int, view: int) -> slice:
    return slice(max(0, at - view), at + view + 1) if view else slice(None)


class GridPuzzleEnv(DialogueEnv[Walk]):
    """The walk, judged by where it ends."""

    TURNS = 40

    def __init__(self, tasks: Sequence[Task], verifier: None = None, **settings: Any) -> None:
        """Make the puzzle.

        Args:
            tasks: A `GridPuzzle`, or tasks with truths like its.
            verifier: Has no part in it; leave it out.
            settings: As in `DialogueEnv`.

        Raises:
            UsageError: A setting is out of range.
        """
        if verifier is not None:
            raise UsageError("a GridPuzzle is judged by its state; leave `verifier` out")
        super().__init__(tasks, **settings)

    def open(self, task: Task, rng: np.random.Generator) -> Walk:
        """Stand at the start."""
        grid, view = map_of(task)
        return Walk(grid=grid, view=view, at=_find(grid, START))

    def answer(self, action: str, state: Walk) -> Reply:
        """Move, and show what is seen from there."""
        state.turns += 1
        over = state.turns >= self.turns
        words, problem = moves_of(action)
        for word in words:
            before, had = state.at, state.has_key
            state.at, state.has_key = moved(state.grid, before, had, word)
            state.moves += 1
            if state.won:
                return Reply("You reached G.", done=True)
            if state.at == before:
                problem = f"{word}: there is a wall or a locked door; you stay."
            elif state.has_key and not had:
                problem = "You have the key."
        shown = state.seen()
        return Reply(f"{problem}\n{shown}" if problem else shown, done=over)

    def judge(self, task: Task, state: Walk, answer: str | None) -> Verdict:
        """Say whether the goal was reached."""
        if state.won:
            return Verdict.correct(moves=state.moves, turns=state.turns)
        if not state.moves:
            return Verdict.unparsed(f"no move in {state.turns} turns")
        reason = f"not at G after {state.turns} turns"
        return Verdict.wrong(reason=reason, moves=state.moves, turns=state.turns)

    def solve(self, task: Task) -> Iterator[str]:
        """Take the shortest way, a move a turn."""
        return iter(shortest_way(map_of(task)[0]) or ())


def map_of(task: Task) -> tuple[list[str], int]:
    """Return the map of a task and how far one sees.

    Raises:
        TaskError: The truth is none of this puzzle.
    """
    truth = task.truth if isinstance(task.truth, dict) else {}
    grid, view = truth.get("map"), truth.get("view", 0)
    problem = _problem_of(grid)
    if type(view) is not int or view < 0:
        problem = "'view' is a whole number from 0 up"
    if problem:
        raise TaskError(f"task '{task.id}': {problem}, got {task.truth!r:.200}")
    return list(grid), view  # pyright: ignore


def _problem_of(grid: Any) -> str:
    """Say what is wrong with a map; empty if nothing."""
    rows = isinstance(grid, list | tuple) and all(isinstance(row, str) for row in grid)
    if not rows or not grid or len({len(row) for row in grid}) != 1 or not grid[0]:
        return "'map' is a list of texts of one length"
    if not set("".join(grid)) <= set(WALL + FLOOR + START + KEY + DOOR + GOAL):
        return f"a map is made of {WALL}{FLOOR}{START}{KEY}{DOOR}{GOAL}"
    edge = grid[0] + grid[-1] + "".join(row[0] + row[-1] for row in grid)
    if set(edge) != {WALL}:
        return "a map has walls all round"
    whole = "".join(grid)
    if whole.count(START) != 1 or GOAL not in whole:
        return f"a map has one {START} and a {GOAL}"
    return ""


def moves_of(action: str) -> tuple[list[str], str]:
    """Return the moves of an action, or none and what is wrong with it.

    Example:
        >>> moves_of("<think>right is a wall</think>Up, left.")
        (['up', 'left'], '')
        >>> moves_of("jump")
        ([], "Write up, down, left or right, at most 10 of them; got 'jump'.")
    """
    text = action.rpartition("</think>")[2]
    if len(text) <= MAX_CHARS:
        _, tag, inside = text.rpartition("<answer>")
        text = inside.partition("</answer>")[0] if tag else text
        words = [word.strip(PUNCTUATION).lower() for word in text.split()]
        if 1 <= len(words) <= MAX_MOVES and all(word in MOVES for word in words):
            return words, ""
    hint = f"Write up, down, left or right, at most {MAX_MOVES} of them"
    return [], f"{hint}; got {text.strip()[:40]!r}."
