"""The two text games: rules by hand, what may be written, and what every environment promises."""

import itertools
import math
import pickle
import random
from typing import Any

import pytest

from rlvr import envs
from rlvr.envs.playing import play, solution_of
from rlvr.envs.tasks.grid_puzzle import GridPuzzle, GridPuzzleEnv, moves_of, shortest_way
from rlvr.envs.tasks.guess_number import GuessNumber, GuessNumberEnv, guess_of
from rlvr.verifiers import Task, TaskError, UsageError

GAMES = ("rlvr/GuessNumber-v0", "rlvr/GridPuzzle-v0")
SPLITS = ("train", "test")
HIDDEN = [
    Task(id="g", prompt="From 1 to 8?", truth={"low": 1, "high": 8, "number": 6}, metadata={"x": 1})
]
GRID = ["######", "#@kDG#", "#....#", "######"]
WALK = [Task(id="w", prompt="Walk.", truth={"map": GRID, "view": 0})]


def _make(id: str, **options: Any) -> Any:
    return envs.make(id, disable_env_checker=True, **options)


def _rewards(env: Any, actions: list[str]) -> list[float]:
    return [step[1] for step in play(env, actions, index=0)[1:]]


@pytest.mark.parametrize("id", GAMES)
def test_a_game_keeps_what_every_environment_promises(id: str) -> None:
    report = envs.check_env(lambda: _make(id), episodes=5)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id", "options"),
    [
        *((id, {}) for id in GAMES),
        ("rlvr/GuessNumber-v0", {"split": "test", "numbers": 1000}),
        ("rlvr/GridPuzzle-v0", {"split": "test", "view": 2, "side": 7}),
        ("rlvr/GridPuzzle-v0", {"door": False, "walls": 30, "side": 9}),
    ],
)
def test_a_game_keeps_it_over_many_episodes(id: str, options: dict[str, Any]) -> None:
    report = envs.check_env(lambda: _make(id, **options), episodes=200)
    assert report.ok, str(report)


@pytest.mark.slow
def test_random_players_win_as_seldom_as_stated() -> None:
    def won(env: Any, index: int, actions: Any) -> float:
        return play(env, actions, index=index)[-1][4]["verdict"]["reward"]

    guess, grid = (_make(id, size=1000) for id in GAMES)
    draw = random.Random(0)
    tasks = [guess.unwrapped.tasks[i].truth for i in range(1000)]
    found = sum(
        won(guess, i, (str(draw.randint(t["low"], t["high"])) for _ in range(9)))
        for i, t in enumerate(tasks)
    )
    # seven guesses with replacement: 1 − 0.99⁷ = 0.068; five standard errors of 1000 games: 0.04
    assert abs(found / 1000 - 0.068) < 0.04
    words = ("up", "down", "left", "right")
    walked = sum(won(grid, i, (draw.choice(words) for _ in range(99))) for i in range(1000))
    assert abs(walked / 1000 - 1 / 12) < 0.045


def test_hints_lead_to_the_number() -> None:
    env = GuessNumberEnv(HIDDEN)
    steps = play(env, ["4", "7", "6", "1"], index=0)
    assert [s[0] for s in steps] == [
        "From 1 to 8? You have 4 guesses.",  # 8 numbers: 4 2 1 halving, and one to say it
        "higher",
        "lower",
        "Found.",
    ]
    assert [s[1] for s in steps[1:]] == [0.0, 0.0, 1.0]
    assert steps[-1][2:4] == (True, False)


def test_the_last_guess_ends_the_game() -> None:
    *_, last = play(GuessNumberEnv(HIDDEN, turns=2), ["1", "2", "6"], index=0)
    assert last[1:4] == (0.0, True, False)
    assert last[4]["verdict"]["status"] == "wrong"
    *_, last = play(GuessNumberEnv(HIDDEN, turns=2), ["none", "of them", "6"], index=0)
    assert (last[2], last[4]["verdict"]["status"]) == (True, "unparsed")


