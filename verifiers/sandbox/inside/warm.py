"""Do once in the server what most programs do first, so that no run pays for it again.

The first compilation in a process sets up the parser's tables and types, the first exception its
formatting, and so on: together more than the fork itself. A fork inherits them ready.
"""

import marshal
import sys

SAMPLE = """
class Point:
    scale = 1.5
    def __init__(self, x, y=2, *rest, **named):
        self.x, self.y = x, y
    def norm(self) -> float:
        return (self.x ** 2 + self.y ** 2) ** 0.5 * self.scale

def count(words: list) -> dict:
    found = {}
    for word in sorted(words, key=lambda w: (len(w), w)):
        found[word] = found.get(word, 0) + 1
    return found

def walk(n):
    total = 0
    while n > 0 and n % 7 != 3:
        total, n = total + n, n - 1
    yield total

try:
    assert [x * x for x in range(5) if x % 2] == [1, 9], "no"
    first, *others = map(int, "1 2 3".split())
    values = {first: {v for v in others}, "text": f"{Point(3, 4).norm():.2f}", (1, 2): None}
    count("b a b".split()), list(walk(20)), max(values, key=str), sum([1.5, 2]), "-".join("ab")
    with_bytes = "x".encode() + bytes([1]) + bytes(2)
    int("5"), float("1.5"), str(2.5), repr([1]), abs(-1), round(1.5), bin(5), ord("a"), chr(98)
    1 // 0
except (ZeroDivisionError, ValueError) as error:
    text = str(error)
finally:
    print(text if not values else "", end="")
"""


def complete_builtins() -> None:
    """Define what `site` does, which is not imported here: programs leave by `exit()`."""
    import _sitebuiltins
    import builtins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.help = _sitebuiltins._Helper()


def warm_up() -> None:
    """Compile, run and report; standard output is /dev/null here, as in every server."""
    for _ in range(3):
        code = compile(SAMPLE.encode(), "program.py", "exec", dont_inherit=True)
        exec(code, {"__name__": "warm"})
    marshal.loads(marshal.dumps({"program": b"", "files": {}, "argv": ["a"]}, 2))
    try:
        raise ValueError("warm")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    sys.stdout.flush()
    sys.stdin.read()
