"""The tests, in a sandbox of their own: what they call is in another one.

The names that tests call stand for functions of the program; arguments go there and results come
back as plain data, so that comparisons happen here, between built-in values. What is no plain data
is a `Remote`: it can be called, iterated once if it is an iterator, and passed back, and is equal
to nothing but itself. No method of it is ever asked about a value of the tests.
"""

from __future__ import annotations

import sys

from .codec import Reader, encode
from .talk import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_TEXT = 500
"""Characters of an exception's message."""


class CandidateError(Exception):
    """The program raised an exception that is not one of Python's own."""


class Remote:
    """An object of the program."""

    def __init__(self, tests: Tests, place: int, name: str) -> None:
        """Remember where it is."""
        self.__dict__.update(_tests=tests, _place=place, _name=name, _open=False)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it there."""
        return self._tests.call(self, args, named)

    def __getattr__(self, name: str) -> Any:
        """Ask for an attribute, where the tests say that this is an instance of their class."""
        if not self._open or name.startswith("_"):
            raise AttributeError(f"{self!r} is no plain data and has no attribute '{name}' here")
        value = self._tests.ask(f'"get",{self._tests.encode(self)},{encode(name, str)}')
        if isinstance(value, Remote):
            value.__dict__["_open"] = True
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, likewise."""
        if not self._open or name.startswith("_"):
            raise AttributeError(f"{self!r} is no plain data and has no attribute '{name}' here")
        sent = f"{encode(name, str)},{self._tests.encode(value)}"
        self._tests.ask(f'"set",{self._tests.encode(self)},{sent}')

    def __repr__(self) -> str:
        """Show its type's name."""
        return f"<{self._name} of the program>"


class RemoteIterator(Remote):
    """An iterator of the program: each item is asked for."""

    def __iter__(self) -> RemoteIterator:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Ask for the next item."""
        return self._tests.ask(f'"next",{self._tests.encode(self)}')


class Named:
    """A name that the tests call: a function of the program, or one of its classes."""

    def __init__(self, tests: Tests, name: str, is_class: bool) -> None:
        """Remember the name."""
        self._tests = tests
        self._name = name
        self._is_class = is_class

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it there."""
        value = self._tests.call(self._name, args, named)
        if self._is_class and isinstance(value, Remote):
            value.__dict__["_open"] = True
        return value


