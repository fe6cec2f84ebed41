"""The spatial-temporal convolution connector.

VideoLLaMA 2 (Cheng et al. 2024, section 2.1): convolution blocks over the places of each moment,
one 3D convolution that thins out time and space, convolution blocks again, and a network of two
layers. The blocks are RegNet's (Radosavovic et al. 2020, section 4; with squeeze-and-excitation,
Hu et al. 2018), their 3 x 3 convolution depthwise.

The grid is built anew from times and places of the tokens, so that missing tokens are holes of
zeros. Sound has no places: there the blocks run along time.

Legend: B clips, N tokens, T time steps, R rows, C columns, D features, Q timeline tokens.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from avqa_llm.connectors.contract import Connector, ConnectorShape
from avqa_llm.tokenbatch import TokenBatch


class Excite(nn.Module):
    """Squeeze-and-excitation: the mean over `axes` decides how much of each feature passes."""

    def __init__(self, width: int, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes
        hidden = max(8, width // 4)
        self.squeeze, self.open = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, values_BTRCD: Tensor, there_BT111: Tensor) -> Tensor:
        """Keeps the shape; the mean is over time steps that are there."""
        count = there_BT111.expand(values_BTRCD.shape).sum(self.axes, keepdim=True).clamp(min=1)
        mean = (values_BTRCD * there_BT111).sum(self.axes, keepdim=True) / count
        return values_BTRCD * self.open(functional.silu(self.squeeze(mean))).sigmoid()


class ConvBlock(nn.Module):
    """Point by point, with the neighbours, point by point; as a residual."""

    def __init__(self, width: int, *, along_time: bool) -> None:
        super().__init__()
        near, filled = ((3, 1, 1), (1, 0, 0)) if along_time else ((1, 3, 3), (0, 1, 1))
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.around = nn.Conv3d(width, width, near, padding=filled, groups=width, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.excite = Excite(width, (1,) if along_time else (2, 3))

    def forward(self, values_BTRCD: Tensor, there_BT111: Tensor) -> Tensor:
        """Keeps the shape; time steps that are not there count as zeros."""
        hidden = functional.silu(self.norms[0](self.into(values_BTRCD))) * there_BT111
        hidden = self.around(hidden.movedim(-1, 1)).movedim(1, -1)
        hidden = self.excite(functional.silu(self.norms[1](hidden)), there_BT111)
        return functional.silu(values_BTRCD + self.norms[2](self.out(hidden)))


class STC(Connector):
    """Blocks, 3D convolution, blocks, two layers.

    Pictures leave with one time step a second, whose places are averaged down to `per_second`
    of about the picture's shape: row by row, from left to right. Sound leaves with `per_second`
    time steps a second. The 3D convolution sees one time step more on each side than it leaves
    out, so that motion between seconds is visible at one moment a second too.
    """

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__(shape)
        width, self.grid = shape.width, shape.layout.grid
        sound = self.grid == (1, 1)
        self.steps = shape.per_second if sound else 1
        self.places = (1, 1) if sound else places_like(self.grid, shape.per_second)
        stride = max(1, int(shape.layout.rate / self.steps + 1e-6))
        self.bins = self.steps * stride
        high, wide = (_half(*pair) for pair in zip(self.grid, self.places, strict=True))
        self.halves = (high, wide)
        self.before, self.after = (
            nn.ModuleList(ConvBlock(width, along_time=sound) for _ in range(shape.layers))
            for _ in range(2)
        )
        self.thin = nn.Conv3d(
            width, width, (stride + 2, high, wide), (stride, high, wide), padding=(1, 0, 0)
        )
        hidden = int(width * shape.ratio)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Convolve the timeline; see `Connector`."""
        longest = int(seconds_B.max())
        values, there_BT111 = self.on_grid(keys_BND, tokens, seconds_B, longest)
        for block in self.before:
            values = block(values, there_BT111)
        values = self._thinned(values * there_BT111)
        exists_BQ = self.exists(seconds_B, longest)
        each = self.per_second // self.steps
        inside_BT111 = exists_BQ[:, ::each, None, None, None]
        for block in self.after:
            values = block(values, inside_BT111)
        pooled = functional.adaptive_avg_pool2d(
            values.flatten(0, 1).movedim(-1, 1), self.places
        ).movedim(1, -1)
        timeline_BQD = pooled.flatten(1, 2).unflatten(0, (len(keys_BND), -1)).flatten(1, 2)
        return self.down(functional.gelu(self.up(timeline_BQD))), exists_BQ

    def _thinned(self, values_BTRCD: Tensor) -> Tensor:
        """The 3D convolution; an odd last row or column is filled up with zeros."""
        rows, columns = (size % half for size, half in zip(self.grid, self.halves, strict=True))
        filled = functional.pad(values_BTRCD.movedim(-1, 1), (0, columns, 0, rows))
        return functional.silu(self.thin(filled)).movedim(1, -1)

    def on_grid(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor, longest: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens at their time and place; those of one cell are averaged.

        Returns:
            The grid (B, T, R, C, D), and the time steps that hold any token (B, T, 1, 1, 1).
        """
        rows, columns = self.grid
        # What lies a little past the last whole second belongs to it.
        step = (tokens.times_BN * self.bins).long().clamp(min=0)
        step = step.minimum(seconds_B[:, None] * self.bins - 1)
        column = (tokens.places_BN2[..., 0] * columns).long().clamp(0, columns - 1)
        row = (tokens.places_BN2[..., 1] * rows).long().clamp(0, rows - 1)
        cell_BN1 = ((step * rows + row) * columns + column)[..., None]
        there_BN1 = tokens.there_BN[..., None].to(keys_BND.dtype)
        size = (len(keys_BND), longest * self.bins * rows * columns)
        sums = keys_BND.new_zeros(*size, keys_BND.shape[2])
        sums = sums.scatter_add(1, cell_BN1.expand_as(keys_BND), keys_BND * there_BN1)
        counts = there_BN1.new_zeros(*size, 1).scatter_add(1, cell_BN1, there_BN1)
        shape = (longest * self.bins, rows, columns)
        grid = (sums / counts.clamp(min=1)).unflatten(1, shape)
        return grid, counts.unflatten(1, shape).sum((2, 3), keepdim=True) > 0


def places_like(grid: tuple[int, int], count: int) -> tuple[int, int]:
    """Rows and columns with `count` places in all, as near to the shape of `grid` as can be."""
    shape = math.log(grid[0] / grid[1])
    pairs = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1]) - shape))


def _half(size: int, wanted: int) -> int:
    """Space is halved as in the paper, unless more places than that are to leave."""
    return 2 if size > 1 and -(-size // 2) >= wanted else 1
