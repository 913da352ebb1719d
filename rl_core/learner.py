"""From a batch of trajectories to new weights: one algorithm row, exact accumulation.

Denominators are counted over the whole optimiser step before it begins, so that the result does not
depend on how the step is cut into micro-batches. Rows whose advantage is 0 everywhere have no
gradient and are not run through the model, unless another term of the loss gives them one.

Three policies may differ: the one that sampled (its log-probabilities came with the tokens), the
one at the start of the step (`old`, and `proximal`: the learner's own numbers, computed once), and
the one that is being trained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..agents.types import Trajectory
from ..verifiers import UsageError
from . import functional as F
from . import monitor, preferences
from .algorithm_config import CriticConfig
from .algorithms import Algorithm
from .batch import Batch, collate
from .config import OptimizerConfig
from .critic import Critic
from .lora import Adapters
from .natural_step import NaturalStep, Region
from .part_loss import part_loss
from .passes import Pass, run
from .preparation import prepare
from .weight_step import WeightStep
from .work import Work, minibatches

NATURAL_CRITIC_EPOCHS = 10
"""Passes of the critic beside a natural step, which uses the batch for one step of the policy."""


class Learner:
    """Holds the model that is trained, its reference, its critic and its optimiser."""

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
        critic: CriticConfig | None = None,
        kl_target: float = 0.0,
        kl_horizon: float = 10000.0,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        """Make the optimisers.

        Args:
            model: The causal language model, in evaluation mode (no dropout).
            row: The algorithm.
            config: Optimiser settings.
            vocabulary: The tokenizer's size, as the sampler's.
            temperature: What the episodes are sampled with.
            max_tokens: Longest completion, for constant denominators.
            reference: The frozen model of a KL term, or the adapters without which `model` is it;
                needed if the row needs one.
            critic: How values are learned; read if the row needs values.
            kl_target: KL per token that beta is adapted to; 0 leaves beta alone.
            kl_horizon: Completions over which beta may grow or shrink by a fifth.
            decode: Token ids to text; needed where verdicts judge spans of characters.

        Raises:
            UsageError: The row needs a reference, or nothing of the model is to be trained.
        """
        if row.needs_reference and reference is None:
            raise UsageError(
                f"{row.name} keeps the policy near a reference (beta={row.beta:g}), got None; pass "
                "reference=, a frozen copy of the model, or set beta=0"
            )
        self.model, self.row, self.config = model, row, config
        self.vocabulary, self.temperature, self.max_tokens = vocabulary, temperature, max_tokens
        self.reference, self.decode = reference, decode
        self.kl_target, self.kl_horizon = kl_target, kl_horizon
        self.baseline: float | None = None
        """State of a moving-average baseline."""
        self.beta: float | None = None
        """The adapted price of the KL; none as long as it is the row's."""
        self.updates = config.updates_per_step or row.updates
        """Optimiser steps per pass over a batch."""
        self.last: Work | None = None
        """The batch of the last step."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        """What is trained: all weights, or those of the adapters."""
        if not self.parameters:
            raise UsageError(
                f"no weight of the {type(model).__name__} requires a gradient, so that nothing "
                "would be trained; call model.requires_grad_(True), or put adapters on it"
            )
        self.weights = WeightStep(
            self.parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            max_norm=config.max_grad_norm,
            masters=config.master_weights,
        )
        self.optimizer = self.weights.optimizer
        critic = critic or CriticConfig()
        self.critic_config = critic
        self.critic: Critic | None = None
        if row.needs_values and critic.critic != "rollouts":
            self.critic = Critic(critic, model, value_clip=row.value_clip)

    def update(
        self,
        trajectories: Sequence[Trajectory],
        step: int,
        *,
        version: int | None = None,
        greedy: Sequence[float] | None = None,
        values: Sequence[Sequence[float]] | None = None,
    ) -> dict[str, float]:
        """Learn from the episodes of one training step.

        Args:
            trajectories: The episodes.
            step: Number of the training step, from 0, for the learning rate's warm-up.
            version: Weight updates of the sampler so far, for the staleness of each episode; none:
                all are fresh.
            greedy: Score of the greedy completion of each episode's prompt, nan where unscored;
                baseline `greedy`.
            values: V(s_t) before each token from the first sampled one on, nan where unknown; in
                place of a critic.

        Returns:
            Metrics of the update.

        Raises:
            UsageError: The row reads something that was not given.
            TrainingStopped: The gradient is not finite; the weights are as before that update.
        """
        batch = collate(trajectories)
        lr = self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        self.weights.set_lr(lr)
        if self.row.on_pairs:
            return preferences.update(self, batch) | {"lr": lr}
        work = prepare(self, batch, trajectories, version=version, greedy=greedy, values=values)
        self.last = work
        warming = self.critic is not None and step < self.critic_config.critic_warmup_steps
        parts: list[dict[str, float]] = []
        if not warming and self.row.optimizer == "natural":
            parts = [self._natural(work)]
        elif not warming:
            parts = [
                self._optimise(work, rows)
                for epoch in range(self.row.epochs)
                for rows in minibatches(batch.groups, self.updates, epoch, step)
            ]
        critic_loss = self._fit_critic(work, step, warming)
        if work.found.baseline is not None:
            self.baseline = work.found.baseline
        metrics = monitor.merged(parts) | monitor.of_batch(work) | critic_loss | {"lr": lr}
        self._adapt(work, metrics)
        return metrics

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights."""
        critic = None if self.critic is None else self.critic.state()
        return {
            "baseline": self.baseline,
            "beta": self.beta,
            "critic": critic,
            "weights": self.weights.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.baseline, self.beta = state["baseline"], state["beta"]
        self.weights.load(state["weights"])
        if self.critic is not None:
            self.critic.load(state["critic"])

    @property
    def joint(self) -> bool:
        """Whether the critic is trained by the policy's own updates, through the shared trunk."""
        shared = self.critic is not None and self.critic.shared
        return shared and self.row.value_coef > 0 and self.row.optimizer != "natural"

    def _optimise(self, work: Work, rows: Sequence[int]) -> dict[str, float]:
        """Take one optimiser step on some rows."""
        over, per_prompt = work.count(rows, self.max_tokens), work.per_prompt(rows)
        found, row = work.found, work.row
        in_loss = row.kl == "loss" and row.beta > 0
        everywhere = in_loss or row.entropy_bonus > 0 or self.joint
        gives = found.mask.any(1) if everywhere else (found.values != 0).any(1)
        live = [one for one in rows if gives[one]]
        sums: dict[str, float] = {"updates": 1.0, "skipped": float(not live)}
        self.weights.clear()
        if self.critic is not None and self.joint:
            self.critic.weights.clear()
        for part in work.batch.micro_batches(live, self.config.micro_batch_tokens):
            found_of = part_loss(self, work, part, over, per_prompt)
            found_of.loss.backward()
            self.weights.gather()
            _add(sums, found_of.sums)
        if live:
            sums["grad_norm"] = self.step()
            if self.critic is not None and self.joint:
                self.critic.step()
        return sums

    def step(self) -> float:
        """Take the optimiser's step with the gradients that are there; returns their norm.

        Raises:
            TrainingStopped: They are not finite; the weights are as before.
        """
        advice = "lower lr, or use dtype=float32 if the weights are in half precision"
        return self.weights.take("the gradient's", advice)

    def _natural(self, work: Work) -> dict[str, float]:
        """Take one natural step on the whole batch."""
        rows = [i for i, some in enumerate(work.found.mask.any(1).tolist()) if some]
        over, per_prompt = work.count(rows, self.max_tokens), work.per_prompt(rows)
        sums: dict[str, float] = {"updates": 1.0, "skipped": float(not rows)}
        first: list[dict[str, Tensor]] = []
        parts = work.batch.micro_batches(rows, self.config.micro_batch_tokens)

        def evaluate(part: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
            found = part_loss(self, work, part, over, per_prompt)
            if len(first) < len(parts):
                first.append(found.sums)
            return found.loss, found.ran.scaled, found.mask

        region = Region(parts=parts, evaluate=evaluate, tokens=max(1.0, over.tokens))
        sums |= NaturalStep(self.parameters, region, work.row).take()
        for found in first:
            _add(sums, found)
        return sums

    def _fit_critic(self, work: Work, step: int, warming: bool) -> dict[str, float]:
        """Let a critic of its own take its steps; returns the metrics of any critic."""
        found, critic = work.found, self.critic
        if work.values is None:
            return {}
        explained = F.explained_variance(work.values, found.returns, found.mask)
        metrics = {"explained_variance": explained, "value": monitor.mean(work.values, found.mask)}
        if critic is None or (self.joint and not warming):
            return metrics
        natural = self.row.optimizer == "natural"
        usual = NATURAL_CRITIC_EPOCHS if natural else self.row.epochs
        losses = [
            critic.fit(
                work.batch,
                rows,
                returns=found.returns,
                old=work.values,
                mask=found.mask,
                tokens=self.config.micro_batch_tokens,
            )
            for epoch in range(self.critic_config.critic_epochs or usual)
            for rows in minibatches(work.batch.groups, self.updates, epoch, step)
        ]
        return metrics | {"value_loss": sum(losses) / max(1, len(losses))}

    def _adapt(self, work: Work, metrics: dict[str, float]) -> None:
        """Move beta towards the wanted divergence."""
        if not self.kl_target or "kl" not in metrics:
            return
        self.beta = F.adapt_beta(
            work.row.beta,
            metrics["kl"],
            target=self.kl_target,
            horizon=self.kl_horizon,
            samples=len(work.batch.prompts),
        )
        metrics["beta"] = work.row.beta

    def logprobs(self, batch: Batch, model: Any = None) -> Tensor:
        """Return a model's log-probabilities of every row `[B, T]`, without gradient.

        Args:
            batch: The episodes.
            model: Another model than the one that is trained, or adapters to be switched off.
        """
        return self._everywhere(model or self.model, batch, lambda ran: ran.logprobs)

    def entropies(self, batch: Batch) -> Tensor:
        """Return the policy's entropy at every token `[B, T]`, in nats."""
        return self._everywhere(self.model, batch, Pass.entropy)

    @staticmethod
    @contextmanager
    def opened(model: Any) -> Iterator[Any]:
        """Give a model to compute with; adapters given in its place are switched off within."""
        if isinstance(model, Adapters):
            with model.off() as before:
                yield before
        else:
            yield model

    def _everywhere(self, model: Any, batch: Batch, read: Callable[[Pass], Tensor]) -> Tensor:
        out = torch.zeros_like(batch.logprobs)
        rows = range(len(batch.prompts))
        with torch.inference_mode(), self.opened(model) as opened:
            for part in batch.micro_batches(rows, self.config.micro_batch_tokens):
                rectangle = batch.rectangle(part, opened.device)
                found = read(run(opened, rectangle, self.vocabulary, self.temperature))
                out[torch.tensor(part), : rectangle.width] = found.to(out)
        return torch.where(batch.mask, out, 0.0)


def _add(sums: dict[str, float], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + float(value)
