"""The programs that are started in sandboxes: the modules of `guest`, and one line that runs them.

The modules travel as an argument, and where the sandbox has the interpreter of this process they go
compiled: compiling them there, or reading them out of a literal, would cost as much as all the rest
of a run.
"""

import __future__

import functools
import marshal
from pathlib import Path
from typing import Any

from ..sandbox import Options
from ..sandbox.places import default_python
from ..sandbox.pool import imports

ANNOTATIONS = __future__.annotations.compiler_flag
FOLDER = Path(__file__).parent / "guest"
_START = """\
import sys, marshal
def load(name, code):
    module = sys.modules["guest." + name] = type(sys)("guest." + name)
    module.__dict__["__package__"] = "guest"
    exec(code, module.__dict__)
    return module
sys.modules["guest"] = type(sys)("guest")
sys.modules["guest"].__path__ = []
for part in marshal.loads(sys.argv.pop().encode("latin-1")):
    last = load(*part)
del part
last.main()
"""


def program(name: str, python: str, source: str = "") -> dict[str, Any]:
    """Return what `Slot.open` takes to run a module of `guest`.

    Args:
        name: `candidate`, `trusted` or `judge`.
        python: The sandbox's interpreter.
        source: What will be loaded there: its imports are named at the top, where the pool looks
            for what to have ready.
    """
    modules = sorted(imports(source.encode("utf-8", "surrogatepass")))
    wanted = "\n".join(f"import {module}" for module in modules if module.isidentifier())
    return {
        "program": f'"""\n{wanted}\n"""\n{_START}' if wanted else _START,
        "options": Options(argv=(_parts(name, python == default_python()),)),
    }


@functools.lru_cache(maxsize=8)
def _parts(name: str, compiled: bool) -> str:
    """Return the modules as one text: name and code or source of each."""
    parts: list[tuple[str, Any]] = []
    for module in ("codec", "talk", name):
        text = (FOLDER / f"{module}.py").read_text()
        if not compiled:
            parts.append((module, text))
            continue
        # as a flag, because the statement would have to find its module on the disk
        text = text.replace("from __future__ import annotations\n", "")
        code = compile(text, f"{module}.py", "exec", ANNOTATIONS, dont_inherit=True, optimize=2)
        parts.append((module, code))
    return marshal.dumps(parts).decode("latin-1")