def test_narrowing_is_paid_once_however_many_guesses_it_takes() -> None:
    env = GuessNumberEnv(HIDDEN, hints=0.5, turns=9)
    # 8 numbers → 4 (5 to 8) → 2 (5, 6) → 1: each halving is a third of log 8
    paid = _rewards(env, ["4", "7", "6"])
    assert paid == pytest.approx([0.5 / 3, 0.5 / 3, 0.5 / 3 + 1.0])
    slow = _rewards(env, ["1", "1", "99", "2", "3", "nothing", "6"])
    # 8 → 7, nothing new, nothing new, 7 → 6, 6 → 5, no number, 5 → 1
    shares = [math.log(8 / 7), 0.0, 0.0, math.log(7 / 6), math.log(6 / 5), 0.0, math.log(5)]
    wanted = [0.5 * share / math.log(8) for share in shares]
    assert slow == pytest.approx([*wanted[:-1], wanted[-1] + 1.0])
    assert sum(slow) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("action", "guess"),
    [
        ("42", 42),
        ("I guess 42.", 42),
        ("**42**", 42),
        ("<think>50 or 60</think> 42", 42),
        ("1, 2? <answer>42</answer>", 42),
        ("0042", 42),
        ("", None),
        ("50 or 60", None),
        ("42.5", None),
        ("-42", None),
        ("4e1", None),
        ("½", None),
        ("٤٢", None),
        ("四十二", None),
        ("9" * 13, None),
        ("9" * 5000, None),
        ("1 2 3 " * 300, None),
        ("<answer>1</answer><answer>2</answer>", None),
        ("<answer>", None),
        ("0x2a", None),
        ("10-20", None),
    ],
)
def test_one_whole_number_is_a_guess_and_nothing_else(action: str, guess: int | None) -> None:
    found, problem = guess_of(action)
    assert found == guess
    assert bool(problem) == (guess is None)


def test_nothing_that_is_said_before_the_end_shows_the_number() -> None:
    env = _make("rlvr/GuessNumber-v0", size=50)
    for index in range(50):
        number = env.unwrapped.tasks[index].truth["number"]
        plan = solution_of(env, env.unwrapped.tasks[index])
        steps = play(env, plan, index=index)
        low, high = (env.unwrapped.tasks[index].truth[name] for name in ("low", "high"))
        if number not in (low, high):
            assert all(str(number) not in str(step[4]) for step in steps[:-1])


def test_key_door_and_walls() -> None:
    env = GridPuzzleEnv(WALK)
    steps = play(env, ["up", "down right right", "up", "left right", "right"], index=0)
    said = [step[0].splitlines() for step in steps[1:]]
    assert said[0][0] == "up: there is a wall or a locked door; you stay."
    assert said[1] == ["######", "#.kDG#", "#..@.#", "######"]
    assert said[2][0] == "up: there is a wall or a locked door; you stay."  # no key yet
    assert said[3] == ["######", "#.kDG#", "#..@.#", "######"]
    assert not steps[-1][2]
    assert _rewards(env, ["Right, right.", "right"]) == [0.0, 1.0]  # key, door, goal
    taken = play(env, ["right", "right"], index=0)
    assert taken[1][0].splitlines() == ["You have the key.", "######", "#.@DG#", "#....#", "######"]
    assert taken[2][0].splitlines() == ["######", "#..@G#", "#....#", "######"]


def test_moves_are_taken_in_order_until_one_ends_the_game() -> None:
    assert _rewards(GridPuzzleEnv(WALK), ["right right right left left"]) == [1.0]


def test_the_last_turn_ends_the_walk() -> None:
    *_, last = play(GridPuzzleEnv(WALK, turns=2), ["jump", "down", "up"], index=0)
    assert last[1:4] == (0.0, True, False)
    assert last[4]["verdict"]["status"] == "wrong"
    *_, last = play(GridPuzzleEnv(WALK, turns=1), ["jump"], index=0)
    assert last[4]["verdict"]["status"] == "unparsed"


@pytest.mark.parametrize(
    ("action", "moves"),
    [
        ("up", ["up"]),
        ("Up, LEFT!", ["up", "left"]),
        ("<think>down?</think><answer>right</answer>", ["right"]),
        ("go up", []),
        ("", []),
        ("up " * 11, []),
        ("up" * 5000, []),
        ("ＵＰ", []),
    ],
)
def test_the_four_words_are_moves_and_nothing_else(action: str, moves: list[str]) -> None:
    assert moves_of(action)[0] == moves


