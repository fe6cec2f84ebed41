"""Which engine a model's name means."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.engines import Engine
from eval.samples import RunError

SERVER, VLLM, AGENT = "openai:", "vllm:", "agent:"
ORACLE = "oracle"
"""Answers from the truth of a Bandstand set (`eval.engines.oracle`)."""
MODES = ("rank", "generate")
ENDS = 1 << 24
"""Bytes at either end of a file that its fingerprint reads."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine that is yet to be made; it travels to worker processes."""

    model: str
    """A preset or a model directory, either after `vllm:` or `agent:` too; `openai:NAME` for a
    model behind a server; or `oracle`."""
    mode: str = "rank"
    features: str | None = None
    """A folder of `avqa features`, from which a model here takes what its encoders would give."""
    base_url: str | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    """How it is asked: the keywords of `eval.engines.openai.OpenAI.connect`."""
    truth: tuple[str, str] | None = None
    """The benchmark and the question file that an oracle answers."""

    @property
    def served(self) -> bool:
        """Whether a server answers: then one process asks it, several questions at once."""
        return self.model.startswith(SERVER)

    @property
    def alone(self) -> bool:
        """Whether one process is to ask, because the work is done elsewhere."""
        return self.served or self.model.startswith(VLLM)

    def weights(self) -> str:
        """A fingerprint of a model's files: of the large ones, size, start and end count.

        Features count by how they are kept: those of 8 bits may give other answers.

        Empty for a model behind a server, which does not tell. Raises CheckpointError where
        there is no such model.
        """
        if self.served:
            return ""
        if self.model == ORACLE:
            rules = Path(__file__).with_name("oracle.py")
            return hashlib.sha256(rules.read_bytes()).hexdigest()[:16]
        from avqa_llm.presets import find_model

        digest = hashlib.sha256()
        folder = find_model(self.model.removeprefix(VLLM).removeprefix(AGENT))
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder)} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(ENDS))
                file.seek(max(0, size - ENDS))
                digest.update(file.read(ENDS))
        if self.features is not None:
            digest.update(_said_of(self.features))
        if self.model.startswith(AGENT):
            digest.update(_rules())
        return digest.hexdigest()[:16]

    def asked_as(self) -> dict[str, Any]:
        """What a server's answers depend on; not how fast, or with which key, it is asked."""
        names = ("frames", "max_side", "picture", "sound", "most_tokens")
        return {"base_url": self.base_url} | {name: self.server[name] for name in names}

    def load(self) -> Engine:
        """Make the engine.

        Raises:
            RunError: a server without an address, or one that is asked to rank; an oracle
                without questions.
            AnnotationError: of the oracle's question file.
            CheckpointError: there is no such model, or the features are of other encoders.
        """
        if self.model == ORACLE:
            return self._oracle()
        if self.model.startswith(VLLM):
            from eval.engines.vllm import VLLM as Served

            return Served.start(
                self.model.removeprefix(VLLM),
                mode=self.mode,
                features=self.features,
                base_url=self.base_url,
                key_env=self.server.get("key_env", ""),
            )
        if self.model.startswith(AGENT):
            from eval.engines.agent import RulesAgent

            name = self.model.removeprefix(AGENT)
            return RulesAgent.load(name, mode=self.mode, features=self.features)
        if not self.served:
            from eval.engines.local import Local

            return Local.load(self.model, mode=self.mode, features=self.features)
        if self.base_url is None:
            raise RunError(f"{self.model} needs --base-url, such as http://127.0.0.1:8000/v1")
        if self.mode != "generate":
            raise RunError(
                f"{self.model}: a server cannot rank the answers by likelihood: use --mode generate"
            )
        from eval.engines.openai import OpenAI

        name = self.model.removeprefix(SERVER)
        return OpenAI.connect(name, base_url=self.base_url, **self.server)

    def _oracle(self) -> Engine:
        from eval.benchmarks import read_benchmark
        from eval.engines.oracle import Oracle

        if self.truth is None:
            raise RunError(f"{self.model} answers the questions of `python -m eval run` only")
        benchmark, annotations = self.truth
        return Oracle(read_benchmark(benchmark, Path(annotations)))


def _rules() -> bytes:
    """The code that an agent's answers depend on besides the model."""
    from avqa_llm import acoustics, agent

    folders = [Path(str(package.__file__)).parent for package in (agent, acoustics)]
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py")))


def _said_of(features: str) -> bytes:
    path = Path(features) / "store.json"
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"--features {features}: {path} cannot be read ({error.strerror}); make them with"
            " `avqa features CLIPS --out DIR`"
        ) from error
