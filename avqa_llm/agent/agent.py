"""`Agent`: the door to both planners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avqa_llm.agent import rules
from avqa_llm.agent.bench import Bench
from avqa_llm.agent.report import Report, Step
from avqa_llm.agent.served import Budget, Planner
from avqa_llm.media import Clip


class Agent:
    """Answers questions about clips with an engine that watches and listens, and a planner."""

    def __init__(
        self, engine: Any, *, planner: Planner | None = None, speech: str | Path | None = None
    ) -> None:
        """Take an engine; `planner` None: rules plan. `speech`: a Whisper model or its folder."""
        self.engine, self.planner, self.speech = engine, planner, speech
        self._bench: Bench | None = None

    @classmethod
    def rules(cls, engine: Any, *, speech: str | Path | None = None) -> Agent:
        """An agent that plans by rules: the same question has the same steps."""
        return cls(engine, speech=speech)

    @classmethod
    def served(
        cls,
        engine: Any,
        *,
        base_url: str,
        llm: str,
        key: str = "",
        budget: Budget | None = None,
        speech: str | Path | None = None,
    ) -> Agent:
        """An agent whose plans a language model makes that can call tools.

        Args:
            engine: watches and listens.
            base_url: of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1. It gets
                questions and findings as text, never media.
            llm: name of the model there.
            key: of the server.
            budget: how much it may do.
            speech: a Whisper model, its name or folder, for `transcribe`.

        Raises:
            AgentError: langchain is not installed.
        """
        planner = Planner.connect(base_url, llm, key=key, budget=budget or Budget())
        return cls(engine, planner=planner, speech=speech)

    def run(self, clip: Clip, question: str) -> Iterator[Step | Report]:
        """The steps as they happen; the last item is the report.

        What the model read of a clip is kept for further questions about the same clip, so an
        agent belongs to one conversation: threads do not share one.

        Raises:
            AVQAError: the question is empty or too long, or the server does not answer.
        """
        if self._bench is None or self._bench.clip is not clip:
            self._bench = Bench(self.engine, clip, speech=self.speech)
        bench = self._bench
        bench.answers.clear()
        return (
            rules.run(bench, question)
            if self.planner is None
            else self.planner.run(bench, question)
        )
