"""From a batch of trajectories to new weights: one algorithm row, AdamW, exact accumulation.

Denominators are counted over the whole optimiser step before it begins, so that the result does not
depend on how the step is cut into micro-batches. Rows whose advantage is 0 everywhere have no
gradient and are not run through the model, unless a KL term in the loss gives them one.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..agents.scoring import continuation_logits, token_logprobs
from ..agents.types import Trajectory
from ..verifiers import TrainingStopped
from .algorithms import Algorithm
from .batch import Batch, collate
from .config import OptimizerConfig
from .objective import advantages, denominators, policy_loss


class Learner:
    """Holds the model that is trained, its reference and its optimiser."""

    def __init__(
        self,
        model: Any,
        row: Algorithm,
        config: OptimizerConfig,
        *,
        vocabulary: int,
        temperature: float,
        max_tokens: int,
        reference: Any = None,
    ) -> None:
        """Make the optimiser.

        Args:
            model: The causal language model, in evaluation mode (no dropout).
            row: The algorithm.
            config: Optimiser settings.
            vocabulary: The tokenizer's size, as the sampler's.
            temperature: What the episodes are sampled with.
            max_tokens: Longest completion, for constant denominators.
            reference: The frozen model of a KL term; needed if the row needs one.
        """
        self.model, self.row, self.config = model, row, config
        self.vocabulary, self.temperature, self.max_tokens = vocabulary, temperature, max_tokens
        self.reference = reference
        self.baseline: float | None = None
        """State of a moving-average baseline."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )

    def update(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """Learn from the episodes of one training step.

        Args:
            trajectories: The episodes.
            step: Number of the training step, from 0, for the learning rate's warm-up.

        Returns:
            Metrics of the update.

        Raises:
            TrainingStopped: The gradient is not finite; the weights are as before the step.
        """
        batch = collate(trajectories)
        lr = self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        needs_old = self.config.updates_per_step > 1
        reference = self._all(self.reference, batch) if self.row.needs_reference else None
        old = self._all(self.model, batch) if needs_old else None
        found = advantages(
            self.row,
            rewards=batch.rewards,
            scored=batch.scored,
            groups=batch.groups,
            mask=batch.mask,
            logprobs=batch.logprobs if old is None else old,
            reference=reference,
            baseline=self.baseline,
        )
        parts = [
            self._optimise(batch, rows, found.values, old, reference)
            for rows in _by_group(batch.groups, self.config.updates_per_step)
        ]
        self.baseline = found.baseline
        metrics = _merged(parts)
        trained = batch.mask & batch.scored[:, None]
        metrics["entropy"] = _mean(-batch.logprobs, trained)
        metrics["advantage_std"] = (
            float(found.values[trained].std(correction=0)) if trained.any() else 0.0
        )
        metrics["dead_groups"] = found.dead_groups
        metrics["lr"] = lr
        if found.kl is not None:
            metrics["kl"] = found.kl
        if found.baseline is not None:
            metrics["baseline"] = found.baseline
        return metrics

    def _optimise(
        self,
        batch: Batch,
        rows: Sequence[int],
        values: Tensor,
        old: Tensor | None,
        reference: Tensor | None,
    ) -> dict[str, float]:
        """Take one optimiser step on some rows."""
        index = torch.tensor(rows)
        mask = batch.mask & batch.scored[:, None]
        over = denominators(mask[index], batch.scored[index], self.max_tokens)
        kl_in_loss = self.row.kl == "loss" and self.row.beta > 0
        gives = mask.any(1) if kl_in_loss else (values != 0).any(1)
        live = [row for row in rows if gives[row]]
        sums: dict[str, float] = {"updates": 1.0, "skipped": float(not live)}
        self.optimizer.zero_grad()
        for part in batch.micro_batches(live, self.config.micro_batch_tokens):
            rectangle = batch.rectangle(part, self.model.device)
            logits = continuation_logits(self.model, rectangle, self.vocabulary)
            logprobs = token_logprobs(logits, rectangle.targets, self.temperature)
            place, width = torch.tensor(part), rectangle.width

            def cut(tensor: Tensor, place: Tensor = place, width: int = width) -> Tensor:
                return tensor[place, :width].to(self.model.device)

            inside = cut(mask)
            loss, found = policy_loss(
                self.row,
                logprobs=logprobs,
                advantages=cut(values),
                mask=inside,
                denominators=over,
                old=None if old is None else cut(old),
                reference=None if reference is None else cut(reference),
            )
            loss.backward()
            found["loss"] = loss.detach()
            found["gap"] = ((logprobs.detach() - cut(batch.logprobs)).abs() * inside).sum()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        if live:
            sums["grad_norm"] = self._step()
        return sums

    def _step(self) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise TrainingStopped(
                f"the gradient's norm is {norm}: no step was taken; lower lr, or use "
                "dtype=float32 if the weights are in half precision"
            )
        self.optimizer.step()
        return norm

    def _all(self, model: Any, batch: Batch) -> Tensor:
        """Return a model's log-probabilities of every row `[B, T]`, without gradient."""
        out = torch.zeros_like(batch.logprobs)
        rows = range(len(batch.prompts))
        with torch.inference_mode():
            for part in batch.micro_batches(rows, self.config.micro_batch_tokens):
                rectangle = batch.rectangle(part, model.device)
                logits = continuation_logits(model, rectangle, self.vocabulary)
                values = token_logprobs(logits, rectangle.targets, self.temperature)
                out[torch.tensor(part), : rectangle.width] = values.to(out)
        return torch.where(batch.mask, out, 0.0)


def _by_group(groups: Tensor, parts: int) -> list[list[int]]:
    """Divide rows into `parts` of whole groups, in the order of the groups."""
    if parts == 1:
        return [list(range(len(groups)))]
    names = groups.unique()
    wanted = names.tensor_split(parts)
    return [torch.isin(groups, some).nonzero()[:, 0].tolist() for some in wanted]


def _mean(values: Tensor, mask: Tensor) -> float:
    return float(values[mask].mean()) if bool(mask.any()) else 0.0


def _merged(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Turn the sums of the updates of one step into its metrics."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    updates = max(1.0, total["updates"] - total["skipped"])
    metrics = {
        "loss": total.get("loss", 0.0) / updates,
        "grad_norm": total.get("grad_norm", 0.0) / updates,
        "mismatch": total.get("gap", 0.0) / max(1.0, total.get("tokens", 0.0)),
    }
    terms, tokens = total.get("terms", 0.0), total.get("tokens", 0.0)
    if terms:
        metrics["ratio"] = total["ratio"] / terms
        metrics["clipped"] = total["clipped"] / terms
    if tokens:
        metrics["approx_kl"] = total["approx_kl"] / tokens
        if "kl" in total:
            metrics["kl"] = total["kl"] / tokens
    return metrics