class Tests:
    """Runs the tests and tells what came of each."""

    def __init__(self) -> None:
        """Start the conversation."""
        self.line = Line()
        self.reader = Reader(ref=self._remote)
        self.remotes: dict[int, Remote] = {}
        self.functions: list[Callable[..., Any]] = []
        self.number = 0
        self.after = False
        self.space: dict[str, Any] = {"__name__": "tests"}
        self.sources: dict[str, str] = {}

    def run(self) -> None:
        """Take the tests in, run them, tell the results."""
        given = self.reader.read(self.line.receive())
        self.after = given["after"]
        names = {name: Named(self, name, name in given["classes"]) for name in given["names"]}
        self.space.update(names)
        failure = self._try("setup", given["setup"])
        # again, because the setup may hold a mere beginning of the function, under its name
        self.space.update(names)
        for name, target in given["aliases"].items():
            self.space[name] = self.space[target]
        if "random" in sys.modules:
            sys.modules["random"].seed(given["seed"])
        for place, test in given["tests"]:
            said = failure or self._try(f"test {place}", test)
            self.line.send(f'["result",{place},{encode(said, str)}]')

    def _try(self, name: str, source: str) -> list[Any]:
        """Run a text; returns nothing, or what it raised and where."""
        self.sources[name] = source
        try:
            exec(compile(source, name, "exec", dont_inherit=True), self.space)
        except BaseException as error:
            return [type(error).__name__, text(error), self._where(error), name == "setup"]
        return []

    def _where(self, error: BaseException) -> str:
        """Return the last line of the tests that was run."""
        found, trace = "", error.__traceback__
        while trace is not None:
            source = self.sources.get(trace.tb_frame.f_code.co_filename)
            if source is not None:
                found = source.splitlines()[trace.tb_lineno - 1].strip()
            trace = trace.tb_next
        return found[:MAX_TEXT]

    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a function of the program."""
        given = list(args)
        sent = f"{self.encode(given)},{self.encode(named)}"
        if not self.after:
            return self.ask(f'"call",{self.encode(target)},{sent},false')
        return self.ask(f'"call",{self.encode(target)},{sent},true', given)

    def ask(self, question: str, args: list[Any] | None = None) -> Any:
        """Send a question and wait for its answer; the program may ask back."""
        self.number += 1
        number = self.number
        self.line.send(f"[{number},{question}]")
        while True:
            _, what, *given = self.reader.read(self.line.receive())
            if what == "callback":
                self.line.send(f"[{number},{self._call_back(*given)}]")
                continue
            if what == "raised":
                raise exception(*given)
            if what == "stop":
                raise StopIteration
            if args is not None:
                for old, new in zip(args, given[1], strict=False):
                    follow(old, new)
            return given[0]

    def _call_back(self, place: int, args: list[Any]) -> str:
        try:
            return f'"answer",{self.encode(self.functions[place](*args))}'
        except Exception as error:
            return f'"refused",{encode(text(error), str)}'

    def encode(self, value: Any) -> str:
        """Write a value; a function stays here, and its number goes."""
        return encode(value, self._keep)

    def _keep(self, value: Any) -> str:
        if isinstance(value, Remote):
            kind = "iterator" if isinstance(value, RemoteIterator) else "object"
            return f'{{"ref":[{value._place},"{kind}",{encode(value._name, str)}]}}'
        if isinstance(value, Named):
            raise TypeError(f"the program's '{value._name}' cannot be passed to it")
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} cannot be sent to the program")
        self.functions.append(value)
        return f'{{"function":{len(self.functions) - 1}}}'

    def _remote(self, given: list[Any]) -> Remote:
        place, kind, name = given
        if place not in self.remotes:
            make = RemoteIterator if kind == "iterator" else Remote
            self.remotes[place] = make(self, place, name)
        return self.remotes[place]


def exception(name: str, message: str, base: str) -> Exception:
    """Make the exception that the program raised: one of Python's own, or of a class of the same
    name that is derived from the one of Python's own that it is derived from.
    """
    kind = vars(sys.modules["builtins"]).get(base)
    if base in ("StopIteration", "StopAsyncIteration"):
        # raised inside `all(map(…))` of a test it would end the loop, as if all had been seen
        return RuntimeError(f"the program raised {name}: {message}")
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
        try:
            return _made(kind if name == base else type(name, (CandidateError, kind), {}), message)
        except Exception:
            return CandidateError(f"{name}: {message}")
    return Exception(message) if name == "Exception" else CandidateError(f"{name}: {message}")


def _made(kind: type[Exception], message: str) -> Exception:
    """Make an exception; past its initialiser where that wants more than a message."""
    try:
        return kind(message)
    except TypeError:
        return kind.__new__(kind, message)


def follow(old: Any, new: Any) -> Any:
    """Change a value in place into another, as far as it can be changed; returns the result."""
    kind = type(old)
    if kind is not type(new):
        return new
    if kind is list:
        # items that stay keep their identity, so that other names for them see the change
        old[:] = [*map(follow, old, new), *new[len(old) :]]
    elif kind is dict:
        held = dict(old)
        old.clear()
        old.update((key, follow(held[key], v) if key in held else v) for key, v in new.items())
    elif kind is set or kind is bytearray:
        old.clear()
        (old.update if kind is set else old.extend)(new)
    elif kind is tuple and len(old) == len(new):
        return tuple(map(follow, old, new))
    else:
        return new
    return old


def text(error: BaseException) -> str:
    """Return an exception's message, cut."""
    try:
        return str(error)[:MAX_TEXT]
    except BaseException:
        return ""


def main() -> None:
    """Run the tests."""
    Tests().run()
