"""The critic: a value before every token, by a head on the policy's trunk or by a model of its own.

V(s_t) is read from the last layer's state that predicts token t, so that it has seen what came
before the token and nothing of it. The head begins at 0: every value is 0 and the first advantages
are plain returns. A head is trained by the loss of the policy's own updates, whose gradient goes on
into the trunk with the weight `value_coef`; without that weight, in the warm-up, beside a natural
step, and for a model of its own, the critic takes steps of its own.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..verifiers import TrainingStopped
from . import functional as F
from .batch import Batch
from .config import CriticConfig
from .functional.values import value_loss
from .passes import states
from .weight_step import WeightStep


class Critic:
    """A value function with an optimiser of its own."""

    def __init__(self, config: CriticConfig, model: Any, *, value_clip: float) -> None:
        """Make the head, and the trunk if it is not the policy's.

        Args:
            config: Which kind, and how it is trained.
            model: The policy. A model of its own begins as its copy: of all weights that the policy
                trains; those that it does not are shared.
            value_clip: How far a value may move in one batch; 0 is off.
        """
        self.config, self.value_clip = config, value_clip
        self.shared = config.critic == "head"
        self.trunk = model if self.shared else _copy(model)
        self.head = _head(model)
        own = [] if self.shared else [p for p in self.trunk.parameters() if p.requires_grad]
        self.weights = WeightStep(
            [*self.head.parameters(), *own],
            lr=config.critic_lr,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            max_norm=config.critic_max_grad_norm,
            masters=True,
        )

    def from_states(self, hidden: Tensor) -> Tensor:
        """Return values `[B, T]` of the last layer's states `[B, T, H]`."""
        return self.head(hidden.to(self.head.weight.dtype))[..., 0]

    def values(self, batch: Batch, tokens: int) -> Tensor:
        """Return V(s_t) at every sampled token `[B, T]`, without gradient; 0 elsewhere.

        Args:
            batch: The episodes.
            tokens: Size of a micro-batch.
        """
        out = torch.zeros(batch.mask.shape, dtype=self.head.weight.dtype)
        with torch.inference_mode():
            for part in batch.micro_batches(range(len(batch.prompts)), tokens):
                rectangle = batch.rectangle(part, self.trunk.device)
                found = self.from_states(states(self.trunk, rectangle))
                out[torch.tensor(part), : rectangle.width] = found.to(out)
        return torch.where(batch.mask, out, 0.0)

    def loss(
        self, values: Tensor, returns: Tensor, old: Tensor, mask: Tensor, *, tokens: float
    ) -> Tensor:
        """Return a micro-batch's part of the mean loss per token, with gradient.

        Args:
            values: V, with gradient `[B, T]`.
            returns: What is predicted `[B, T]`.
            old: V before the update `[B, T]`.
            mask: Tokens that count `[B, T]`.
            tokens: Tokens that count in the whole optimiser step.

        Raises:
            TrainingStopped: Values or returns are not finite.
        """
        try:
            terms = value_loss(values, returns, mask, old=old, clip=self.value_clip)
            return F.token_mean(terms, mask, tokens=tokens)
        except ValueError as error:
            raise TrainingStopped(f"the critic's loss: {error}; or lower critic_lr") from error

    def fit(
        self,
        batch: Batch,
        rows: Sequence[int],
        *,
        returns: Tensor,
        old: Tensor,
        mask: Tensor,
        tokens: int,
    ) -> float:
        """Take one step on some rows by the critic alone; a shared trunk stays as it is.

        Args:
            batch: The episodes.
            rows: Rows of this step.
            returns: What is predicted `[B, T]`.
            old: Values before the update `[B, T]`.
            mask: Tokens that count `[B, T]`.
            tokens: Size of a micro-batch.

        Returns:
            The mean loss per token; 0 if nothing counts, and then no step is taken.

        Raises:
            TrainingStopped: The gradient is not finite.
        """
        live = [row for row in rows if mask[row].any()]
        count, total = float(mask[torch.tensor(rows, dtype=torch.int64)].sum()), 0.0
        if not live:
            return 0.0
        self.weights.clear()
        device = self.trunk.device
        for part in batch.micro_batches(live, tokens):
            rectangle = batch.rectangle(part, device)
            place, width = torch.tensor(part), rectangle.width
            with torch.set_grad_enabled(not self.shared):
                hidden = states(self.trunk, rectangle)
            inside = mask[place, :width].to(device)
            loss = self.loss(
                self.from_states(hidden),
                returns[place, :width].to(device),
                old[place, :width].to(device),
                inside,
                tokens=count,
            )
            loss.backward()
            self.weights.gather()
            total += float(loss.detach())
        self.step()
        return total

    def step(self) -> None:
        """Take the optimiser's step with the gradients that are there.

        Raises:
            TrainingStopped: They are not finite.
        """
        self.weights.take("the critic's gradient's", "lower critic_lr")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"head": self.head.state_dict(), "trunk": self._trained(), **self.weights.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.head.load_state_dict(state["head"])
        with torch.no_grad():
            for name, weight in self._trained().items():
                weight.copy_(state["trunk"][name])
        self.weights.load(state)

    def _trained(self) -> dict[str, Tensor]:
        """Return the weights of a trunk of its own that are trained, by name."""
        if self.shared:
            return {}
        return {n: p.detach() for n, p in self.trunk.named_parameters() if p.requires_grad}


def _copy(model: Any) -> Any:
    """Copy a model; weights that are not trained are shared, not copied."""
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, frozen)


def _head(model: Any) -> nn.Linear:
    """Make a linear head of zeros, in at least single precision."""
    width = model.config.get_text_config().hidden_size
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    with torch.random.fork_rng(devices=[]):  # its first values are drawn, and not wanted
        head = nn.Linear(width, 1, device=model.device, dtype=dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
