"""`rlvr/Search-v0`: a question over several pages of a small invented corpus.

**Prompt** "What is the birth year of the mayor of the town where the firm of Mira Tolvane has its
seat?"; the template's hole is `{question}`. **Truth** the name or year. **Verifier** `named`: the
text itself, upper or lower case. **Difficulty** how many steps from page to page (`hops`), how many
people there are, and how many pages that mention them and say nothing (`noise`).

**Tools** `search(query, k)` ranks pages by BM25 and shows their titles; `read(id)` shows a page.
The people, towns and firms are invented for each task, so that nothing can be known beforehand.
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...verifiers import Task, UsageError
from ...verifiers.text import Exact
from ..procedural import Problem, Procedural, Settings, check_range
from ..selection import side
from ..tools.shipped import ShippedToolEnv

MAX_QUERY = 300
"""Characters of a query."""
MAX_RESULTS = 10
"""Pages that a search shows at most."""

_START = ("Ba", "Cor", "Del", "Fen", "Gal", "Hes", "Jor", "Kel", "Lum", "Mor", "Nar", "Pel", "Quil",
          "Ros", "Sel", "Tor", "Ul", "Ven", "Wil", "Zan")  # fmt: skip
_MIDDLE = ("a", "e", "i", "o", "u", "ari", "eno", "ila", "oro", "usa")
_END = ("bar", "den", "fell", "gan", "lis", "mond", "nor", "ric", "sen", "thal", "vane", "wick")
_JOBS = ("baker", "surveyor", "printer", "botanist", "clockmaker", "singer", "mason", "chemist")
_GOODS = ("lamps", "bells", "ropes", "tiles", "compasses", "sails", "kettles", "violins")


@dataclass(frozen=True)
class Link:
    """What a page says of its subject.

    Example:
        `Link("person", "town", "the town where {} was born", "was born in {}")`
    """

    source: str
    """The kind of the subject."""
    target: str
    """The kind of what is said, or `"year"`, `"goods"`."""
    asked: str
    """In a question."""
    said: str
    """On the page."""


LINKS = (
    Link("person", "town", "the town where {} was born", "was born in {}"),
    Link("person", "firm", "the firm where {} works", "has worked for {} for many years"),
    Link("person", "person", "the teacher of {}", "learnt the trade from {}"),
    Link("person", "year", "the birth year of {}", "came into the world in the year {}"),
    Link("firm", "town", "the town where {} has its seat", "has its seat in {}"),
    Link("firm", "person", "the founder of {}", "was founded by {}"),
    Link("firm", "goods", "the product of {}", "is known for its {}"),
    Link("town", "person", "the mayor of {}", "is governed by {}"),
    Link("town", "river", "the river through {}", "lies on the river {}"),
    Link("town", "year", "the founding year of {}", "received its charter in {}"),
)
_KINDS = ("person", "firm", "town", "river")


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """Difficulty.

    Example:
        `SearchSettings(hops=2, people=20)`
    """

    hops: int = 3
    """Pages that lead to the answer, from 1 to 6."""
    people: int = 24
    """People, from 8 to 100; a third as many firms, and as many towns."""
    noise: int = 16
    """Pages that only mention people, from 0 to 200."""
    prompt: str = "{question} The answer is a name, a word or a year, as it stands on a page."
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("hops", self.hops, 1, 6)
        check_range("people", self.people, 8, 100)
        check_range("noise", self.noise, 0, 200)


class World:
    """Invented people, firms and towns with what is said of them; the same for the same number."""

    def __init__(self, number: int, people: int, noise: int) -> None:
        """Draw names and facts."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([number, people, noise])))
        self.rng = rng
        some = max(4, people // 3)
        names = _names(rng, 3 * some + people)
        families = names[-people // 2 :]
        self.names: dict[str, list[str]] = {
            "firm": [f"{name} & Sons" for name in names[:some]],
            "town": names[some : 2 * some],
            "river": [f"{name} Water" for name in names[2 * some : 3 * some]],
            "person": [
                f"{names[3 * some + i]} {families[i % len(families)]}" for i in range(people)
            ],
        }
        self.facts: dict[tuple[str, Link], str] = {
            (name, link): self._value(link, name)
            for link in LINKS
            for name in self.names[link.source]
        }
        """What each page says of its subject."""
        self.noise = noise

    def _value(self, link: Link, name: str) -> str:
        if link.target == "year":
            return str(int(self.rng.integers(1500, 2000)))
        if link.target == "goods":
            return _GOODS[int(self.rng.integers(len(_GOODS)))]
        others = [other for other in self.names[link.target] if other != name]
        return others[int(self.rng.integers(len(others)))]

    def pages(self) -> list[tuple[str, str]]:
        """Return title and text of each page; to be called once, since it goes on drawing."""
        pages = []
        for kind in ("person", "firm", "town"):
            links = [link for link in LINKS if link.source == kind]
            for name in self.names[kind]:
                said = [f"{name} {link.said.format(self.facts[name, link])}." for link in links]
                if kind == "person":
                    said.append(f"{name} is a {_JOBS[int(self.rng.integers(len(_JOBS)))]}.")
                pages.append((name, " ".join(said[i] for i in self.rng.permutation(len(said)))))
        for number in range(self.noise):
            one, other = (self._any("person") for _ in range(2))
            text = f"On market day {one} met {other} in {self._any('town')} and spoke of the rain."
            pages.append((f"Letter {number + 1}", text))
        return [pages[i] for i in self.rng.permutation(len(pages)).tolist()]

    def _any(self, kind: str) -> str:
        names = self.names[kind]
        return names[int(self.rng.integers(len(names)))]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Draw different names."""
    every = ["".join(parts) for parts in itertools.product(_START, _MIDDLE, _END)]
    return [every[i] for i in rng.permutation(len(every))[:count].tolist()]


class Search(Procedural[SearchSettings]):
    """Questions along a path of pages."""

    name = "search"
    Config = SearchSettings
    fields = ("question",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw a world and a path through it."""
        config = self.config
        number = int(rng.integers(2**31))
        if side(str(number)) != config.split:
            return None  # known before the world is invented, which takes a while
        world = World(number, config.people, config.noise)
        kind = ("person", "firm", "town")[int(rng.integers(3))]
        name = world.names[kind][int(rng.integers(len(world.names[kind])))]
        asked, path = name, [name]
        for hop in range(config.hops):
            last = hop == config.hops - 1
            links = [
                link
                for link in LINKS
                if link.source == kind and (last or link.target in ("person", "firm", "town"))
            ]
            link = links[int(rng.integers(len(links)))]
            asked, name, kind = link.asked.format(asked), world.facts[name, link], link.target
            path.append(name)
        if len(set(path)) < len(path) or kind == "goods":
            return None  # one of a few words could be guessed
        return Problem(
            fields={"question": f"What is {asked}?"},
            canonical=str(number),
            truth=name,
            solution=f"<answer>{name}</answer>",
            metadata={
                "world": number, "people": config.people, "noise": config.noise, "path": path,
            },
        )  # fmt: skip


def words(text: str) -> list[str]:
    """Return the words of a text as the index has them.

    Example:
        >>> words("Torafell & Sons, 1712")
        ['torafell', 'sons', '1712']
    """
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


class Corpus:
    """Pages and their index; nothing changes them."""

    def __init__(self, pages: Sequence[tuple[str, str]]) -> None:
        """Index titles and texts."""
        import bm25s

        self.pages = {f"p{number}": page for number, page in enumerate(pages)}
        """Title and text by id."""
        self._index = bm25s.BM25()
        self._index.index([words(" ".join(page)) for page in pages], show_progress=False)

    def best(self, query: str, count: int) -> list[str]:
        """Return the ids of the best pages, best first; equal ones in the order of the pages."""
        asked = words(query)
        if not asked:
            return []
        scores = np.asarray(self._index.get_scores(asked))
        order = np.argsort(-scores, kind="stable")[:count].tolist()
        return [f"p{number}" for number in order if scores[number] > 0]


def search(state: Corpus, query: str, k: int = 5) -> str:
    """Search the pages for words.

    Args:
        query: Words to look for.
        k: How many pages to show, from 1 to 10.
    """
    if len(query) > MAX_QUERY:
        raise UsageError(f"the query has {len(query)} characters; at most {MAX_QUERY} are read")
    if not 1 <= k <= MAX_RESULTS:
        raise UsageError(f"k is from 1 to {MAX_RESULTS}, got {k!s:.20}")
    found = [{"id": id, "title": state.pages[id][0]} for id in state.best(query, k)]
    return "\n".join(json.dumps(one, ensure_ascii=False) for one in found) or "no page has that"


def read(state: Corpus, id: str) -> str:
    """Read a page.

    Args:
        id: As a search shows it: "p12".
    """
    if id not in state.pages:
        raise UsageError(f"no page {id!r:.40}; take an id from a search")
    return "\n".join(state.pages[id])


class SearchEnv(ShippedToolEnv[Corpus]):
    """A chat with a search engine."""

    TOOLS = (search, read)
    TURNS = 20
    EXAMPLE = ("search", {"query": "mayor of Kelabar"})

    def open(self, task: Task, rng: np.random.Generator) -> Corpus:
        """Invent the world of the task again, and index it."""
        data: dict[str, Any] = dict(task.metadata)
        return Corpus(World(data["world"], data["people"], data["noise"]).pages())

    def copy_state(self, state: Corpus) -> Corpus:
        """Return the corpus itself: nothing changes it."""
        return state

    def solve(self, task: Task) -> Iterator[str]:
        """Look up one page after the other, and answer with what the last one says."""
        answer = ""
        for name, target in itertools.pairwise(task.metadata["path"]):
            listed = yield self.call("search", query=name, k=MAX_RESULTS)
            found = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
            ids = [one["id"] for one in found if one["title"] == name]
            page = (yield self.call("read", id=ids[0])) if ids else ""
            answer = target if target in page else ""
        yield f"<answer>{answer}</answer>"


named = Exact(extract=("tag", "boxed", "answer_is", "whole"), case=False)
"""The name itself, in a tag, or as the whole answer."""
