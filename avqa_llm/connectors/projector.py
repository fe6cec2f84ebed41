"""The projector: no attention at all, only a network on each place of the timeline.

LLaVA-1.5's connector (Liu et al. 2024, section 3.3) is a network of two layers on every token
of the encoder. Here its input is the mean of the tokens at each anchor, for the timeline has a
fixed number of tokens a second. What a place of the timeline holds is therefore what was
measured there, and nothing else.

Legend: B clips, N tokens, Q timeline tokens, D features.
"""

from __future__ import annotations

from torch import Tensor, nn

from avqa_llm.connectors.contract import Connector, ConnectorShape
from avqa_llm.tokenbatch import TokenBatch


class Projector(Connector):
    """Mean at the anchor, then two layers.

    With more bands than tokens a second a second shows only some columns of the picture; the
    others come in the next ones. Choose as many bands as tokens to see all of it every second.
    """

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__(shape)
        hidden = int(shape.width * shape.ratio)
        self.up, self.down = nn.Linear(shape.width, hidden), nn.Linear(hidden, shape.width)

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Project the timeline; see `Connector`."""
        longest = int(seconds_B.max())
        pooled_BQD = self.at_anchors(keys_BND, tokens, longest)
        timeline_BQD = self.down(nn.functional.gelu(self.up(pooled_BQD)))
        return timeline_BQD, self.exists(seconds_B, longest)
