"""3x3 convolutions on CPUs by Winograd's algorithm, in a quarter of the products."""

from __future__ import annotations

import torch
from torch import nn

from .inference import Room

_CELLS = 4  # a tile's side that is computed at once
_PATCH = _CELLS + 2  # what it depends on
# F(4x4, 3x3) of Lavin & Gray 2016 (section 4.1), from the points 0, 1, -1, 2, -2.
_DATA = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_FILTER = torch.tensor(
    [[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / 24  # fmt: skip
_RESULT = torch.tensor(
    [[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)

_POINT_ONE = _PATCH + 1  # of a patch's cells: the point 1 in both directions, whose powers are 1

_BAND_BYTES = 5 * 2**20  # of tiles at once: what is computed of them stays in a CPU's caches


class Winograd(nn.Module):
    """A 3x3 convolution of many channels, for inference.

    Both transformations of all tiles are matrix products, as are the 36 products of a tile. In
    bf16 what it adds to the error of a ResNet-50 in bf16 before it can't be told from it.

    :param convolution: of stride 1, with a bias, padded by 1.
    :param precision: of products and results.
    :param room: for the input, to be shared by convolutions of one network.
    :param then: a layer behind a ReLU behind this one, in float32: what comes in between isn't
        written out.
    :raises ValueError: another convolution.
    """

    factors: torch.Tensor  # (36, C, K) of the products
    data: torch.Tensor  # (36, 36)
    result: torch.Tensor  # (16, 36)
    bias: torch.Tensor  # (K,)

    def __init__(
        self,
        convolution: nn.Conv2d,
        precision: torch.dtype,
        room: Room,
        then: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        if not _fits(convolution):
            raise ValueError(f"Winograd's algorithm is not for {convolution}")
        weight = convolution.weight.detach().float()
        outputs, inputs = weight.shape[:2]
        factors = torch.einsum("ij,kcjl,ml->imck", _FILTER, weight, _FILTER)
        self.register_buffer("factors", factors.reshape(-1, inputs, outputs).to(precision))
        self.register_buffer("data", torch.kron(_DATA, _DATA).to(precision))
        self.register_buffer("result", torch.kron(_RESULT, _RESULT).to(precision))
        assert convolution.bias is not None  # `_fits`
        self.register_buffer("bias", convolution.bias.detach().to(precision))
        self.then = then
        self._padded, self._hidden, self._output = room, Room(), Room()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, K, H, W), channels last. The next call overwrites it.

        Of ``then`` they are as many as it has outputs, in float32.
        """
        count, inputs, height, width = x.shape
        if self.then is None:
            outputs, precision = self.factors.shape[2], self.factors.dtype
        else:
            outputs, precision = self.then.out_features, torch.float32
        down, across = -(-height // _CELLS), -(-width // _CELLS)  # tiles
        shape = down * _CELLS + 2, across * _CELLS + 2, inputs
        padded = self._padded(shape, self.factors.dtype)
        results = self._output((count, down * _CELLS, across * _CELLS, outputs), precision)
        tile_bytes = _PATCH**2 * inputs * self.factors.element_size()
        step = max(1, _BAND_BYTES // (tile_bytes * across))
        for image, result in zip(x, results, strict=True):
            padded[0], padded[height + 1 :] = 0, 0
            padded[:, 0], padded[:, width + 1 :] = 0, 0
            padded[1 : height + 1, 1 : width + 1] = image.permute(1, 2, 0)
            for top in range(0, down, step):
                rows = slice(top * _CELLS, min(top + step, down) * _CELLS)
                band, part = padded[rows.start : rows.stop + 2], result[rows]
                if self.then is None:
                    self._band(band, part)
                    continue
                hidden = self._hidden((*part.shape[:2], self.then.in_features), precision)
                self._band(band, hidden)
                part.copy_(self.then(hidden.relu_()))
        return results[:, :height, :width].permute(0, 3, 1, 2)

    def _band(self, padded: torch.Tensor, result: torch.Tensor) -> None:
        """(4 n + 2, 4 m + 2, C) to (4 n, 4 m, K)."""
        inputs, (height, width, outputs) = padded.shape[2], result.shape
        down, across = height // _CELLS, width // _CELLS
        row, column, _ = padded.stride()
        shape = _PATCH, _PATCH, down, across, inputs
        patches = padded.as_strided(
            shape, (row, column, _CELLS * row, _CELLS * column, 1), padded.storage_offset()
        )
        # Each of the 36 cells of all tiles is a matrix then, (tiles, C).
        data = self.data @ patches.reshape(_PATCH**2, -1)
        products = data.view(_PATCH**2, -1, inputs) @ self.factors
        # What is added here all cells of the tile's result get; adding it to each takes longer.
        products[_POINT_ONE].add_(self.bias)
        sums = self.result @ products.view(_PATCH**2, -1)
        tiles = sums.view(_CELLS, _CELLS, down, across, outputs).permute(2, 0, 3, 1, 4)
        result.view(down, _CELLS, across, _CELLS, outputs).copy_(tiles)


def _fits(layer: nn.Conv2d) -> bool:
    return (
        (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        and layer.bias is not None
    )
