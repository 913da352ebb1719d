"""Transforms of the reward: a part for the form, a scale, noise.

The sum over an episode is what they speak of: how many turns it took changes nothing. An unscored
reward stays unscored.
"""

import hashlib
import math
from typing import Any, ClassVar

from ...verifiers import Status, UsageError, Verdict, Verifier, make, verify
from ...verifiers.errors import unknown
from .transform import TextEnv, Transform, finite

Step = tuple[str, float, bool, bool, dict[str, Any]]

LIMIT = 1e6
"""Weights, scales and shifts beyond it are a slip of the pen."""


class FormatReward(Transform[str, str]):
    """Adds a reward for the form: r' = r + weight·f, paid when the episode ends.

    f is the form verifier's reward for the last completion, or with `turns="all"` its mean over
    the episode's completions: more turns do not earn more. The verdict gets a part (`format`) and
    the new reward; its status still says whether the task was solved. `info[name]` is f.

    Example:
        >>> from rlvr import envs
        >>> env = FormatReward(envs.make("rlvr/Arithmetic-v0"), weight=0.25)
        >>> _ = env.reset(seed=0)
        >>> env.step("<think>none</think><answer>none</answer>")[1]
        0.25
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_parts",)

    def __init__(
        self,
        env: TextEnv,
        verifier: Verifier | str = "format",
        *,
        weight: float = 0.1,
        turns: str = "last",
        name: str = "format",
    ) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            verifier: Judges the form of a completion; a verifier or a registered name.
            weight: Of the form; 0 only measures it.
            turns: `"last"` or `"all"`.
            name: Of the part.

        Raises:
            UsageError: An option is unknown or out of range.
        """
        super().__init__(env, verifier=verifier, weight=weight, turns=turns, name=name)
        if turns not in ("last", "all"):
            raise unknown("turns", str(turns), ["last", "all"])
        self.weight = finite("weight", weight, "a number", -LIMIT, LIMIT)
        self.form = make(verifier)
        self.turns = turns
        self.name = name
        self._parts: list[float | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        self._parts = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Step:
        """Pass the action on; at the end of the episode, add the form's reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        end = terminated or truncated
        if end or self.turns == "all":
            task = getattr(self.env.unwrapped, "task", None)
            truth = None if task is None else task.truth
            self._parts.append(verify(self.form, action, truth, task=task).reward)
        if not end:
            return observation, float(reward), terminated, truncated, info
        scored = [part for part in self._parts if part is not None]
        failed = len(scored) < len(self._parts)
        form = None if failed else math.fsum(scored) / len(scored)
        if failed and self.weight:
            reward, info = math.nan, {**info, "unscored": True}
        total = float(reward) + self.weight * (form or 0.0)
        return observation, total, terminated, truncated, self._told(info, form)

    def _told(self, info: dict[str, Any], form: float | None) -> dict[str, Any]:
        """Return the info with the part in it."""
        info = {**info, self.name: form}
        if not isinstance(info.get("verdict"), dict):
            return info
        verdict = dict(info["verdict"])
        verdict["parts"] = {**verdict.get("parts", {}), self.name: form}
        if form is None and self.weight:
            failed = Verdict.error(f"the verifier of the part '{self.name}' failed")
            verdict = {**failed.to_json(cost=False), "parts": verdict["parts"]}
        elif verdict.get("reward") is not None:
            verdict["reward"] += self.weight * (form or 0.0)
        return {**info, "verdict": verdict}


class ScaleReward(Transform[str, str]):
    """Scales and shifts the return: R' = scale·R + shift, the shift paid when the episode ends.

    The verdict stays what the verifier said.

    Example:
        >>> from rlvr import envs
        >>> env = ScaleReward(envs.make("rlvr/Arithmetic-v0"), 2, shift=-1)
        >>> _ = env.reset(seed=0)
        >>> env.step("none")[1]
        -1.0
    """

    def __init__(self, env: TextEnv, scale: float = 1.0, *, shift: float = 0.0) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            scale: Factor of every reward.
            shift: Added once per episode.

        Raises:
            UsageError: One of them is no finite number.
        """
        super().__init__(env, scale=scale, shift=shift)
        self.scale = finite("scale", scale, "a number", -LIMIT, LIMIT)
        self.shift = finite("shift", shift, "a number", -LIMIT, LIMIT)

    def step(self, action: str) -> Step:
        """Pass the action on and scale what it earned."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        added = self.shift if terminated or truncated else 0.0
        return observation, self.scale * float(reward) + added, terminated, truncated, info


class Noise(Transform[str, str]):
    """Makes the verifier err at set rates, to study what training makes of that.

    A verdict of less than full reward becomes a full one with the probability `false_positive`, a
    full one becomes none with `false_negative`. Whether it errs is a hash of the seed, the task
    and everything the policy said: the same answer is always judged in the same way, as by a
    verifier that is wrong about it. `info["noise"]` says which error it was (`""` for none), and
    the verdict's evidence keeps `true_reward`. Episodes that end without a verdict are untouched.

    Example:
        >>> from rlvr import envs
        >>> env = Noise(envs.make("rlvr/Arithmetic-v0"), false_positive=1.0)
        >>> _ = env.reset(seed=0)
        >>> env.step("none")[1]
        1.0
    """

    _KEPT: ClassVar[tuple[str, ...]] = ("_said",)

    def __init__(
        self,
        env: TextEnv,
        *,
        false_positive: float = 0.0,
        false_negative: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            false_positive: Probability of paying what is not right, in [0, 1].
            false_negative: Probability of not paying what is right, in [0, 1].
            seed: Of the draw; another seed errs elsewhere.

        Raises:
            UsageError: An option is out of range.
        """
        settings = {"false_positive": false_positive, "false_negative": false_negative}
        super().__init__(env, **settings, seed=seed)
        rates = [finite(key, value, "in [0, 1]", 0, 1) for key, value in settings.items()]
        self.false_positive, self.false_negative = rates
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise UsageError(f"seed must be an integer, got {seed!r:.100}")
        self.seed = seed
        self._said = b""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._said = _chained(str(self.seed).encode(), f"{info.get('task_id')}\0{observation}")
        return observation, info

    def step(self, action: str) -> Step:
        """Pass the action on; where a verdict comes back, err at the set rates."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._said = _chained(self._said, action)
        verdict = info.get("verdict")
        if not terminated and not (truncated and isinstance(verdict, dict)):
            return observation, float(reward), terminated, truncated, info
        judged = verdict.get("reward") if isinstance(verdict, dict) else float(reward)
        if judged is None or not math.isfinite(judged) or not math.isfinite(reward):
            return observation, float(reward), terminated, truncated, {**info, "noise": ""}
        uniform = int.from_bytes(self._said[:7]) / 2**56
        right = judged >= 1
        errs = uniform < (self.false_negative if right else self.false_positive)
        kind = ("false_negative" if right else "false_positive") if errs else ""
        info = {**info, "noise": kind}
        if errs:
            paid = 0.0 if right else 1.0
            reward = float(reward) - judged + paid
            if isinstance(verdict, dict):
                info["verdict"] = _wrongly(verdict, paid)
        return observation, float(reward), terminated, truncated, info


def _wrongly(verdict: dict[str, Any], paid: float) -> dict[str, Any]:
    """Return a verdict turned around."""
    status = Status.CORRECT if paid else Status.WRONG
    evidence = {**verdict.get("evidence", {}), "true_reward": verdict["reward"]}
    return {**verdict, "reward": paid, "status": str(status), "evidence": evidence}


def _chained(before: bytes, text: str) -> bytes:
    """Return a hash of everything so far and a text."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), key=before[:64], digest_size=32
    ).digest()
