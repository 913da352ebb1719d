"""Importing the environments is light, and gymnasium finds them with or without an import."""

import json
import subprocess
import sys

HEAVY = [
    "torch",
    "sympy",
    "transformers",
    "jsonschema",
    "datasets",
    "pandas",
    "pyarrow",
    "accelerate",
]


def output(program: str) -> str:
    """Run a program in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_environments_and_making_one_imports_nothing_heavy() -> None:
    program = (
        "import sys, json, rlvr.envs\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('rlvr.envs.tasks.')]))\n"
        "import gymnasium\n"
        "env = gymnasium.make('rlvr/Arithmetic-v0')\n"
        "env.reset(options={'index': 0})\n"
        "assert env.step(env.unwrapped.tasks[0].solution)[1] == 1.0\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    assert [json.loads(line) for line in output(program).splitlines()] == [[], []]


def test_an_environment_is_made_by_its_module_without_an_import() -> None:
    program = (
        "import gymnasium\n"
        "env = gymnasium.make('rlvr.envs:rlvr/Arithmetic-v0', digits=1)\n"
        "print(env.reset(options={'index': 0})[0])"
    )
    assert output(program).endswith(" = ?\n")
