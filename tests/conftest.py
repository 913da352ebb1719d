"""Fixtures: a tiny model and tokenizer, made once."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are tiny, and CI has other work


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep built models of the tests out of the user's cache."""
    before = os.environ.get("RLVR_CACHE")
    os.environ["RLVR_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["RLVR_CACHE"]
    else:
        os.environ["RLVR_CACHE"] = before


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """An untrained Llama with the byte tokenizer."""
    from rlvr.agents.embedded import EmbeddedConfig, build

    return build(EmbeddedConfig(width=32, layers=2, heads=2, context=256))
