"""From the tokens of one modality to its timeline; the recipe chooses how."""

from avqa_llm.connectors.contract import Connector, ConnectorShape, Layout
from avqa_llm.connectors.perceiver import Perceiver
from avqa_llm.connectors.projector import Projector
from avqa_llm.connectors.qformer import QFormer
from avqa_llm.connectors.stc import STC

__all__ = ["CONNECTORS", "Connector", "ConnectorShape", "Layout"]

CONNECTORS: dict[str, type[Connector]] = {
    "qformer": QFormer,
    "projector": Projector,
    "perceiver": Perceiver,
    "stc": STC,
}
