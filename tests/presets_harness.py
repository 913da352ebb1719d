"""Other systems' GRPO on one small batch, computed by the files that pip installed.

Only the files with the formulas are loaded: their packages' `__init__` would pull in clusters and
kernels that no formula needs, so that empty modules stand in for those, and for what is not
installed. Settings are read from each system's own defaults.
"""

import ast
import contextlib
import functools
import importlib.util
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

GROUP, GROUPS, WIDTH = 4, 3, 6
ROWS = GROUP * GROUPS
SCORES = [1.0, 0.0, 0.0, 1.0, 0.3, 0.9, 0.1, 0.5, 1.0, 1.0, 1.0, 1.0]
LENGTHS = [1, 5, 3, 6, 2, 4, 6, 6, 3, 6, 1, 2]


@dataclass(frozen=True)
class Outcome:
    """What a system makes of a batch: advantages `[B, T]`, loss, ∂loss/∂l `[B, T]`."""

    advantages: Tensor
    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class Batch:
    """Three prompts with four completions each, of 1 to 6 tokens, some of them not trained."""

    rewards: Tensor
    groups: Tensor
    mask: Tensor
    logprobs: Tensor
    old: Tensor
    rollout: Tensor
    reference: Tensor


def trained_tokens() -> Tensor:
    """Mark them `[B, T]`; three completions have a tool's answer in the middle."""
    mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
    mask[[1, 3, 6], 2] = False
    return mask


def draw() -> Batch:
    """Draw log-probabilities that are up to 1.5 nats apart, so that every bound is passed."""
    generator = torch.Generator().manual_seed(0)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)

    logprobs = -1.0 - noise(0.5).abs()
    old = logprobs - noise(0.5).clamp(-1.5, 1.5)
    return Batch(
        rewards=torch.tensor(SCORES, dtype=torch.float64),
        groups=torch.arange(GROUPS).repeat_interleave(GROUP),
        mask=trained_tokens(),
        logprobs=logprobs,
        old=old,
        rollout=old - noise(0.4),
        reference=logprobs - noise(0.5),
    )


class _Names(type):
    """Whatever is asked of `Absent` is `Absent`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Absent(metaclass=_Names):
    """A name out of a library that is not here: for annotations, bases and decorators."""

    def __new__(cls, *given: Any, **options: Any) -> Any:
        return given[0] if len(given) == 1 and callable(given[0]) else super().__new__(cls)

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __call__(self, decorated: Any) -> Any:
        return decorated

    def __bool__(self) -> bool:
        return False


class _Stand(ModuleType):
    """A module in which every name is `Absent`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent


class _Finder:
    """Finds the libraries that only the machinery around the formulas needs."""

    roots = ("ray", "deepspeed", "tensordict", "omegaconf", "loguru", "jaxtyping", "skyrl_gym")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        known = name.split(".")[0] in self.roots
        return ModuleSpec(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stand(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@functools.cache
def folder(name: str) -> Path:
    """Find an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed: run `make test-peers`"
    return Path(next(iter(spec.submodule_search_locations or [])))


def load(module: str, *around: str) -> Any:
    """Import a module of a peer without the `__init__` of its packages and of those around it."""
    root, *rest = module.split(".")
    within = [".".join([root, *rest[:depth]]) for depth in range(len(rest))]
    for name in [*within, *(f"{root}.{name}" for name in around)]:
        if name not in sys.modules:
            empty = _Stand(name)
            empty.__path__ = [str(folder(root).joinpath(*name.split(".")[1:]))]
            sys.modules[name] = empty
            above, _, last = name.rpartition(".")
            if above:
                setattr(sys.modules[above], last, empty)
    known = set(sys.modules)
    sys.meta_path.append(_Finder())  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    finally:
        sys.meta_path.pop()
        for name in set(sys.modules) - known:
            if name.split(".")[0] in _Finder.roots:
                del sys.modules[name]


class Settings(dict[str, Any]):
    """Settings that are read by attribute or by `get`; a name with dots leads to inner ones."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        inner = {
            key.removeprefix(f"{name}."): value
            for key, value in self.items()
            if key.startswith(f"{name}.")
        }
        if not inner:
            raise AttributeError(name)
        return Settings(inner)


def booked(batch: Batch) -> Tensor:
    """Book each score at the last trained token `[B, T]`."""
    rewards = torch.zeros_like(batch.logprobs)
    last = WIDTH - 1 - batch.mask.flip(1).long().argmax(dim=1)
    rewards[torch.arange(ROWS), last] = batch.rewards
    return rewards


def verl(batch: Batch, *, kl: bool) -> Outcome:
    """verl with `adv_estimator=grpo`, and as its settings have it; or with its KL loss as well."""
    import yaml

    algos = load(
        "verl.trainer.ppo.core_algos", "utils", "trainer.config", "workers", "workers.config"
    )
    path = folder("verl") / "trainer" / "config" / "_generated_ppo_trainer.yaml"
    shipped = yaml.safe_load(path.read_text())
    actor = Settings(shipped["actor_rollout_ref"]["actor"], global_batch_info={})
    assert not any((actor.use_kl_loss, actor.entropy_coeff))
    assert not shipped["algorithm"]["use_kl_in_reward"]
    assert shipped["algorithm"]["rollout_correction"]["rollout_is"] is None
    mask, how = batch.mask.double(), actor.loss_agg_mode
    weights, _ = algos.compute_grpo_outcome_advantage(booked(batch), mask, batch.groups.numpy())
    logprobs = batch.logprobs.clone().requires_grad_()
    loss, _ = algos.compute_policy_loss_vanilla(batch.old, logprobs, weights, mask, how, actor)
    if kl:
        k = algos.kl_penalty(logprobs, batch.reference, actor.kl_loss_type)
        loss = loss + actor.kl_loss_coef * algos.agg_loss(k, mask, how)
    return Outcome(weights, loss.item(), torch.autograd.grad(loss, logprobs)[0])


@functools.cache
def _openrlhf_defaults() -> Settings:
    """Read the defaults off the command line's parser, which only `__main__` makes."""
    tree = ast.parse((folder("openrlhf") / "cli" / "train_ppo_ray.py").read_text())
    found = Settings()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            words = {word.arg: word.value for word in call.keywords}
            with contextlib.suppress(KeyError, ValueError):  # none, or one that is computed
                name = ast.literal_eval(call.args[0]).removeprefix("--")
                found[name] = ast.literal_eval(words["default"])
    return found


def openrlhf(batch: Batch) -> Outcome:
    """OpenRLHF with `group_norm`, in two micro-batches of one optimiser step."""
    around = ("models", "trainer", "trainer.ray", "utils", "utils.deepspeed")
    maker = load("openrlhf.trainer.ppo_utils.experience_maker", *around)
    loss_file = load("openrlhf.models.loss")
    counts = load("openrlhf.utils.loss_utils")
    control = load("openrlhf.trainer.ppo_utils.kl_controller")
    estimate = load("openrlhf.models.utils").compute_approx_kl
    args = Settings(_openrlhf_defaults())
    args |= {"algo.advantage.estimator": "group_norm", "rollout.n_samples_per_prompt": GROUP}
    assert not any((args.algo.kl.use_loss, args.actor.entropy_coef))
    parts = [
        maker.Experience(
            index=list(rows),
            rewards=batch.rewards[rows],
            action_mask=batch.mask[rows],
            kl=estimate(
                batch.old[rows], batch.reference[rows], kl_estimator=args.algo.kl.estimator
            ),
        )
        for rows in (range(ROWS // 2), range(ROWS // 2, ROWS))
    ]
    maker.RemoteExperienceMaker(
        *[None] * 4,
        kl_controller=control.FixedKLController(args.algo.kl.init_coef),
        strategy=Settings(args=args),
        tokenizer=None,
    ).compute_advantages_and_returns(parts)
    surrogate = loss_file.PolicyLoss(
        *(args.actor.eps_clip, args.actor.eps_clip, args.actor.dual_clip),
        token_level_loss=args.actor.loss_agg_mode == "token-mean",
        policy_loss_type=args.actor.policy_loss_type,
        is_correction_level=args.algo.advantage.is_correction_level,
    )
    logprobs, loss = batch.logprobs.clone().requires_grad_(), torch.zeros(())
    for part, info in counts.iter_grad_accum_global_norm(parts, None, 2, lambda p: p.action_mask):
        rows = part.index
        of_part, *_ = surrogate(
            *(logprobs[rows], batch.old[rows], part.advantages, part.action_mask),
            rollout_log_probs=batch.rollout[rows],
            **info,
        )
        loss = loss + of_part / 2  # as DeepSpeed accumulates
    weights = torch.cat([part.advantages for part in parts])
    return Outcome(weights, loss.item(), torch.autograd.grad(loss, logprobs)[0])


def skyrl(batch: Batch) -> Outcome:
    """SkyRL as its `AlgorithmConfig` has it."""
    around = ("train", "backends", "backends.skyrl_train")
    algos = load("skyrl.backends.skyrl_train.utils.ppo_utils", *around)
    config = algos.AlgorithmConfig()
    assert config.use_kl_loss
    assert not any((config.use_entropy_loss, config.advantage_batch_normalize))
    mask = batch.mask.double()
    weights, _ = algos.compute_advantages_and_returns(
        *(booked(batch), mask, batch.groups.numpy(), config.advantage_estimator, config),
        grpo_norm_by_std=config.grpo_norm_by_std,
    )
    scaled = algos.apply_loss_reduction_to_advantages_minibatch(
        weights, mask, config.loss_reduction, ROWS, WIDTH
    )
    surrogate = algos.PolicyLossRegistry.get(config.policy_loss_type)
    logprobs = batch.logprobs.clone().requires_grad_()
    loss, _ = surrogate(logprobs, batch.old, scaled, config, mask, batch.rollout)
    # Its worker's own line, which a GPU runs: the mean over completions of means over tokens.
    k = algos.compute_approx_kl(logprobs, batch.reference, mask, config.kl_estimator_type)
    loss = loss + config.kl_loss_coef * algos.masked_mean(k, mask, dim=-1).mean()
    return Outcome(weights, loss.item(), torch.autograd.grad(loss, logprobs)[0])
