"""What the loss costs besides the model: our stages against TRL's and verl's own loss functions.

    python benchmarks/loss_stages.py --rounds 60 --out loss_stages.json

Everyone gets the same log-probabilities `[256, 1024]`, ragged masks and rewards, and returns the
gradient of the clipped token-mean loss of GRPO without a reference. Ours is measured with the
advantages, checks and denominators in it; TRL's and verl's functions get ready advantages. Theirs
always compute their diagnostics; ours is measured with and without. Systems take turns within each
round, forwards and backwards, and ratios are of the same round. Before the clock starts all losses
and gradients are compared.

TRL must be installed. verl is taken from its wheel without its dependencies (`pip install --no-deps
verl==0.9.1`): its loss file needs none of them, so the modules around it are left out.
"""

import argparse
import importlib.util
import statistics
import sys
import time
import types
import warnings
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from report import circumstances, described, save, spread, table
from torch import Tensor

from rlvr.rl_core.algorithms import algorithm
from rlvr.rl_core.objective import advantages, denominators, policy_loss

ROWS, TOKENS, GROUP = 256, 1024, 8
CLIP, DUAL = 0.2, 3.0
Loss = Callable[[Tensor], Tensor]
"""From log-probabilities, with gradient, to the loss."""


class Batch:
    """The same numbers for every system."""

    def __init__(self, device: torch.device) -> None:
        """Draw them: lengths from an eighth of the width to all of it, binary rewards."""
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(TOKENS // 8, TOKENS + 1, (ROWS, 1), generator=generator)
        self.mask = (torch.arange(TOKENS) < lengths).to(device)
        logprobs = -torch.rand(ROWS, TOKENS, generator=generator) * 2
        self.logprobs = logprobs.to(device)
        self.old = (logprobs + 0.1 * torch.randn(ROWS, TOKENS, generator=generator)).to(device)
        self.rewards = torch.randint(2, (ROWS,), generator=generator).float().to(device)
        self.scored = torch.ones(ROWS, dtype=torch.bool, device=device)
        self.groups = torch.arange(ROWS // GROUP).repeat_interleave(GROUP).to(device)
        grouped = self.rewards.reshape(-1, GROUP)
        centred = grouped - grouped.mean(dim=1, keepdim=True)
        self.advantages = (centred / (grouped.std(dim=1, keepdim=True) + 1e-4)).flatten()


def ours(batch: Batch, *, dual: float, diagnostics: bool, whole: bool) -> Loss:
    """Stages 1 to 10, or 5 to 10 with ready advantages."""
    row = algorithm("grpo", kl="none", beta=0, aggregate="token", dual_clip=dual)
    ready = batch.advantages[:, None] * batch.mask
    counts = denominators(batch.mask, batch.scored, TOKENS)

    def loss(logprobs: Tensor) -> Tensor:
        values, mask, over = ready, batch.mask, counts
        if whole:
            found = advantages(
                row,
                rewards=batch.rewards,
                scored=batch.scored,
                groups=batch.groups,
                mask=batch.mask,
            )
            values, mask = found.values, found.mask
            over = denominators(mask, found.rows, TOKENS)
        return policy_loss(
            row,
            logprobs=logprobs,
            old=batch.old,
            advantages=values,
            mask=mask,
            denominators=over,
            diagnostics=diagnostics,
        )[0]

    return loss


def trl(batch: Batch) -> Loss:
    """TRL's own loss method on a trainer that has nothing but what it reads."""
    from trl import GRPOTrainer

    entropies = torch.ones_like(batch.logprobs)
    trainer: Any = types.SimpleNamespace(
        accelerator=types.SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True
        ),
        args=types.SimpleNamespace(
            use_bias_correction_kl=False, delta=None, steps_per_generation=1
        ),
        model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        loss_type="dapo",
        importance_sampling_level="token",
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        beta=0.0,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        max_completion_length=TOKENS,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.int64, device=batch.mask.device)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": batch.mask.int(),
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old,
        "num_items_in_batch": batch.mask.sum(),
    }

    def loss(logprobs: Tensor) -> Tensor:
        trainer._get_per_token_logps_and_entropies = lambda *a, **k: (logprobs, entropies, None)
        return GRPOTrainer._compute_loss(trainer, None, inputs)

    return loss


def verl(batch: Batch, folder: Path) -> Loss:
    """verl's own loss function, from its file."""
    algos = _verl_file(folder)
    config = types.SimpleNamespace(
        clip_ratio=CLIP,
        clip_ratio_low=CLIP,
        clip_ratio_high=CLIP,
        get=lambda name, default: default,
        global_batch_info={},
    )
    spread_out, mask = batch.advantages[:, None] * batch.mask, batch.mask.int()

    def loss(logprobs: Tensor) -> Tensor:
        return algos.compute_policy_loss_vanilla(
            batch.old, logprobs, spread_out, mask, "token-mean", config
        )[0]

    return loss


