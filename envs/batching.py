"""What goes with a batch of texts: infos, seeds and masks, one entry per environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..verifiers import UsageError


def batch_infos(infos: Mapping[int, Mapping[str, Any]], num_envs: int) -> dict[str, Any]:
    """Turn infos of some environments into gymnasium's vector form.

    Args:
        infos: By environment.
        num_envs: How many environments there are.

    Returns:
        Per key an array of all environments (of numbers if every value is a bool, every one an
        int or every one a float, else of objects), and under `_key` who has it. `final_info` is a
        dictionary of the same form; other dictionaries are objects.

    Example:
        >>> batch_infos({1: {"n": 3}}, 2)
        {'n': array([0, 3]), '_n': array([False,  True])}
    """
    columns: dict[str, dict[int, Any]] = {}
    keys = [tuple(info) for info in infos.values()]
    if len(infos) == num_envs and keys.count(keys[0]) == num_envs:  # the usual case, and quick
        rows = zip(*(info.values() for info in infos.values()), strict=True)
        columns = {
            key: dict(zip(infos, row, strict=True)) for key, row in zip(keys[0], rows, strict=True)
        }
    else:
        for i, info in infos.items():
            for key, value in info.items():
                columns.setdefault(key, {})[i] = value
    batched: dict[str, Any] = {}
    for key, values in columns.items():
        if key == "final_info":
            batched[key] = batch_infos(values, num_envs)
        else:
            batched[key] = _column(values, num_envs)
        mask = np.zeros(num_envs, dtype=np.bool_)
        mask[list(values)] = True
        batched[f"_{key}"] = mask
    return batched


def _column(values: Mapping[int, Any], num_envs: int) -> np.ndarray[Any, Any]:
    """Return one key's values as an array: of numbers where nothing is lost by it."""
    kinds = {type(value) for value in values.values()}
    kind = kinds.pop() if len(kinds) == 1 else object
    fits = kind is int and all(-(2**63) <= value < 2**63 for value in values.values())
    number = fits or kind in (bool, float)
    column = np.full(num_envs, 0 if number else None, dtype=kind if number else object)
    if number:
        column[list(values)] = list(values.values())
        return column
    for i, value in values.items():
        column[i] = value
    return column


def per_env_seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    """Return one seed per environment."""
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        if seed < 0:
            raise UsageError(f"seed must be an integer from 0 up, got {seed}")
        states = (np.random.SeedSequence([int(seed), i]) for i in range(count))
        return [int(state.generate_state(1, np.uint64)[0]) for state in states]
    each = per_env("seed", seed, count)
    return [None if one is None else int(one) for one in each]


def per_env(name: str, given: Any, count: int) -> list[Any]:
    """Return one value per environment: `given` itself if it is a list, else repeated."""
    if not isinstance(given, list | tuple | np.ndarray):
        return [given] * count
    if len(given) != count:
        raise UsageError(f"{name} needs one value per environment ({count}), got {len(given)}")
    return list(given)


def masked(mask: Any, count: int) -> list[int]:
    """Return the environments that a reset mask picks."""
    if mask is None:
        return list(range(count))
    flags = np.asarray(mask)
    if flags.dtype != np.bool_ or flags.shape != (count,) or not flags.any():
        raise UsageError(
            f"options['reset_mask'] must be a boolean array of length {count} with at least one "
            f"True, got {mask!r:.100}"
        )
    return np.flatnonzero(flags).tolist()
