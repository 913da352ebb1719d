"""TRL's RLOOTrainer and GRPOTrainer, set up as fast as they go, with hooks that split their time.

Everything that costs time and is not the step itself is off: logs, progress bar, checkpoints,
reports, gradient checkpointing (TRL's default is on), the reference model (beta 0), half precision
(slower than float32 here). Prompts are handed over as rendered text, which spares TRL the chat
template. The hooks are bound to the instances, a few microseconds a step.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer
from workers import Gate


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is the same for every system."""

    group_size: int = 8
    prompts_per_step: int = 32
    max_tokens: int = 8
    lr: float = 1e-7
    max_grad_norm: float = 1.0
    beta2: float = 0.99
    steps: int = 100_000
    seed: int = 0

    @property
    def episodes(self) -> int:
        """Episodes per optimiser step."""
        return self.group_size * self.prompts_per_step


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What may make a system faster and changes no result."""

    accumulation: int = 1
    """Backward passes per optimiser step, each over `episodes / accumulation` rows."""
    attention: str = "sdpa"
    """Which of transformers' attention implementations the model uses."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of TRL's config."""
    ours: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of our trainer."""


class _Clock(TrainerCallback):
    """Hooks the trainer's parts up to the gate's stopwatch, and its steps to the gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = kwargs["optimizer"]
        optimizer.step = self.gate.watch.wrap("learn", optimizer.step)
        self.gate.ready()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.gate.tick()


def make_trainer(
    kind: str,
    gate: Gate,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    reward: Callable[..., float],
    shape: Shape,
    knobs: Knobs,
    folder: str,
) -> Any:
    """Make a trainer whose `train()` runs behind the gate.

    Args:
        kind: `rloo` or `grpo`.
        gate: Counts and times the steps.
        model: The model; it is trained in place.
        tokenizer: Its tokenizer.
        rows: In the order in which they are to be trained on: `prompt`, a rendered text, and
            `truth`.
        reward: `(completion, truth)` to reward.
        shape: Sizes and optimiser.
        knobs: What may make it faster.
        folder: For the files that a trainer insists on.
    """
    config: Any = RLOOConfig if kind == "rloo" else GRPOConfig
    trainer_class: Any = RLOOTrainer if kind == "rloo" else GRPOTrainer

    def rewards(completions: list[str], truth: list[Any], **_: Any) -> list[float]:
        return [reward(text, true) for text, true in zip(completions, truth, strict=True)]

    model.set_attn_implementation(knobs.attention)
    with warnings.catch_warnings(action="ignore"):
        trainer = trainer_class(
            model=model,
            processing_class=tokenizer,
            reward_funcs=rewards,
            train_dataset=Dataset.from_list([dict(row) for row in rows]),
            args=config(**_settings(kind, shape, knobs, folder)),
            callbacks=[_Clock(gate)],
        )
    _hook(trainer, gate)
    return trainer


def _settings(kind: str, shape: Shape, knobs: Knobs, folder: str) -> dict[str, Any]:
    grpo = {"loss_type": "grpo", "scale_rewards": "group"} if kind == "grpo" else {}
    return {
        "output_dir": folder,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": shape.episodes // knobs.accumulation,
        "gradient_accumulation_steps": knobs.accumulation,
        "num_generations": shape.group_size,
        "max_completion_length": shape.max_tokens,
        "shuffle_dataset": False,
        "max_steps": shape.steps,
        "beta": 0.0,
        "num_iterations": 1,
        "temperature": 1.0,
        "learning_rate": shape.lr,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "adam_beta2": shape.beta2,
        "weight_decay": 0.0,
        "max_grad_norm": shape.max_grad_norm,
        "seed": shape.seed,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        **grpo,
        **knobs.more,
    }


def _hook(trainer: Any, gate: Gate) -> None:
    """Book the trainer's methods to the parts of the stopwatch."""
    watch = gate.watch
    trainer._generate = watch.wrap("sampling", trainer._generate)
    trainer._calculate_rewards = watch.wrap("verify", trainer._calculate_rewards)
    for name in ("compute_loss", "_get_per_token_logps_and_entropies", "_clip_grad_norm"):
        setattr(trainer, name, watch.wrap("learn", getattr(trainer, name)))
    trainer.accelerator.backward = watch.wrap("learn", trainer.accelerator.backward)
    trainer.model.zero_grad = watch.wrap("learn", trainer.model.zero_grad)
