"""Special judges: where many answers are right, a trusted program decides.

A judge is Python source that defines `judge(input, output, expected)`, which returns a truth value
or a share from 0 to 1. It runs in a sandbox of its own and is given plain values: texts for
programs that read and print, the arguments and results of calls. What it raises about an output
fails that output; one that does not load is the truth's fault.
"""

import json
from typing import Any

from ..errors import TaskError
from ..sandbox import Pool, Slot
from .encoding import Tagged, read
from .guest.codec import quoted
from .guests import program
from .session import Bounds, Failed, Partner


class Judge:
    """A judge, started when it is first asked."""

    def __init__(self, source: str, slot: Slot, pool: Pool, bounds: Bounds, tests: int) -> None:
        """Remember what to start and where."""
        self.source = source
        self.slot, self.pool, self.bounds, self.tests = slot, pool, bounds, tests
        self.partner: Partner | None = None

    def __call__(self, given: Any, output: Any, expected: Any) -> tuple[float, str]:
        """Ask about one output; returns its share and the reason for less than 1.

        Raises:
            TaskError: The judge is no program, defines no `judge`, or returns no share.
            Failed: It was too slow, or ended: outputs can do that to it.
            Lost: The sandbox failed.
        """
        line = as_line([given, output, expected])
        if self.partner is None:
            text = program("judge", self.pool.python, self.source)
            self.partner = Partner(self.slot, text, self.bounds, self.tests)
            self.partner.tell(quoted(self.source))
            try:
                self.partner.ask("null")
            except Failed as failure:
                errors = failure.outcome.errors if failure.outcome is not None else ""
                raise TaskError(f"the judge does not load: {errors[-300:]}") from None
        try:
            reply = self.partner.ask(line)
        except Failed:
            self.partner = None
            raise
        ok, said = read(reply)
        if not ok:
            return 0.0, f"the judge refuses it: {said}"
        if type(said) is Tagged:
            # what an output that is no number makes of a share; the judge is not to blame
            return 0.0, f"the judge gives {said.given}"
        if type(said) is not float or not 0 <= said <= 1:
            raise TaskError(f"the judge returned {said!r:.100}; expected a share from 0 to 1")
        return said, "" if said == 1 else f"the judge gives {said:g}"


def as_line(tree: Any) -> str:
    """Write a tree as a line.

    Example:
        >>> as_line([1, Tagged("tuple", ["a"])])
        '[1, {"tuple": ["a"]}]'
    """
    return json.dumps(_json(tree))


def _json(tree: Any) -> Any:
    if type(tree) is list:
        return [_json(item) for item in tree]
    return {tree.tag: _json(tree.given)} if type(tree) is Tagged else tree
