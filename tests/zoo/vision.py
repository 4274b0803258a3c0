"""Models of images: tensors [batch, channels, height, width]."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "CNN",
    "MLP",
    "VAE",
    "VGG",
    "Autoencoder",
    "BasicBlock",
    "MixedBlock",
    "MixedResNet",
    "ResNet",
    "UNet",
    "ViT",
    "evidence_loss",
]


class MLP(nn.Sequential):
    """Linear layers with ReLU between them."""

    def __init__(self, *sizes: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])


class CNN(nn.Module):
    """Two convolutions with batch norm and max pooling, and a linear head."""

    def __init__(self, channels: int = 16, size: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * channels)
        self.head = nn.Linear(2 * channels * (size // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        result: Tensor = self.head(x.flatten(1))
        return result


class BasicBlock(nn.Module):
    """The two-convolution block of He et al. 2016, with a projection where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class VAE(nn.Module):
    """A variational autoencoder of flat inputs: reconstruction, mean and log variance (Kingma and Welling 2013)."""

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, inputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        sample = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(sample), mean, log_variance


def evidence_loss(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """The negative evidence lower bound for inputs between 0 and 1, per sample."""
    logits, mean, log_variance = output
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum()
    return (reconstruction + divergence) / len(x)


class ResNet(nn.Module):
    """A stem, residual stages of growing width, global average pooling, and a linear head."""

    def __init__(
        self, channels: int = 64, stages: tuple[int, ...] = (1, 1), classes: int = 10, inputs: int = 3
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        width = channels
        for stage, count in enumerate(stages):
            for block in range(count):
                outputs = channels << stage
                blocks.append(BasicBlock(width, outputs, 2 if stage and not block else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


class VGG(nn.Sequential):
    """Plain stages of 3×3 convolutions, each ended by max pooling, and two linear layers (Simonyan 2014)."""

    def __init__(
        self, widths: tuple[int, ...] = (16, 32), size: int = 8, hidden: int = 64, classes: int = 10
    ) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        flat = widths[-1] * (size >> len(widths)) ** 2
        super().__init__(
            *layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes)
        )


class MixedBlock(nn.Module):
    """A bottleneck of a strided grouped, a dilated and a depthwise convolution with a residual beside it."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, stride=2, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=2, dilation=2, bias=False),
            nn.Conv2d(outputs, outputs, 5, padding=2, groups=outputs, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.shortcut(x))


class MixedResNet(nn.Module):
    """Residual blocks with every kind of convolution, max pooling after the stem, global average pooling."""

    def __init__(self, channels: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.blocks = nn.Sequential(
            MixedBlock(channels, 2 * channels, 2), MixedBlock(2 * channels, 4 * channels, 4)
        )
        self.head = nn.Linear(4 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(self.pool(self.stem(x))).mean((2, 3)))
        return result


def _smooth(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU())


class UNet(nn.Module):
    """Down and up again with skip connections (Ronneberger et al. 2015): a class for each pixel.

    Its three ways up are a transposed convolution, nearest and bilinear up-sampling.
    """

    def __init__(self, channels: int = 8, classes: int = 3) -> None:
        super().__init__()
        c = channels
        self.down = nn.ModuleList(
            [_smooth(1, c), _smooth(c, 2 * c), _smooth(2 * c, 4 * c), _smooth(4 * c, 4 * c)]
        )
        self.up1 = nn.ConvTranspose2d(4 * c, 4 * c, 2, stride=2)
        self.up2 = nn.Upsample(scale_factor=2, mode="nearest")
        self.up3 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.join = nn.ModuleList([_smooth(8 * c, 2 * c), _smooth(4 * c, c), _smooth(2 * c, c)])
        self.head = nn.Conv2d(c, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for up, join in zip((self.up1, self.up2, self.up3), self.join, strict=True):
            x = join(torch.cat((up(x), kept.pop()), 1))
        result: Tensor = self.head(x)
        return result


class Autoencoder(nn.Module):
    """Strided convolutions down to a code and transposed ones back, as values between 0 and 1."""

    def __init__(self, channels: int = 8, size: int = 8, code: int = 16) -> None:
        super().__init__()
        flat = 2 * channels * (size // 4) ** 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(flat, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, flat),
            nn.ELU(),
            nn.Unflatten(1, (2 * channels, size // 4, size // 4)),
            nn.ConvTranspose2d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1),
            nn.Softplus(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.encoder(x))
        return result


class ViT(nn.Module):
    """Patches as tokens beside a learnt class token, PyTorch's own encoder layers (Dosovitskiy et al. 2021)."""

    def __init__(
        self,
        size: int = 16,
        patch: int = 4,
        width: int = 32,
        layers: int = 2,
        heads: int = 4,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions
        result: Tensor = self.head(self.norm(self.encoder(x)[:, 0]))
        return result
