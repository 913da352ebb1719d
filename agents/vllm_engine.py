"""What engines of vLLM have in common: how they are asked, and what they make of its answers.

Sampling is vLLM's own, seeded by (episode's seed, position), so that runs repeat. Log-probabilities
are those of the distribution drawn from (`logprobs_mode="processed_logprobs"`), over the
tokenizer's tokens alone, as the learner computes them.

Every load of weights has a label, of which vLLM says behind each completion which tokens it drew.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from . import vllm_masks, vllm_requests
from .draws import turn_seed
from .types import Completion, Sampling, StopReason, WeightSpan
from .vllm_adapters import AdapterFolder
from .vllm_requests import SCORED, Parameters
from .vllm_settings import says_weights

FIRST = "default"
"""vLLM's label of the weights that an engine is started with."""


class VLLMEngine:
    """What engines of vLLM have in common, in this process or in one of their own."""

    keeps_folder = False
    """Whether the folder that it is started from is its own, until it is closed."""

    def __init__(self, options: Mapping[str, Any], *, end_ids: Sequence[int], rank: int) -> None:
        """Note how completions end.

        Args:
            options: The engine's arguments.
            end_ids: Ids that end a completion.
            rank: Of the adapters that are to be served; 0: weights come merged.
        """
        self.context, self.end_ids = options["max_model_len"], tuple(end_ids)
        self.vocabulary = options["additional_config"]["vocabulary"]
        self.prompt_tokens = self.cached_tokens = 0
        """Tokens of prompts so far, and those that were found in the prefix cache."""
        self.adapters = AdapterFolder() if rank else None
        """Where adapters are handed over, if they are served beside the weights."""
        self._request: Any = None
        """The adapters that each request names."""
        self.labelled = says_weights()
        """Whether the engine says which weights drew which tokens, as from vLLM 0.32 on."""
        self._scores_together = not rank or "lora_target_modules" in options
        """Whether several prompts are scored at a time: not where the output layer has adapters."""
        self._label = FIRST
        """Of the weights that there are."""
        self._versions = {FIRST: 0}
        """From the label of weights to how the caller counts them."""

    @property
    def version(self) -> int:
        """Which weights it has, as the caller counts them."""
        return self._versions[self._label]

    @version.setter
    def version(self, value: int) -> None:
        self._versions[self._label] = value

    @property
    def updates_in_flight(self) -> bool:
        """Whether `load` can leave completions running; they would keep the adapters they name."""
        return self.labelled and self.adapters is None

    def _new_label(self, version: int) -> str:
        """Return a label for weights that are about to come."""
        label = f"load-{len(self._versions)}"
        self._versions[label] = version
        return label

    def _parameters(self, prompt_ids: Sequence[int], sampling: Sampling) -> Parameters:
        vllm_requests.check_prompt(len(prompt_ids), self.context)
        return vllm_requests.drawn(
            sampling,
            tokens=min(sampling.max_tokens, self.context - len(prompt_ids)),
            seed=turn_seed(sampling.seed, len(prompt_ids)),
            end_ids=self.end_ids,
            vocabulary=self.vocabulary,
        )

    def mask_problem(self, sampling: Sampling) -> str:
        """Say why `Completion.kept` cannot be known; empty if it can."""
        return vllm_masks.problem(sampling)

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        (drawn,) = output.outputs
        reasons = {"stop": StopReason.EOS, "length": StopReason.LENGTH}
        if drawn.finish_reason not in reasons:
            raise ModelError(f"vLLM ended a completion with '{drawn.finish_reason}'")
        self.prompt_tokens += len(output.prompt_token_ids)
        self.cached_tokens += output.num_cached_tokens or 0
        stopped = isinstance(drawn.stop_reason, str)
        spans = self._spans(drawn)
        return Completion(
            tokens=list(drawn.token_ids),
            logprobs=chosen(drawn.token_ids, drawn.logprobs),
            stop_reason=StopReason.STOP if stopped else reasons[drawn.finish_reason],
            version=spans[-1].version if spans else self.version,
            spans=spans if len(spans) > 1 else (),
            kept=vllm_masks.of_tables(drawn.logprobs, sampling, self.vocabulary),
        )

    def _spans(self, drawn: Any) -> tuple[WeightSpan, ...]:
        """Return which weights drew which tokens; nothing where vLLM does not say."""
        found = getattr(drawn, "weight_versions", None) or ()
        return tuple(
            WeightSpan(self._versions[one.version], one.start, one.end)
            for one in found
            if one.end > one.start
        )

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        if self._scores_together:
            found = self._finish(sequences, SCORED)
        else:
            found = [self._finish([ids], SCORED)[0] for ids in sequences]
        return [
            chosen(ids[1:], one.prompt_logprobs[1:])
            for ids, one in zip(sequences, found, strict=True)
        ]

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache."""
        found = [one.outputs[0] for one in self._finish(prompts, vllm_requests.resumed(count))]
        return [(list(one.token_ids), chosen(one.token_ids, one.logprobs)) for one in found]

    def _finish(self, prompts: Sequence[Sequence[int]], parameters: Parameters) -> list[Any]:
        """Run requests to their end, now."""
        raise NotImplementedError

    def _written(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Write adapters, and return what a request names them by: a new number each time."""
        if self.adapters is None:
            raise UsageError("the engine was started without adapters; give it their rank")
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        number, place = self.adapters.write(tensors)
        return LoRARequest(f"rlvr-{number}", number, str(place))

    def _drop(self, request: Any) -> None:
        """Remove the files of adapters that no request names any more."""
        if request is not None and self.adapters is not None:
            self.adapters.drop(request.lora_int_id)


def chosen(tokens: Sequence[int], ranked: Sequence[Mapping[int, Any]]) -> list[float]:
    """Return the log-probability of each token out of vLLM's tables per position."""
    return [float(table[token].logprob) for token, table in zip(tokens, ranked, strict=True)]
