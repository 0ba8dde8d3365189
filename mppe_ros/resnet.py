"""torchvision's ResNet as a trunk."""

from __future__ import annotations

import torch
from torchvision.models import resnet


class ResNetTrunk(resnet.ResNet):
    """torchvision's ResNet without its classifier, under torchvision's parameter names.

    (N, 3, H, W) to (N, ``channels``, H/32, W/32).
    """

    def __init__(self, block: str, layers: list[int]) -> None:
        """:param block: BasicBlock or Bottleneck."""
        super().__init__(getattr(resnet, block), layers)
        self.channels: int = self.fc.in_features
        del self.avgpool, self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.later(self.early(x))

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """To stride 4: the layers whose errors grow through all others."""
        return self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))

    def later(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4(self.layer3(self.layer2(x)))
