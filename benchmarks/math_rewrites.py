r"""Rewrites of real golds that keep them, mutations that do not, and what our verifier says.

From the golds of OlympiadBench, GSM8K and SVAMP it draws, for a seed always the same, answers that
are spelled, ordered and dressed otherwise but equal, and answers that are changed. A mutation
counts only if mpmath, on the generator's own trees and at 60 digits, finds the two values
different: the verifier that is judged has no part in that. Cross pairs ask one gold for another
one's answer; those that mpmath calls equal are coincidences.

    python benchmarks/math_rewrites.py --data FOLDER --seed 1
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from math_golds import Gold, Tree, load, periodic, proved_different, symbols
from math_moves import REWRITES, STEPS, Move, variants
from math_mutations import MUTATIONS
from math_spelling import Speller

STRUCTURES = ("list", "tuple", "interval", "union", "set", "eq")


@dataclass(frozen=True, kw_only=True)
class Pair:
    r"""A truth and a completion whose relation is known.

    Example:
        `Pair(name="gsm8k:3", truth="540", completion="\\boxed{540.}", equal=True, how="dressed")`
    """

    name: str
    truth: str
    completion: str
    equal: bool
    how: str
    """The moves and the form."""


# --- forms of a whole answer ----------------------------------------------------------------------


def _grouped(tree: Tree, text: str, rng: random.Random) -> str | None:
    if tree.kind != "num" or not tree.text.isdigit() or len(tree.text) < 4:
        return None
    mark = rng.choice((",", "{,}", r"\,", r"\;", "\u2009", "\u202f"))
    return f"{int(tree.text):,}".replace(",", mark)


def _named(tree: Tree, text: str, rng: random.Random) -> str | None:
    name = next(name for name in "xyzwuvst" if name not in symbols(tree))
    if tree.kind == "tuple":
        names = [name for name in "xyzwuvstabcdklmnpq" if name not in symbols(tree)]
        if len(tree.parts) > len(names):
            return None
        return f"({', '.join(names[: len(tree.parts)])}) = {text}"
    return None if tree.kind in STRUCTURES else f"{name} = {text}"


def _with_unit(tree: Tree, text: str, rng: random.Random) -> str | None:
    if tree.kind in (*STRUCTURES, "deg", "pct", "add", "neg") or symbols(tree):
        return None
    units = (r"\text{ cm}", r"\,\mathrm{kg}", r"\text{ square units}", r" \text{ apples}")
    return text + rng.choice(units)


def _membership(tree: Tree, text: str, rng: random.Random) -> str | None:
    return rf"x \in {text}" if tree.kind in ("interval", "union") else None


def _inequality(tree: Tree, text: str, rng: random.Random) -> str | None:
    if tree.kind != "interval":
        return None
    speller = Speller(rng)
    below, above = ({"(": "<", "[": r"\le"}[tree.text[0]], {")": "<", "]": r"\le"}[tree.text[1]])
    low, high = tree.parts
    if low.kind == "neg" and low.parts[0].kind == "inf":
        return f"x {above} {speller.write(high)}"
    if high.kind == "inf":
        turned = {"<": ">", r"\le": r"\geq"}[below]
        return f"x {turned} {speller.write(low)}"
    return f"{speller.write(low)} {below} x {above} {speller.write(high)}"


def _style(tree: Tree, text: str, rng: random.Random) -> str | None:
    ways = [r"\displaystyle %s", r"%s\,", "$%s$", "%s.", " %s ", r"%s\ .", "\\,%s", "%s\n"]
    if tree.kind not in STRUCTURES:  # around a list, braces would make a set
        ways.append("{%s}")
    if tree.kind == "num":
        ways += [r"\mathbf{%s}", r"\text{%s}", r"\mathrm{%s}", "+%s"]
    return rng.choice(ways) % text


def _scientific(tree: Tree, text: str, rng: random.Random) -> str | None:
    digits = tree.text.rstrip("0")
    if tree.kind != "num" or not tree.text.isdigit() or len(tree.text) < 3 or not digits:
        return None
    power = len(tree.text) - 1
    point = f"{digits[0]}.{digits[1:]}".rstrip(".")
    times = rng.choice((r"%s \times 10^{%d}", r"%s\cdot 10^{%d}", "%se%d", "%s × 10^%d"))
    return times % (point, power)


def _trailing_zeros(tree: Tree, text: str, rng: random.Random) -> str | None:
    if tree.kind != "num" or not tree.text.isdigit():
        return None
    return tree.text + rng.choice((".0", ".00", ".000"))


def _money(tree: Tree, text: str, rng: random.Random) -> str | None:
    if tree.kind != "num":
        return None
    return rng.choice((r"\$%s", r"\$ %s", "%s dollars", r"%s\text{ dollars}", "€%s")) % text


def _chained(tree: Tree, text: str, rng: random.Random) -> str | None:
    moved = _moved(tree, STEPS, rng) if tree.kind not in (*STRUCTURES, "deg", "pct") else None
    return f"{Speller(rng).write(moved[0])} = {text}" if moved else None


FORMS = (
    _grouped, _named, _with_unit, _membership, _inequality, _style, _scientific, _trailing_zeros,
    _money, _chained,
)  # fmt: skip

WRAPPERS = (
    r"\boxed{%s}",
    r"\boxed{%s}",
    r"\boxed{%s}.",
    r"Therefore the result is $\boxed{%s}$.",
    r"\[\boxed{%s}\]",
    r"First I got \boxed{77777}, which is wrong. Checking again: $\boxed{%s}$",
    r"<think>Perhaps \boxed{77777}?</think>It is \boxed{%s}.",
    "**Final Answer**\n\n\\[\n\\boxed{%s}\n\\]",
    r"\fbox{%s}",
    r"The answer is $%s$.",
    "Final Answer: The final answer is $%s$. I hope it is correct.",
    r"<answer>%s</answer>",
)


def dressed(tree: Tree, rng: random.Random, *, named: bool = True) -> tuple[str, str]:
    """Write an answer in some form, in some completion; return it and the form's name.

    Args:
        tree: What to write.
        rng: Draws the form and the completion.
        named: Whether `x = ` may stand before it.
    """
    text, form = Speller(rng).write(tree), "plain"
    if rng.random() < 0.6:
        for make in rng.sample(FORMS, len(FORMS)):
            if make is _named and not named:
                continue
            if (formed := make(tree, text, rng)) is not None:
                text, form = formed, make.__name__.strip("_")
                break
    wrapper = rng.choice(WRAPPERS)
    if "$" in wrapper and "$" in text:
        wrapper = WRAPPERS[0]
    return wrapper % text, form


# --- pairs ----------------------------------------------------------------------------------------


_LEFT_SIDE = ("rename_parameter", "drop_left_side")
"""After one of them the left side is settled."""


def _moved(
    tree: Tree, moves: Sequence[Move], rng: random.Random, done: Sequence[str] = ()
) -> tuple[Tree, str] | None:
    settled = any(name in _LEFT_SIDE for name in done)
    for move in rng.sample(moves, len(moves)):
        if settled and move.__name__ in _LEFT_SIDE:
            continue
        if options := list(variants(tree, move, rng)):
            return rng.choice(options), move.__name__
    return None


def rewrites(gold: Gold, count: int, rng: random.Random) -> Iterator[Pair]:
    """Yield answers equal to a gold; one that no move applies to is only spelled and dressed."""
    for _ in range(count if gold.tree else 0):
        tree, hows = gold.tree, []
        assert tree is not None
        for _ in range(rng.choice((0, 1, 1, 2))):
            if (moved := _moved(tree, REWRITES, rng, hows)) is not None:
                tree = moved[0]
                hows.append(moved[1])
        completion, form = dressed(tree, rng, named="drop_left_side" not in hows)
        how = "+".join((*hows, form))
        yield Pair(name=gold.name, truth=gold.text, completion=completion, equal=True, how=how)


def mutations(gold: Gold, count: int, rng: random.Random) -> Iterator[Pair]:
    """Yield answers proved different from a gold; families of angles are left alone."""
    for _ in range(count if gold.tree and not periodic(gold.tree) else 0):
        assert gold.tree is not None
        moved = _moved(gold.tree, MUTATIONS, rng)
        if moved is None or not proved_different(gold.tree, moved[0]):
            continue
        tree, how = moved
        if rng.random() < 0.3 and (again := _moved(tree, REWRITES, rng)) is not None:
            tree, how = again[0], f"{how}+{again[1]}"
        completion, form = dressed(tree, rng)
        how = f"{how}+{form}"
        yield Pair(name=gold.name, truth=gold.text, completion=completion, equal=False, how=how)


def pairs(golds: Iterable[Gold], seed: int, count: int) -> Iterator[Pair]:
    """Yield up to `count` rewrites and `count` mutations of each gold, the same for a seed."""
    for gold in golds:
        rng = random.Random(f"{seed}:{gold.name}")
        yield from rewrites(gold, count, rng)
        yield from mutations(gold, count, rng)


def crossed(golds: Sequence[Gold], seed: int, count: int) -> Iterator[tuple[Pair, bool]]:
    """Yield pairs of different golds, and whether mpmath says that they differ."""
    rng = random.Random(seed)
    texts = {gold.text: gold for gold in golds if gold.tree}
    readable = list(texts.values())
    for _ in range(count):
        truth, other = rng.sample(readable, 2)
        assert truth.tree is not None
        assert other.tree is not None
        completion = (
            rf"\boxed{{{other.text.strip('$')}}}"
            if other.text.count("$") == 2
            else (rf"\boxed{{{other.text}}}")
        )
        pair = Pair(
            name=f"{truth.name} × {other.name}",
            truth=truth.text, completion=completion, equal=False, how="crossed",
        )  # fmt: skip
        yield pair, proved_different(truth.tree, other.tree)


# --- the report -----------------------------------------------------------------------------------


def main() -> None:
    """Run the generator against `rlvr`'s verifier and print what went wrong."""
    from rlvr.verifiers.mathematics import MathAnswer

    options = _arguments()
    judge = MathAnswer()
    golds = load(options.data)
    unread = [gold.name for gold in golds if gold.tree is None]
    print(f"{len(golds)} golds; {len(unread)} that the generator leaves alone: {', '.join(unread)}")
    unmatched = [g for g in golds if judge(rf"\boxed{{{g.text}}}", g.text).reward != 1]
    print(f"\nself-match: {len(golds) - len(unmatched)} of {len(golds)}")
    for gold in unmatched:
        print(f"  {gold.name} | {gold.text} | {dict(judge(gold.text, gold.text).evidence)}")

    drawn = list(pairs(golds, options.seed, options.count))
    start = time.process_time()
    failures = [pair for pair in drawn if judge(pair.completion, pair.truth).reward != pair.equal]
    seconds = time.process_time() - start
    for equal, title in ((False, "mutations paid"), (True, "rewrites refused")):
        total = sum(pair.equal == equal for pair in drawn)
        wrong = [pair for pair in failures if pair.equal == equal]
        share = len(wrong) / max(total, 1)
        print(f"\n{title}: {len(wrong)} of {total} ({share:.3%})")
        _print_kinds(drawn, wrong, equal)
        for pair in wrong[: options.show]:
            print(f"  {pair.name} | {pair.truth} | {pair.completion!r} | {pair.how}")
    accuracy = 1 - len(failures) / len(drawn)
    print(f"\naccuracy {accuracy:.4f}; {len(drawn) / seconds:,.0f} checks/s of CPU time")

    rich = [gold for gold in golds if gold.name.startswith("olympiadbench")]
    paid = [
        (pair, differs)
        for pair, differs in crossed(rich, options.seed, options.cross)
        if judge(pair.completion, pair.truth).reward != 0
    ]
    false = [pair for pair, differs in paid if differs]
    print(f"\ncross pairs: {options.cross}; paid {len(paid)}, of them different {len(false)}")
    for pair, differs in paid[: options.show]:
        verdict = "DIFFERENT" if differs else "the same by mpmath"
        print(f"  {pair.name} | {pair.truth} | {pair.completion} | {verdict}")
    if options.out:
        rows = [vars(pair) for pair in drawn]
        options.out.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def _print_kinds(drawn: Sequence[Pair], wrong: Sequence[Pair], equal: bool) -> None:
    total = Counter(kind for p in drawn if p.equal == equal for kind in p.how.split("+"))
    bad = Counter(kind for pair in wrong for kind in pair.how.split("+"))
    counts = [f"{kind} {bad[kind]}/{total[kind]}" for kind in sorted(bad, key=lambda k: -bad[k])]
    print("  by move and form: " + (", ".join(counts) or "none"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rewrites and mutations of real golds.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3, help="rewrites, mutations for each gold")
    parser.add_argument("--cross", type=int, default=20_000, help="cross pairs")
    parser.add_argument("--show", type=int, default=20, help="failures listed of each kind")
    parser.add_argument("--out", type=Path, help="write the drawn pairs as JSON lines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
