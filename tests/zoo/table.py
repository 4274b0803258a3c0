"""``ZOO``: every kind of model that must lower, tiny, with its loss and random data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language import (
    BERT,
    GPT,
    IGNORED,
    PADDING,
    Llama,
    Seq2Seq,
    TaggingGRU,
    TaggingLSTM,
    masked_token_loss,
    next_token_loss,
)
from zoo.structures import CLIP, GraphNetwork, MixtureOfExperts, contrastive_loss
from zoo.vision import CNN, MLP, VAE, VGG, Autoencoder, MixedResNet, ResNet, UNet, ViT, evidence_loss

__all__ = ["ZOO", "Entry"]

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Entry:
    """A model of the zoo. ``torch.manual_seed`` fixes what :meth:`make` and :meth:`samples` give."""

    model: Callable[[], nn.Module]
    data: Callable[[int], Batch]
    loss: Callable[[Any, Any], Tensor]
    batch: int = 4
    """samples that one step takes"""

    def make(self, seed: int = 0) -> nn.Module:
        """The model in training mode, with the weights of this seed."""
        torch.manual_seed(seed)
        return self.model().train()

    def samples(self, count: int, seed: int = 1) -> tuple[Any, Any]:
        """Inputs and targets of ``count`` samples, as ``lower`` and ``Dataset`` take them: a tensor where
        there is one, a tuple otherwise.
        """
        torch.manual_seed(seed)
        inputs, targets = self.data(count)
        return _bare(inputs), _bare(targets)


def _bare(tensors: tuple[Tensor, ...]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def images(channels: int, size: int, classes: int = 10) -> Callable[[int], Batch]:
    return lambda n: ((torch.randn(n, channels, size, size),), (torch.randint(classes, (n,)),))


def _vectors(size: int, classes: int) -> Callable[[int], Batch]:
    return lambda n: ((torch.randn(n, size),), (torch.randint(classes, (n,)),))


def tokens(vocabulary: int, length: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        text = torch.randint(vocabulary, (n, length + 1))
        return (text[:, :-1].contiguous(),), (text[:, 1:].contiguous(),)

    return data


def padded(vocabulary: int, length: int, count: int) -> Tensor:
    """Sequences of at least 2 tokens, filled up with ``PADDING``."""
    tokens = torch.randint(1, vocabulary, (count, length))
    lengths = torch.randint(2, length + 1, (count, 1))
    return tokens.where(torch.arange(length) < lengths, torch.tensor(PADDING))


def masked_tokens(vocabulary: int, length: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        tokens = padded(vocabulary, length, n)
        chosen = (torch.rand(n, length) < 0.3) & (tokens != PADDING)
        chosen[:, 0] = True
        return (tokens.masked_fill(chosen, vocabulary - 1),), (tokens.masked_fill(~chosen, IGNORED),)

    return data


def _pairs_of_texts(vocabulary: int, source: int, target: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        (text,), (following,) = tokens(vocabulary, target)(n)
        return (padded(vocabulary, source, n), text), (following,)

    return data


def _pixels(size: int, classes: int) -> Callable[[int], Batch]:
    return lambda n: ((torch.randn(n, 1, size, size),), (torch.randint(classes, (n, size, size)),))


def _own_images(size: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        images = torch.rand(n, 1, size, size)
        return (images,), (images,)

    return data


def _own_vectors(size: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        vectors = torch.rand(n, size)
        return (vectors,), (vectors,)

    return data


def _graphs(nodes: int, features: int, edges: int, classes: int) -> Callable[[int], Batch]:
    return lambda n: (
        (torch.randn(n, nodes, features), torch.randint(nodes, (n, 2, edges))),
        (torch.randint(classes, (n,)),),
    )


def _captions(size: int, vocabulary: int, length: int) -> Callable[[int], Batch]:
    def data(n: int) -> Batch:
        tokens = padded(vocabulary - 1, length, n)
        ends = (tokens != PADDING).sum(1) - 1
        tokens[torch.arange(n), ends] = vocabulary - 1
        return (torch.randn(n, 3, size, size), tokens), ()

    return data


ZOO: Mapping[str, Entry] = {
    "mlp": Entry(lambda: MLP(12, 32, 32, 5), _vectors(12, 5), F.cross_entropy, 8),
    "cnn": Entry(lambda: CNN(4, 8), images(1, 8), F.cross_entropy, 8),
    "vgg": Entry(lambda: VGG((4, 8), 8, 16), images(3, 8), F.cross_entropy, 8),
    "resnet": Entry(lambda: ResNet(4, (1, 1)), images(3, 8), F.cross_entropy, 8),
    "mixed_resnet": Entry(lambda: MixedResNet(4), images(3, 16), F.cross_entropy, 16),
    "unet": Entry(lambda: UNet(4, 3), _pixels(16, 3), F.cross_entropy),
    "autoencoder": Entry(lambda: Autoencoder(4), _own_images(8), F.mse_loss),
    "vae": Entry(lambda: VAE(24, 16, 4), _own_vectors(24), evidence_loss, 8),
    "vit": Entry(lambda: ViT(8, 4, 16, 2, 2), images(3, 8), F.cross_entropy),
    "gpt": Entry(lambda: GPT(17, 16, 2, 2, 8), tokens(17, 8), next_token_loss),
    "gpt_dropout": Entry(lambda: GPT(17, 16, 2, 2, 8, dropout=0.2), tokens(17, 8), next_token_loss),
    "llama": Entry(lambda: Llama(17, 16, 2, 4, 2, 24, 8), tokens(17, 8), next_token_loss),
    "bert": Entry(lambda: BERT(17, 16, 2, 2, 8), masked_tokens(17, 8), masked_token_loss),
    "seq2seq": Entry(lambda: Seq2Seq(17, 16, 1, 2, 8), _pairs_of_texts(17, 7, 5), next_token_loss),
    "lstm": Entry(lambda: TaggingLSTM(17, 8, 2), tokens(17, 6), next_token_loss),
    "gru": Entry(lambda: TaggingGRU(17, 8, 2), tokens(17, 6), next_token_loss),
    "bidirectional_lstm": Entry(lambda: TaggingLSTM(17, 8, 1, True), tokens(17, 6), next_token_loss),
    "experts_top1": Entry(lambda: MixtureOfExperts(12, 16, 5, top=1), _vectors(12, 5), F.cross_entropy, 8),
    "experts_top2": Entry(lambda: MixtureOfExperts(12, 16, 5, top=2), _vectors(12, 5), F.cross_entropy, 8),
    "graph": Entry(lambda: GraphNetwork(6, 8, 4), _graphs(6, 6, 10, 4), F.cross_entropy),
    "clip": Entry(lambda: CLIP(17, 16, 2, 6, 8), _captions(8, 17, 6), contrastive_loss),
}
"""By name. ``gpt_dropout`` and ``vae`` draw random numbers."""
