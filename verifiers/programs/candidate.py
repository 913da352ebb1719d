"""The near end of a candidate: asks for calls, checks that each answer is one, and in its turn."""

from typing import Any, NamedTuple

from ..sandbox import Outcome, Pool, Slot
from .encoding import Malformed, Tagged, read
from .guest.codec import quoted
from .guests import program
from .results import End
from .session import Bounds, Failed, Partner

SYNTAX_ERRORS = ("SyntaxError", "IndentationError", "TabError")


class Asked(NamedTuple):
    """A request, and what may answer it."""

    number: int
    values: int = 1
    """Values that come back: the result, and where that is asked for the arguments."""
    ends: bool = False
    """Whether "there are no more" is an answer."""


class Answer(NamedTuple):
    """What a candidate answered."""

    line: bytes
    what: str
    """`value`, `raised`, `stop` or `callback`."""
    given: list[Any]
    """Trees."""


class Candidate:
    """A program that has been loaded and answers calls."""

    def __init__(
        self, slot: Slot, pool: Pool, source: str, bounds: Bounds, tests: int, imports: str = ""
    ) -> None:
        """Start and load it, after `imports`.

        Raises:
            Failed: It does not load.
            Lost: The sandbox failed.
        """
        text = program("candidate", pool.python, f"{imports}\n{source}")
        self.partner = Partner(slot, text, bounds, tests)
        answer = self.ask(f'[0,"load",{quoted(source)},{quoted(imports)}]', Asked(0))
        if answer.what == "raised":
            name, message, _ = answer.given
            raise self.failed(
                End.SYNTAX if name in SYNTAX_ERRORS else ended(name), f"{name}: {message}"
            )

    def ask(self, line: str | bytes, asked: Asked) -> Answer:
        """Send a request and check the form of its answer.

        Raises:
            Failed: It gave none, or one that is none.
        """
        reply = self.partner.ask(line)
        try:
            what, *given = checked(read(reply), asked)
            if (b"function" in reply or b"\\u" in reply) and _holds_function(given):
                raise Malformed("a function of ours")
        except Malformed as error:
            raise self.failed(End.MALFORMED, f"its answer has {error}") from None
        return Answer(reply, what, given)

    def failed(self, end: End, reason: str) -> Failed:
        """End the program and make the exception that says why."""
        return Failed(end, reason, self.partner.close())

    def close(self) -> Outcome:
        """End the program."""
        return self.partner.close()


def checked(message: Any, asked: Asked) -> list[Any]:
    """Return the content of the answer to a request.

    Raises:
        Malformed: It is none.
    """
    if type(message) is not list or len(message) < 2 or type(message[0]) is not int:
        raise Malformed("no number")
    if message[0] != asked.number:
        raise Malformed(f"the number {message[0]} instead of {asked.number}")
    what, given = message[1], message[2:]
    counts = {"value": asked.values, "raised": 3, "callback": 2, "stop": 0 if asked.ends else -1}
    if type(what) is not str or len(given) != counts.get(what):
        raise Malformed("no form that answers this")
    if what == "raised" and not all(type(part) is str for part in given):
        raise Malformed("an exception without a name")
    if what == "callback" and not (type(given[0]) is int and type(given[1]) is list):
        raise Malformed("a call back to nothing")
    return message[1:]


def _holds_function(tree: Any) -> bool:
    """Return whether a tree holds the tag that only the tests may send."""
    if type(tree) is Tagged:
        return tree.tag == "function" or _holds_function(tree.given)
    return type(tree) is list and any(map(_holds_function, tree))


def ended(exception: str) -> End:
    """Return what an uncaught exception means."""
    return End.MEMORY if exception == "MemoryError" else End.EXCEPTION
