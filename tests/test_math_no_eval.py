"""No text of a policy is ever run or parsed as code, in this process or in a prover.

A `sitecustomize` module that every interpreter loads at its start, the workers' too, makes `eval`,
`exec`, `compile`, `sympify` of a text and `parse_expr` write a line to a log and raise, except
while a module is being imported and for texts of sympy's own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases" / "math.jsonl"

GUARD = '''
import builtins, importlib.machinery, os, sys

LOG = os.environ["RLVR_TEST_LOG"]
# sympy's own texts: functions from a template and a number of variables, constants of its tables
OWN = {
    ("sympy.polys.monomials", "_build"),
    ("sympy.simplify.hyperexpand", "add_formulae"),
    ("sympy.simplify.hyperexpand", "add_meijerg_formulae"),
    ("sympy.integrals.meijerint", "_create_lookup_table"),
}


def allowed():
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in OWN:
            return True
        frame = frame.f_back
    return False


def guard(name, real, applies=lambda args: True):
    def guarded(*args, **options):
        if applies(args) and not allowed():
            with open(LOG, "a") as log:
                log.write(f"{name} {ascii(args[:1])[:200]}\\n")
            raise BaseException(f"{name} was called")
        if name in ("eval", "exec") and len(args) < 2:
            caller = sys._getframe(1)
            args = (*args, caller.f_globals, caller.f_locals)
        return real(*args, **options)
    return guarded


for name in ("eval", "exec", "compile"):
    setattr(builtins, name, guard(name, getattr(builtins, name)))

PLACES = {
    "sympy.parsing.sympy_parser": ("parse_expr", lambda args: True),
    "sympy.core.sympify": ("sympify", lambda args: isinstance(args[0], str)),
}


class Finder:
    """Patches a module of sympy as soon as it is loaded."""

    @staticmethod
    def find_spec(module, path=None, target=None):
        if module not in PLACES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(module, path, target)
        load = spec.loader.exec_module
        def exec_module(loaded):
            load(loaded)
            name, applies = PLACES[module]
            setattr(loaded, name, guard(name, getattr(loaded, name), applies))
        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
'''

JUDGE = """
import json, sys
from rlvr.verifiers import EXPLOITS, make
math = make("math")
rows = [json.loads(line) for line in open(sys.argv[1])]
rows += [{"completion": exploit.text, "truth": "7"} for exploit in EXPLOITS]
for code in sys.argv[3:]:
    rows += [{"completion": code, "truth": "7"}, {"completion": code, "truth": code}]
    rows += [{"completion": rf"\\boxed{{{code}}}", "truth": r"\\int_0^1 x^x\\,dx"}]
verdicts = [math(row["completion"], row["truth"]).to_json(cost=False) for row in rows]
json.dump(verdicts, open(sys.argv[2], "w"))
"""

CODES = [
    "open('marker', 'w')",
    "__import__('os').system('touch marker')",
    "().__class__.__base__.__subclasses__()",
    "exec('1')",
    "sin(__import__('os').getpid())",
    "Symbol('x').evalf()",
    "lambda: 1",
    "x=open('marker','w')",
    "[y for y in (1).__class__.mro()]",
    r"\text{eval(1)}",
    r"\operatorname{exec}(1)",
    r"S(\text{'open'})",
    r"\int_0^1 open('marker','w')\,dx",
    "Integral(x**x, (x, 0, 1)).doit()",
    "f'{open(1)}'",
]

BREAKERS = """
def run(text):
    return bool(eval(text))
def parse(text):
    import sympy
    return bool(sympy.sympify(text))
"""

CONTROL = """
import sys
sys.path.append(sys.argv[1])
from breakers import parse, run
from rlvr.verifiers import WorkerPool
with WorkerPool(run) as runs, WorkerPool(parse) as parses:
    print(runs.call("1 + 1").status, parses.call("1 + 1").status)
try:
    eval("2 + 2")
except BaseException as error:
    print(error)
"""


def _run(folder: Path, program: str, *words: str, guarded: bool) -> tuple[str, str]:
    """Run a program, and return what it printed and what the guard wrote."""
    log = folder / "log"
    (folder / "sitecustomize.py").write_text(GUARD)
    places = [str(folder)] if guarded else []
    places += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    salt = {"RLVR_SALT": "the same in both runs"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        env={
            **os.environ,
            **salt,
            "PYTHONPATH": os.pathsep.join(places),
            "RLVR_TEST_LOG": str(log),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, log.read_text() if log.exists() else ""


def test_the_guard_stops_code_here_and_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "breakers.py").write_text(BREAKERS)
    out, log = _run(tmp_path, CONTROL, str(tmp_path), guarded=True)
    assert out == "error error\neval was called\n"
    assert [line.split()[0] for line in log.splitlines()] == ["eval", "sympify", "eval"]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[dict[str, object]]]:
    """The verdicts on the case table and on attacks, with the guard and without."""
    found = {}
    for guarded in (True, False):
        folder = tmp_path_factory.mktemp("guarded" if guarded else "free")
        _, log = _run(folder, JUDGE, str(CASES), "verdicts.json", *CODES, guarded=guarded)
        assert log == ""
        assert not (folder / "marker").exists()
        found[guarded] = json.loads((folder / "verdicts.json").read_text())
    return found


def test_no_case_and_no_attack_needs_code(verdicts: dict[bool, list[dict[str, object]]]) -> None:
    for guarded, free in zip(verdicts[True], verdicts[False], strict=True):
        # one that takes about as long as the deadline may meet it in one of the two
        late = "timeout" in (guarded["status"], free["status"])
        assert guarded == free or (late and guarded["reward"] == free["reward"] == 0.0)
    assert not [verdict for verdict in verdicts[True] if verdict["status"] == "error"]


def test_provers_took_part(verdicts: dict[bool, list[dict[str, object]]]) -> None:
    tiers = [dict(verdict["evidence"]).get("tier") for verdict in verdicts[True]]  # type: ignore
    assert set(tiers) & {"symbolic", "undecided"}
