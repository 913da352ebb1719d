"""`rlvr check ENV`: what an environment promises, tried out and printed as a table."""

import warnings
from collections.abc import Callable

import gymnasium
from gymnasium.utils.env_checker import check_env

from .. import envs
from ..verifiers import Task, check_verifier
from .progress import print_table
from .sources import EnvChoice

Outcome = tuple[bool, str]


def run_check(text: str, count: int) -> bool:
    """Check an environment and print what was found.

    Args:
        text: Its id with options.
        count: Tasks to look at.

    Returns:
        Whether everything held.
    """
    choice = EnvChoice.parse(text)
    env = envs.make(choice.id, disable_env_checker=True, **choice.options)
    checks: dict[str, Callable[[], Outcome]] = {
        "gymnasium's check_env": lambda: _contract(choice),
        "same seed, same task": lambda: _seeds(env),
    }
    tasks = getattr(env.unwrapped, "tasks", None)
    if tasks is not None:
        some = [tasks[i] for i in range(min(count, len(tasks)))]
        checks["task ids are unique"] = lambda: _unique(some)
        checks["solutions score 1"] = lambda: _solutions(env, some)
        checks["verifier's contract"] = lambda: _verifier(env, some)
    rows = []
    for name, check in checks.items():
        try:
            good, detail = check()
        except Exception as error:
            good, detail = False, f"{type(error).__name__}: {error}"
        rows.append((name, "ok" if good else "FAILED", detail))
    env.close()
    print_table(f"rlvr check {text}", ["check", "", "detail"], rows)
    return all(row[1] == "ok" for row in rows)


def _contract(choice: EnvChoice) -> Outcome:
    env = envs.make(choice.id, disable_env_checker=True, **choice.options).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    ours = sorted({str(w.message).splitlines()[0] for w in caught})
    return not ours, "; ".join(ours) or "reset, step, spaces, determinism"


def _seeds(env: "gymnasium.Env[str, str]") -> Outcome:
    first, again, other = (env.reset(seed=seed) for seed in (5, 5, 6))
    return first == again, "differs from seed 6" if first != other else "one task for every seed"


def _unique(tasks: list[Task]) -> Outcome:
    ids = {task.id for task in tasks}
    return len(ids) == len(tasks), f"{len(tasks)} tasks, {len(ids)} ids"


def _solutions(env: "gymnasium.Env[str, str]", tasks: list[Task]) -> Outcome:
    known = [(i, task.solution) for i, task in enumerate(tasks) if task.solution is not None]
    failed = []
    for index, solution in known:
        env.reset(options={"index": index})
        if env.step(solution)[1] != 1:
            failed.append(tasks[index].id)
    detail = f"{len(known) - len(failed)} of {len(known)} solutions"
    return not failed, detail + (f"; not: {', '.join(failed[:5])}" if failed else "")


def _verifier(env: "gymnasium.Env[str, str]", tasks: list[Task]) -> Outcome:
    report = check_verifier(env.unwrapped.verifier, tasks)  # pyright: ignore
    return report.ok, str(report) if not report.ok else "exploits, garbage, determinism, JSON, time"
