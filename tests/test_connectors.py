"""Connectors and fusions against plain implementations, position by position.

Legend: B clips, N tokens, D features, T time steps, R rows, C columns, Q timeline tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avqa_llm.connectors import ConnectorShape, Layout
from avqa_llm.connectors.perceiver import PerceiverBlock
from avqa_llm.connectors.projector import Projector
from avqa_llm.connectors.stc import STC, ConvBlock, places_like
from avqa_llm.fusion import Cross, Stream, Sum
from avqa_llm.tokenbatch import TokenBatch

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def shape_of(**values: object) -> ConnectorShape:
    return ConnectorShape(**{"width": 8, "heads": 2, "layers": 1, "ratio": 2.0, **values})


def batch_of(values_BND: Tensor, times_N: Tensor, places_N2: Tensor) -> TokenBatch:
    size = values_BND.shape[:2]
    return TokenBatch(
        values_BND=values_BND,
        times_BN=times_N.expand(size),
        places_BN2=places_N2.expand(*size, 2),
        there_BN=torch.ones(size, dtype=torch.bool),
    )


def test_projector_by_hand() -> None:
    torch.manual_seed(0)
    projector = Projector(shape_of(width=2, heads=1, ratio=1.0, per_second=2))
    keys = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [10.0, -2.0], [5.0, 5.0]]])
    tokens = batch_of(keys, torch.tensor([0.1, 0.3, 0.7, 1.2]), torch.zeros(4, 2))
    timeline, exists = projector(keys, tokens, torch.tensor([2]))
    pooled = torch.tensor([[2.0, 4.0], [10.0, -2.0], [5.0, 5.0], [0.0, 0.0]])
    for place, mean in zip(timeline[0], pooled, strict=True):
        hidden = projector.up.weight @ mean + projector.up.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        torch.testing.assert_close(place, projector.down.weight @ hidden + projector.down.bias)
    assert exists.tolist() == [[True] * 4]


def test_latents_attend_to_tokens_and_to_one_another() -> None:
    torch.manual_seed(0)
    block = PerceiverBlock(8, 2, 2.0)
    latents, keys = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    q, all_keys = block.norm_latents(latents), block.norm_keys(keys)
    all_keys = torch.cat([all_keys, q], dim=1)
    attend = block.attention
    parts = [
        part(x).unflatten(-1, (2, 4)).transpose(1, 2)
        for part, x in ((attend.query, q), (attend.key, all_keys), (attend.value, all_keys))
    ]
    mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    expected = block.feed(latents + attend.out(mixed))
    there = [torch.ones(1, n, dtype=torch.bool) for n in (3, 4)]
    torch.testing.assert_close(block(latents, there[0], keys, there[1]), expected)


def plain_block(block: ConvBlock, values: Tensor) -> Tensor:
    """One block on (channels, T, R, C), position by position; nothing is missing."""
    dims, time, rows, columns = values.shape
    hidden = torch.empty_like(values)
    spots = [(t, r, c) for t in range(time) for r in range(rows) for c in range(columns)]
    for spot in spots:
        hidden[(slice(None), *spot)] = functional.silu(
            block.norms[0](block.into(values[(slice(None), *spot)]))
        )
    reach = tuple(n // 2 for n in block.around.kernel_size)
    around = torch.zeros_like(values)
    for t, r, c in spots:
        for dt in range(-reach[0], reach[0] + 1):
            for dr in range(-reach[1], reach[1] + 1):
                for dc in range(-reach[2], reach[2] + 1):
                    t2, r2, c2 = t + dt, r + dr, c + dc
                    if 0 <= t2 < time and 0 <= r2 < rows and 0 <= c2 < columns:
                        kernel = block.around.weight[
                            :, 0, dt + reach[0], dr + reach[1], dc + reach[2]
                        ]
                        around[:, t, r, c] += kernel * hidden[:, t2, r2, c2]
    for spot in spots:
        around[(slice(None), *spot)] = functional.silu(block.norms[1](around[(slice(None), *spot)]))
    out = torch.empty_like(values)
    for t, r, c in spots:
        seen = around if reach[0] else around[:, t : t + 1]
        gate = block.excite.open(functional.silu(block.excite.squeeze(seen.mean((1, 2, 3)))))
        change = block.norms[2](block.out(around[:, t, r, c] * gate.sigmoid()))
        out[:, t, r, c] = functional.silu(values[:, t, r, c] + change)
    return out


def plain_stc(connector: STC, grid: Tensor, places: tuple[int, int]) -> Tensor:
    """The whole connector on a full grid (channels, T, R, C)."""
    for block in connector.before:
        grid = plain_block(block, grid)
    odd = [size % half for size, half in zip(grid.shape[2:], connector.halves, strict=True)]
    grid = functional.pad(grid, (0, odd[1], 0, odd[0], 1, 1))
    kernel = connector.thin.weight
    step, out = connector.thin.stride, []
    for t in range(0, grid.shape[1] - kernel.shape[2] + 1, step[0]):
        moment = grid[:, t : t + kernel.shape[2]]
        sums = torch.stack([
            torch.stack([
                (kernel * moment[:, :, r : r + step[1], c : c + step[2]]).sum((1, 2, 3, 4))
                for c in range(0, grid.shape[3], step[2])
            ], -1)
            for r in range(0, grid.shape[2], step[1])
        ], -2)  # fmt: skip
        out.append(functional.silu(sums + connector.thin.bias[:, None, None]))
    grid = torch.stack(out, 1)
    for block in connector.after:
        grid = plain_block(block, grid)
    small = functional.adaptive_avg_pool2d(grid.transpose(0, 1), places)
    tokens = small.permute(0, 2, 3, 1).reshape(-1, small.shape[1])
    return connector.down(functional.gelu(connector.up(tokens)))


def test_stc_of_pictures_by_hand() -> None:
    torch.manual_seed(0)
    layout = Layout(rate=2.0, grid=(3, 4))
    connector = STC(shape_of(per_second=2, bands=4, layout=layout))
    for parameter in connector.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    assert (connector.places, connector.halves, connector.bins) == ((1, 2), (2, 2), 2)
    grid = torch.randn(8, 6, 3, 4)
    rows, columns = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    spots = torch.stack([(columns + 0.5) / 4, (rows + 0.5) / 3], -1).flatten(0, 1)
    times = (torch.arange(6) / 2 + 0.2).repeat_interleave(12)
    shuffle = torch.randperm(72)
    keys = grid.permute(1, 2, 3, 0).flatten(0, 2)[None, shuffle]
    tokens = batch_of(keys, times[shuffle], spots.repeat(6, 1)[shuffle])
    timeline, exists = connector(keys, tokens, torch.tensor([3]))
    expected = plain_stc(connector, grid, (1, 2))
    assert timeline.shape == (1, 6, 8) and exists.all()
    torch.testing.assert_close(timeline[0], expected, **CLOSE)
    hidden = tokens.hidden(torch.arange(72)[None] < 40)
    holes = grid.permute(1, 2, 3, 0).flatten(0, 2)
    holes[shuffle[:40]] = 0
    expected = plain_stc(connector, holes.unflatten(0, (6, 3, 4)).permute(3, 0, 1, 2), (1, 2))
    torch.testing.assert_close(connector(keys, hidden, torch.tensor([3]))[0][0], expected, **CLOSE)


def test_stc_of_sound_by_hand() -> None:
    torch.manual_seed(0)
    connector = STC(shape_of(per_second=2, layout=Layout(rate=10.0)))
    assert (connector.bins, connector.thin.stride) == (10, (5, 1, 1))
    line = torch.randn(8, 30)
    keys, times = line.T[None], (torch.arange(30) + 0.5) / 10
    tokens = batch_of(keys, times, torch.zeros(30, 2))
    timeline, _ = connector(keys, tokens, torch.tensor([3]))
    expected = plain_stc(connector, line[..., None, None], (1, 1))
    torch.testing.assert_close(timeline[0], expected, **CLOSE)
    late = replace(tokens, times_BN=tokens.times_BN + torch.cat([torch.zeros(29), torch.ones(1)]))
    together, _ = connector(keys, late, torch.tensor([3]))
    torch.testing.assert_close(together, timeline)  # past the end belongs to the last step


@pytest.mark.parametrize(
    ("grid", "count", "expected"),
    [((3, 8), 4, (1, 4)), ((7, 7), 4, (2, 2)), ((7, 7), 1, (1, 1)), ((8, 3), 6, (3, 2))],
)
def test_places_have_the_shape_of_the_picture(
    grid: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    assert places_like(grid, count) == expected


def test_sum_adds_the_mean_of_the_same_second() -> None:
    own = Stream.timeline(torch.zeros(1, 4, 1), torch.ones(1, 4, dtype=torch.bool), 2)
    assert own.times_BN.tolist() == [[0.5, 0.5, 1.5, 1.5]]
    other = Stream(
        values_BND=torch.tensor([[[1.0], [3.0], [8.0], [99.0]]]),
        times_BN=torch.tensor([[0.1, 0.9, 1.0, 1.1]]),
        there_BN=torch.tensor([[True, True, True, False]]),
    )
    assert Sum(1, 1, 2.0)(own, other).flatten().tolist() == [2.0, 2.0, 8.0, 8.0]


def test_cross_by_hand() -> None:
    torch.manual_seed(0)
    cross = Cross(8, 2, 2.0)
    cross.gates.copy_(torch.tensor([0.3, -0.7]))
    own, other = (
        Stream.timeline(torch.randn(2, n, 8), torch.ones(2, n, dtype=torch.bool), 1) for n in (3, 5)
    )
    other.there_BN[1] = False
    fused = cross(own, other)
    looked = cross.attention(
        cross.norm(own.values_BND[:1]), other.values_BND[:1], other.there_BN[:1]
    )
    values = own.values_BND[:1] + torch.tanh(torch.tensor(0.3)) * looked[0]
    change = cross.feed.down(functional.gelu(cross.feed.up(cross.feed.norm(values))))
    torch.testing.assert_close(fused[:1], values + torch.tanh(torch.tensor(-0.7)) * change)
    assert torch.equal(fused[1], own.values_BND[1])
