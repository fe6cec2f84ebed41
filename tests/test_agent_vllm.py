"""A language model in a real vLLM plans: its calls and its answer are held to their shapes.

The model is random, so it plans badly; that calls arrive whole, refusals go back, budgets end it
and the answer has its shape is the same as with a good one. Needs an environment with vLLM: `make
test-serve`, or AVQA_VLLM_PYTHON naming its interpreter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("langchain_openai")

from langchain_openai import ChatOpenAI

from avqa_llm.agent.bench import Bench
from avqa_llm.agent.report import Report
from avqa_llm.agent.served import Budget, Planner
from avqa_llm.asking import SAMPLES
from avqa_llm.engine import LocalEngine
from avqa_llm.serving.vllm_process import VLLMProcess, VLLMSettings

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("AVQA_VLLM_PYTHON"),
        reason="`make test-serve` runs this; or set AVQA_VLLM_PYTHON to the interpreter of an"
        " environment with vLLM (`make serve-env`)",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]
COMPACT = {"backend": "xgrammar", "disable_any_whitespace": True}
KEY, LENGTH = "a key of this test alone", 16_384
TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}\n{% endfor %}assistant: "
)


def random_planner(folder: Path) -> Path:
    """A Llama of two layers with random weights that reads and writes single bytes."""
    import transformers as t
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", bos_token="<s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = t.LlamaConfig(
        vocab_size=len(tokenizer),
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **shape,
    )
    t.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMProcess]:
    before = os.environ.get("AVQA_VLLM_KEY")
    os.environ["AVQA_VLLM_KEY"] = KEY
    folder = tmp_path_factory.mktemp("planner")
    settings = VLLMSettings(
        base=str(random_planner(folder / "model")),
        base_name="planner",
        native=True,
        max_model_len=LENGTH,
        # Without white space, which a random model would write until it is cut off.
        more=(
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--structured-outputs-config", json.dumps(COMPACT)),
        ),
        log=folder / "log",
        starts_within_s=1800,
    )
    process = VLLMProcess(settings)
    process.start()
    yield process
    process.stop()
    if before is None:
        del os.environ["AVQA_VLLM_KEY"]
    else:
        os.environ["AVQA_VLLM_KEY"] = before


def blanks(server: VLLMProcess) -> dict[str, int]:
    """A bias against white space, which may else be a random model's likeliest token for ever."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(server.settings.base)
    return {str(words.convert_tokens_to_ids(token)): -100 for token in "ĠĊĉč"}


class Forced(ChatOpenAI):
    """Every reply has to call this tool, whose strict schema lets it take nothing."""

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        forced = {"tool_choice": "describe_clip", "strict": True}
        return super().bind_tools(tools, **{**more, **forced})


def test_forced_calls_arrive_are_carried_out_and_end_with_the_budget(server: VLLMProcess) -> None:
    model = Forced(
        base_url=f"http://127.0.0.1:{server.port}/v1",
        model="planner",
        api_key=KEY,  # type: ignore[arg-type]
        temperature=0,
        logit_bias=blanks(server),
        max_tokens=1200,
        timeout=600,
    )
    engine = LocalEngine.load("tiny")
    bench = Bench(engine, engine.read(SAMPLES / "duo.mp4"))
    planner = Planner(model, "planner", Budget(calls=3, seconds=1200))
    *steps, report = planner.run(bench, "Is the violin louder than the guzheng?")
    assert isinstance(report, Report) and report.steps == tuple(steps)
    assert [step.tool for step in report.steps[:3]] == ["describe_clip"] * 3
    assert [step.failed for step in report.steps[:3]] == [False, False, True]
    assert report.extra["ended"] in ("budget", "unreadable")  # a random text may not end in time
    assert report.answer.answer
