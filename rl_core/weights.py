"""The weights that are trained: where they come from, and how they are kept.

All of a model, or adapters beside it. A checkpoint holds what is trained, and of a model with
adapters nothing else; the model that a run leaves behind has them merged, and they are left beside
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.loading import resolve_device
from .config import ModelConfig, TrainConfig
from .lora import Adapters, adapt
from .records import Run, save_model
from .sources import Source
from .warm_start import embedded_for, load_chosen


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model that is trained."""

    model: Any
    """The causal language model; with adapters in it, if there are any."""
    tokenizer: Any
    """Its tokenizer."""
    adapters: Adapters | None = None
    """What is trained of it; none: everything."""

    def save(self, folder: Path) -> None:
        """Write what is trained, with the tokenizer, as a checkpoint."""
        if self.adapters is None:
            save_model(folder, self.model, self.tokenizer)
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.adapters.save(folder)
        self.tokenizer.save_pretrained(folder)

    def reference(
        self, config: ModelConfig, sources: Sequence[Source], say: Callable[[str], None]
    ) -> Any:
        """Return what the model was before training: with its adapters off, or a second model.

        Args:
            config: As for `load_first`.
            sources: Likewise.
            say: Likewise.
        """
        if self.adapters is not None:
            return self.adapters
        model, _ = load_first(config, sources, None, say)
        return model.requires_grad_(False)

    def leave(self, run: Run) -> None:
        """Write the trained model, an ordinary folder, and adapters beside it; training is over.

        Raises:
            TrainingStopped: They could not be written.
        """
        model = self.model
        if self.adapters is not None:
            run.save_folder("adapter", self.save)
            model = self.adapters.merge()
        run.save_folder("model", lambda folder: save_model(folder, model, self.tokenizer))


def open_weights(
    config: TrainConfig,
    sources: Sequence[Source],
    checkpoint: Path | None,
    say: Callable[[str], None],
) -> Weights:
    """Load what is trained.

    Args:
        config: The settings.
        sources: What is trained on, which the embedded model is warmed up for.
        checkpoint: What `Weights.save` wrote, to go on with; none: the model as it is.
        say: Told of a warm start, and of how much is trained.

    Raises:
        UsageError: A setting names what is not there.
        ModelError: The model or its adapters cannot be loaded.
    """
    if not config.lora.lora_rank:
        model, tokenizer = load_first(config.model, sources, checkpoint, say)
        return Weights(model=model, tokenizer=tokenizer)
    base, tokenizer = load_first(config.model, sources, None, say)
    adapters = adapt(base, config.lora, seed=config.run.seed, folder=checkpoint)
    say(f"trained: {adapters}")
    return Weights(model=adapters.model.eval(), tokenizer=tokenizer, adapters=adapters)


def load_first(
    config: ModelConfig,
    sources: Sequence[Source],
    checkpoint: Path | None,
    say: Callable[[str], None],
) -> tuple[Any, Any]:
    """Load a model and its tokenizer: those of a checkpoint, or those that training begins with.

    Args:
        config: Which model.
        sources: What is trained on, which the embedded model is warmed up for.
        checkpoint: Loaded in its place, if there is one.
        say: Told of a warm start.
    """
    if checkpoint is not None or config.model != "embedded":
        return load_chosen(config, checkpoint)

    def progress(done: int, steps: int, loss: float) -> None:
        if done % 100 == 0 or done == steps:
            say(f"  warm start {done}/{steps}  loss {loss:.3f}")

    say("warm start of the embedded model (cached after the first time)")
    model, tokenizer = embedded_for(sources, progress=progress)
    return model.to(resolve_device(config.device)), tokenizer
