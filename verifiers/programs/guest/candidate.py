"""The policy's program: loads it, calls its functions, sends back what they return.

Each request is a line `[n, what, …]`, each answer one line `[n, …]`. The program can reach all of
this, and may: there is nothing here that it does not know already.
"""

from __future__ import annotations

import sys

from .codec import Reader, encode
from .talk import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OWN_FRAMES = 6
"""Calls of ours that the program stands on, beyond those that any does in the sandbox."""
MAX_TEXT = 300
"""Characters of an exception's message."""


class Raised(Exception):
    """What a function of the tests raised when the program called it."""


class Candidate:
    """The program's namespace and the objects that the other side has been told of."""

    def __init__(self) -> None:
        """Start with an empty namespace."""
        self.line = Line()
        self.reader = Reader(ref=self._object, function=self._function)
        self.module = type(sys)("solution")
        self.objects: list[Any] = []
        self.current = 0
        self.operations = {
            "load": self.load, "call": self.call, "get": self.get, "set": self.set,
            "next": self.next,
        }  # fmt: skip

    def serve(self) -> Any:
        """Answer requests; returns what answers a question of this side's own."""
        while True:
            number, what, *given = self.reader.read(self.line.receive())
            if what == "answer":
                return given[0]
            if what == "refused":
                raise Raised(given[0])
            before, self.current = self.current, number
            self.line.send(f"[{number},{self._answer(what, given)}]")
            self.current = before

    def _answer(self, what: str, given: list[Any]) -> str:
        try:
            return self.operations[what](*given)
        except BaseException as error:
            if what == "next" and type(error) is StopIteration:
                return '"stop"'
            report()
            names = [encode(name[:80], str) for name in (type(error).__name__, built_in(error))]
            return f'"raised",{names[0]},{encode(text(error), str)},{names[1]}'

    def load(self, source: str, prelude: str) -> str:
        """Run the program's top level, after imports that it may have left out."""
        sys.modules["solution"] = self.module
        exec(prelude, self.module.__dict__)
        exec(compile(source, "solution.py", "exec", dont_inherit=True), self.module.__dict__)
        return '"value",null'

    def call(self, target: Any, args: list[Any], named: dict[str, Any], after: bool) -> str:
        """Call a function; with `after` the arguments as they are afterwards are told too."""
        function = self.find(target) if type(target) is str else target
        value = self.encode(function(*args, **named))
        return f'"value",{value}' + (f",{self.encode(args)}" if after else "")

    def find(self, name: str) -> Any:
        """Find a function by its name.

        Of `Class.method` an instance is made; `Class|name` is that where there is the class, else
        the function.
        """
        found = self.module.__dict__
        owner, either, inner = name.partition("|")
        if either:
            name = f"{owner}.{inner}" if owner in found else inner
        first, *rest = name.split(".")
        if first not in found:
            raise NameError(f"name '{first}' is not defined")
        value = found[first]
        for part in rest:
            value = getattr(value() if isinstance(value, type) else value, part)
        return value

    def get(self, value: Any, name: str) -> str:
        """Tell an attribute."""
        return f'"value",{self.encode(getattr(value, name))}'

    def set(self, value: Any, name: str, new: Any) -> str:
        """Set an attribute."""
        setattr(value, name, new)
        return '"value",null'

    def next(self, value: Any) -> str:
        """Tell the next item of an iterator."""
        return f'"value",{self.encode(next(value))}'

    def encode(self, value: Any) -> str:
        """Write a value; what is no plain data stays here, and its number goes."""
        return encode(value, self._keep)

    def _keep(self, value: Any) -> str:
        kind = type(value)
        self.objects.append(value)
        what = "iterator" if hasattr(kind, "__next__") else "object"
        name = encode(kind.__name__[:80], str)
        return f'{{"ref":[{len(self.objects) - 1},"{what}",{name}]}}'

    def _object(self, given: list[Any]) -> Any:
        return self.objects[given[0]]

    def _function(self, place: int) -> Callable[..., Any]:
        """Make a stand-in for a function of the tests."""

        def called(*args: Any) -> Any:
            self.line.send(f'[{self.current},"callback",{place},{self.encode(list(args))}]')
            return self.serve()

        return called


def text(error: BaseException) -> str:
    """Return an exception's message, cut."""
    try:
        return str.__str__(str(error))[:MAX_TEXT]
    except BaseException:
        return "(its message cannot be shown)"


def built_in(error: BaseException) -> str:
    """Return the name of Python's own exception that one is, or is derived from."""
    return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")


def report() -> None:
    """Print the exception to standard error, from the program's own frames on."""
    try:
        kind, error, trace = sys.exc_info()
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        if error is not None:
            sys.excepthook(kind, error.with_traceback(trace), trace)  # pyright: ignore
    except BaseException:
        pass


def main() -> None:
    """Serve until the other side closes."""
    sys.setrecursionlimit(sys.getrecursionlimit() + OWN_FRAMES)
    Candidate().serve()
