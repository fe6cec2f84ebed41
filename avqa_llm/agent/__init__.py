"""An agent that answers by looking twice: a planner over tools, with all its steps visible.

`Agent.rules` plans by rules, without a language model; `Agent.served` lets a language model behind
an OpenAI-compatible server plan. Both use the same tools (`avqa_llm.agent.bench`).
"""

from __future__ import annotations

from avqa_llm.agent.agent import Agent
from avqa_llm.agent.report import Report, Step

__all__ = ["Agent", "Report", "Step"]
