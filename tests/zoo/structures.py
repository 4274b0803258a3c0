"""Models with other structures: routed experts, graphs, two towers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language import BERTBlock
from zoo.vision import MLP

__all__ = ["CLIP", "GraphNetwork", "MixtureOfExperts", "contrastive_loss"]


class MixtureOfExperts(nn.Module):
    """A classifier whose hidden layer sends each sample to its ``top`` best experts (Shazeer et al. 2017).

    Every expert runs on all samples, and gates of 0 leave out those that were not routed to it: shapes stay
    fixed.
    """

    def __init__(self, inputs: int, width: int, classes: int, experts: int = 2, top: int = 1) -> None:
        super().__init__()
        self.top = top
        self.stem = nn.Linear(inputs, width)
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(MLP(width, 2 * width, width) for _ in range(experts))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem(x))
        scores = self.router(x).softmax(-1)
        best, chosen = scores.topk(self.top, dim=-1)
        if self.top > 1:
            best = best / best.sum(-1, keepdim=True)
        gates = torch.zeros_like(scores).scatter(-1, chosen, best)
        routed = torch.stack([expert(x) for expert in self.experts], 1)
        result: Tensor = self.head(x + (routed * gates.unsqueeze(-1)).sum(1))
        return result


class GraphNetwork(nn.Module):
    """Message passing over a batch of graphs (Gilmer et al. 2017): a class for each graph.

    Nodes are [batch, nodes, features], edges [batch, 2, edges]: sources and targets. Messages are summed with
    ``scatter_add``, degrees counted with ``index_add``.
    """

    def __init__(self, features: int, width: int, classes: int, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.messages = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(layers))
        self.updates = nn.ModuleList(MLP(2 * width, width, width) for _ in range(layers))
        self.head = nn.Linear(width, classes)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        batch, count, _ = nodes.shape
        first = torch.arange(batch, device=edges.device)[:, None] * count
        source, target = ((edges[:, side] + first).flatten() for side in (0, 1))
        x = self.embed(nodes).flatten(0, 1)
        degrees = torch.zeros(len(x), device=x.device).index_add(
            0, target, torch.ones(len(target), device=x.device)
        )
        for message, update in zip(self.messages, self.updates, strict=True):
            sent = F.relu(message(torch.cat((x[source], x[target]), -1)))
            received = torch.zeros_like(x).scatter_add(0, target[:, None].expand_as(sent), sent)
            x = x + update(torch.cat((x, received / degrees.clamp(min=1)[:, None]), -1))
        result: Tensor = self.head(x.view(batch, count, -1).mean(1))
        return result


class CLIP(nn.Module):
    """An image and a text tower whose outputs are compared: the similarity of each pair (Radford et al. 2021)."""

    def __init__(
        self, vocabulary: int, width: int, heads: int, length: int, size: int, channels: int = 8
    ) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.GroupNorm(2, channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * (size // 2) ** 2, width),
        )
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.block = BERTBlock(width, heads)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        mask = (tokens != 0)[:, None, None, :]
        text = self.block(self.tokens(tokens) + self.positions, mask)
        last = tokens.argmax(-1)  # the end mark is the greatest token
        text = text[torch.arange(len(text), device=text.device), last]
        first, second = F.normalize(self.image(images), dim=-1), F.normalize(text, dim=-1)
        result: Tensor = self.scale.exp() * first @ second.T
        return result


def contrastive_loss(similarities: Tensor, _: object) -> Tensor:
    """Mean of the cross-entropies of images given texts and of texts given images; pairs are the diagonal."""
    own = torch.arange(len(similarities), device=similarities.device)
    return (F.cross_entropy(similarities, own) + F.cross_entropy(similarities.T, own)) / 2