def _verl_file(folder: Path) -> Any:
    """Load `core_algos` with empty modules in place of the packages around it."""

    def empty(name: str, **content: Any) -> None:
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(content)
        sys.modules[name] = module

    def load(name: str, path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise SystemExit(f"cannot load {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    for name in ("omegaconf", "tensordict", "tensordict.tensorclass"):
        if name not in sys.modules:
            empty(name, DictConfig=dict, TensorDict=dict, NonTensorData=object)
    for name in ("verl", "verl.trainer", "verl.workers", "verl.trainer.ppo"):
        empty(name)
    empty("verl.trainer.config", AlgoConfig=type("AlgoConfig", (), {}))
    empty("verl.workers.config", ActorConfig=type("ActorConfig", (), {}))
    empty("verl.utils", as_torch_index=None, group_mean_std=None)
    empty("verl.utils.import_utils", deprecated=lambda _: lambda function: function)
    empty("verl.utils.device", get_device_name=lambda: "cpu", get_torch_device=lambda: torch.cpu)
    functional = load("verl.utils.torch_functional", folder / "utils" / "torch_functional.py")
    vars(sys.modules["verl.utils"])["torch_functional"] = functional
    return load("verl.trainer.ppo.core_algos", folder / "trainer" / "ppo" / "core_algos.py")


def _verl_folder() -> Path | None:
    spec = importlib.util.find_spec("verl")
    return Path(spec.origin).parent if spec and spec.origin else None


def seconds(loss: Loss, batch: Batch) -> float:
    """Time one forward and backward pass of the loss."""
    logprobs = batch.logprobs.clone().requires_grad_()
    _wait(batch)
    began = time.perf_counter()
    loss(logprobs).backward()
    _wait(batch)
    return time.perf_counter() - began


def _wait(batch: Batch) -> None:
    if batch.mask.is_cuda:
        torch.cuda.synchronize()


def outcome(loss: Loss, batch: Batch) -> tuple[float, Tensor]:
    """Return a loss and its gradient."""
    logprobs = batch.logprobs.clone().requires_grad_()
    value = loss(logprobs)
    return value.item(), torch.autograd.grad(value, logprobs)[0]


def check(systems: dict[str, Loss], batch: Batch) -> None:
    """Stop if two systems do not compute the same."""
    results = {name: outcome(loss, batch) for name, loss in systems.items()}
    (first, (value, gradient)), *rest = results.items()
    for name, (other, slope) in rest:
        assert abs(value - other) < 1e-6, f"{first}: {value}, {name}: {other}"
        torch.testing.assert_close(slope, gradient, atol=1e-9, rtol=1e-4)


def measure(systems: dict[str, Loss], batch: Batch, rounds: int) -> dict[str, list[float]]:
    """Let the systems take turns."""
    found: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 5):
        order = list(systems.items())
        for name, loss in order if number % 2 else reversed(order):
            took = seconds(loss, batch)
            if number >= 5:
                found[name].append(took)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    batch = Batch(torch.device(given.device))
    peers: dict[str, Loss] = {"TRL, loss": trl(batch)}
    folder = _verl_folder()
    mine: dict[str, Loss] = {}
    for whole in (True, False):
        what = "all stages" if whole else "loss"
        mine[f"ours, {what}"] = ours(batch, dual=0.0, diagnostics=False, whole=whole)
        mine[f"ours, {what}, diagnostics"] = ours(batch, dual=0.0, diagnostics=True, whole=whole)
    check(peers | mine, batch)
    if folder:
        peers["verl, loss (dual clip)"] = verl(batch, folder)
        dual = ours(batch, dual=DUAL, diagnostics=True, whole=True)
        mine["ours, all stages, diagnostics, dual clip"] = dual
        check({"verl": peers["verl, loss (dual clip)"], "ours": dual}, batch)
    times = measure(peers | mine, batch, given.rounds)
    best = min(peers, key=lambda name: statistics.median(times[name]))
    rows = []
    for name, taken in times.items():
        ratios = [a / b for a, b in zip(taken, times[best], strict=True)]
        rows.append([name, spread([1e3 * t for t in taken], 2, " ms"), spread(ratios, 3)])
    facts = circumstances(given.threads) | {"device": given.device, "verl": _verl_version(folder)}
    print(described(facts) + f" verl {facts['verl']}; {given.device}; [{ROWS}, {TOKENS}].\n")
    print(table(["system", "forward and backward", f"ratio to {best}"], rows))
    if given.out:
        save(given.out, {"circumstances": facts, "seconds": times, "fastest_peer": best})


def _verl_version(folder: Path | None) -> str:
    if folder is None:
        return "not installed"
    try:
        return version("verl")
    except PackageNotFoundError:
        return (folder / "version" / "version").read_text().strip()


if __name__ == "__main__":
    main()