def test_the_solver_takes_a_shortest_way() -> None:
    assert shortest_way(GRID) == ["right", "right", "right"]
    around = ["#####", "#@#G#", "#...#", "#####"]
    assert shortest_way(around) == ["down", "right", "right", "up"]
    assert shortest_way(["#####", "#@#G#", "#####"]) is None
    assert shortest_way(["######", "#@DGk#", "######"]) is None  # the key is behind the door


def test_every_way_by_brute_force_is_as_long() -> None:
    env = _make("rlvr/GridPuzzle-v0", side=3, longest=6, size=10)
    for index in range(10):
        best = len(list(env.unwrapped.solve(env.unwrapped.tasks[index])))
        for length in range(1, best + 1):
            plans = itertools.product(("up", "down", "left", "right"), repeat=length)
            won = any(_wins(env, index, plan) for plan in itertools.islice(plans, 0, 1200))
            if length < best and 4**length <= 1200:
                assert not won


def _wins(env: Any, index: int, plan: tuple[str, ...]) -> bool:
    env.reset(options={"index": index})
    return env.step(" ".join(plan))[2]


def test_a_short_view_shows_what_is_near_alone() -> None:
    whole = ["#######", "#@....#", "#.....#", "#.....#", "#....G#", "#######"]
    env = GridPuzzleEnv([Task(id="v", prompt="Walk.", truth={"map": whole, "view": 1})])
    env.reset(options={"index": 0})
    assert env.step("right down")[0] == "...\n.@.\n..."
    shown = GridPuzzle(size=5, view=2)[0].text
    assert len(shown.splitlines()[1]) <= 5


def test_maps_that_are_turned_or_mirrored_are_on_one_side() -> None:
    sides = {split: set(map(_shape, GridPuzzle(size=200, split=split))) for split in SPLITS}
    assert not sides["train"] & sides["test"]
    ranges = {split: {t.text for t in GuessNumber(size=200, split=split)} for split in SPLITS}
    assert not ranges["train"] & ranges["test"]


def _shape(task: Task) -> str:
    rows = [list(row) for row in task.truth["map"]]
    forms = []
    for _ in range(4):
        rows = [list(row) for row in zip(*rows[::-1], strict=True)]
        forms += ["/".join(map("".join, rows)), "/".join("".join(row[::-1]) for row in rows)]
    return min(forms)


def test_a_game_goes_on_from_a_pickled_snapshot() -> None:
    env, other = GuessNumberEnv(HIDDEN, hints=0.3), GuessNumberEnv(HIDDEN, hints=0.3)
    env.reset(options={"index": 0})
    env.step("4")
    taken = pickle.loads(pickle.dumps(env.snapshot()))
    first = env.step("7")
    other.restore(taken)
    assert other.step("7") == first


@pytest.mark.parametrize(
    "setting",
    [
        ("rlvr/GuessNumber-v0", {"numbers": 1}),
        ("rlvr/GuessNumber-v0", {"high": 5}),
        ("rlvr/GuessNumber-v0", {"hints": 2}),
        ("rlvr/GuessNumber-v0", {"turns": 0}),
        ("rlvr/GuessNumber-v0", {"verifier": "number"}),
        ("rlvr/GridPuzzle-v0", {"side": 2}),
        ("rlvr/GridPuzzle-v0", {"walls": 50}),
        ("rlvr/GridPuzzle-v0", {"door": 1}),
        ("rlvr/GridPuzzle-v0", {"verifier": "number"}),
        ("rlvr/GridPuzzle-v0", {"shortest": 9, "longest": 5}),
    ],
)
def test_settings_of_a_game_out_of_range_are_refused(setting: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(UsageError):
        _make(setting[0], **setting[1])


@pytest.mark.parametrize(
    "truth", [None, 4, {"low": 1, "high": 3, "number": 9}, {"low": 1, "high": True, "number": 1}]
)
def test_a_truth_that_is_no_range_names_its_task(truth: Any) -> None:
    with pytest.raises(TaskError, match="'bad'"):
        GuessNumberEnv([Task(id="bad", prompt="?", truth=truth)])


@pytest.mark.parametrize(
    "grid", [None, [], ["", ""], ["###", "#@#"], ["@G"], ["####", "#@@#", "####"], ["#?#"] * 3]
)
def test_a_truth_that_is_no_map_names_its_task(grid: Any) -> None:
    env = GridPuzzleEnv([Task(id="bad", prompt="?", truth={"map": grid})])
    with pytest.raises(TaskError, match="'bad'"):
        env.reset(seed=0)
