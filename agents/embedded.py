"""The embedded default: a model small enough to learn on a laptop's CPU while you watch.

A Llama-architecture network of under one million parameters with a byte tokenizer (every ASCII
character is one token; the rest of Unicode is spelt in bytes, so nothing is ever unknown) and a
chat template that only appends. Saved, it is an ordinary transformers folder. It is built from a
seed here and knows nothing; `rl_core.warm_start` teaches it the format of a task's answers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..verifiers import UsageError

PAD, EOS, SYSTEM, USER, ASSISTANT, TOOL = (
    "<|pad|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
)
"""The special tokens. A message is its role's token, its text, and the end token."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{{- message['content'] -}}"
    "{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Appends and nothing else: the ids of a prefix of the conversation are a prefix of its ids."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedConfig:
    """The size of the embedded model.

    Example:
        `EmbeddedConfig(width=128, layers=2)` has 0.46 million parameters.
    """

    width: int = 64
    """Hidden size; a multiple of `heads`."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    context: int = 2048
    """Longest sequence in tokens."""
    seed: int = 0
    """The initial weights' seed."""

    def __post_init__(self) -> None:
        """Check every range."""
        if min(self.width, self.layers, self.heads, self.context) < 1:
            raise UsageError(f"every size of the embedded model must be at least 1, got {self}")
        if self.width % (2 * self.heads):
            raise UsageError(
                f"width must be a multiple of 2·heads = {2 * self.heads}, got {self.width}"
            )


def byte_tokenizer(context: int = 2048) -> PreTrainedTokenizerFast:
    """Build the tokenizer: one token per byte, and the special tokens.

    Args:
        context: What the tokenizer reports as the longest sequence, in tokens.

    Returns:
        A tokenizer with a chat template; its vocabulary has 262 entries, `EOS` has id 1.

    Example:
        >>> tokenizer = byte_tokenizer()
        >>> tokenizer.decode(tokenizer("2+2 é")["input_ids"])
        '2+2 é'
    """
    specials = [PAD, EOS, SYSTEM, USER, ASSISTANT, TOOL]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, TOOL],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build(config: EmbeddedConfig) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Build the untrained model and its tokenizer; the same config gives the same weights.

    Returns:
        The model in float32 on the CPU, in evaluation mode, and the tokenizer.
    """
    tokenizer = byte_tokenizer(config.context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LlamaForCausalLM(_llama(config, len(tokenizer)))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _llama(config: EmbeddedConfig, vocabulary: int) -> Any:
    """Weights begin at width^−½: at transformers' 0.02, made for widths of thousands, a model this
    narrow takes many times as long to learn to add. Heads have at least 32 channels, which is what
    vLLM asks for on a CPU."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=max(32, config.width // config.heads),
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        initializer_range=config.width**-0.5,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
