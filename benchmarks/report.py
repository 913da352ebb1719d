"""What every benchmark prints: the machine, the versions, and tables in Markdown."""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = ("rlvr", "torch", "transformers", "trl", "accelerate", "datasets", "numpy")


def circumstances(threads: int) -> dict[str, Any]:
    """Return date, machine, load and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "torch_threads": threads,
        "python": platform.python_version(),
        "versions": {name: number for name in DISTRIBUTIONS if (number := _version(name))},
    }


def _version(name: str) -> str:
    """Return a distribution's version; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def described(facts: Mapping[str, Any]) -> str:
    """Return the circumstances as one paragraph."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['processor']}, {facts['cores']} cores "
        f"(load {facts['load_at_start']} at the start), {facts['torch_threads']} threads; "
        f"Python {facts['python']}, {versions}."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Return `median (first quartile–third quartile)`."""
    if not values:
        return "none"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f}–{high:.{digits}f})"


def save(path: str | Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON."""
    Path(path).write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten: {path}")
