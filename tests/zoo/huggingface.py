"""Hugging Face ``transformers`` models built offline: tiny configurations, random weights.

Importing this module needs the package ``transformers`` (the extra ``hf``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from zoo.language import PADDING, masked_token_loss, next_token_loss
from zoo.table import Entry, images, masked_tokens, padded, tokens

__all__ = ["HUGGING_FACE"]


Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


def of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """A loss of what these models give: an object with ``logits``."""
    return lambda output, targets: loss(output.logits, targets)


def gpt2() -> nn.Module:
    config = GPT2Config(
        vocab_size=17,
        n_positions=8,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=17,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForMaskedLM(config)


def vit() -> nn.Module:
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
    )
    return ViTForImageClassification(config)


def t5() -> nn.Module:
    config = T5Config(
        vocab_size=17,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def _masked(n: int) -> Batch:
    """Tokens and an attention mask."""
    (text,), targets = masked_tokens(17, 8)(n)
    return (text, (text != PADDING).long()), targets


def _translations(n: int) -> Batch:
    """Tokens and their attention mask, and the tokens of the other language up to each position."""
    (text,), targets = tokens(17, 5)(n)
    source = padded(17, 7, n)
    return (source, (source != PADDING).long(), text), targets


HUGGING_FACE: Mapping[str, Entry] = {
    "gpt2": Entry(gpt2, tokens(17, 8), of_logits(next_token_loss)),
    "llama": Entry(llama, tokens(17, 8), of_logits(next_token_loss)),
    "bert": Entry(bert, _masked, of_logits(masked_token_loss)),
    "vit": Entry(vit, images(3, 8), of_logits(F.cross_entropy)),
    "t5": Entry(t5, _translations, of_logits(next_token_loss)),
}
"""By name; called with positional arguments, unmodified."""
