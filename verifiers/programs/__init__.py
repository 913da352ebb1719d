"""Programs as answers: run in a sandbox, judged from outside.

A completion's program is code of the policy, and the policy is paid by the verdict. So what decides
never enters its process: it is given inputs, one call or one run at a time, and what it prints or
returns is read here as plain data and compared here. No exit status, marker, pickle or random token
inside its process means anything. Tests that are code run in a second sandbox, for which the
program is a set of names that can be called.

Covered: forged results, patched builtins, hostile `__eq__`, early exits, searches of memory and
frames for expected values, chosen collisions, endless or huge output, hangs. Not covered: tests
that are too weak to tell a right program from a wrong one; a program that recognises the inputs of
a test seen before; languages other than Python.
"""

from .encoding import tag
from .extraction import find_program
from .results import End
from .verifier import ProgramTests

__all__ = ["End", "ProgramTests", "find_program", "tag"]
