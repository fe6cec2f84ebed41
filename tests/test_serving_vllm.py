"""A real vLLM gives the answers of `LocalEngine`, is hot-swapped, and survives being killed.

Needs an environment with vLLM: `make test-serve`, or AVQA_VLLM_PYTHON naming its interpreter.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AVQAError
from avqa_llm.model import AVQAModel
from avqa_llm.presets import PRESETS
from avqa_llm.remote import VLLMEngine
from avqa_llm.serving.contract import Done
from avqa_llm.serving.vllm_client import Wish
from avqa_llm.serving.vllm_process import VLLMProcess, VLLMSettings
from avqa_llm.session import Session
from tests.test_remote import ASKED, CHOICES, SAMPLES, same

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("AVQA_VLLM_PYTHON"),
        reason="`make test-serve` runs this; or set AVQA_VLLM_PYTHON to the interpreter of an"
        " environment with vLLM (`make serve-env`)",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]
TINY = PRESETS["tiny"]
ROUNDING = 0.1
"""Nats between vLLM's kernels and torch's, for an answer that is e^11 times less likely."""
CLIPS = ("duo.mp4", "trio.mp4", "offscreen.mp4")
NEW = 24


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMProcess]:
    log = tmp_path_factory.mktemp("vllm") / "log"
    settings = VLLMSettings.for_model(TINY, name="tiny", log=log, starts_within_s=1800)
    process = VLLMProcess(settings)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def here() -> LocalEngine:
    return LocalEngine.load("tiny")


@pytest.fixture
def there(server: VLLMProcess) -> VLLMEngine:
    return VLLMEngine.load("tiny", server.client, name="tiny")


@pytest.fixture(scope="module")
def prompts() -> list[Tensor]:
    """Words with soft tokens between them: vectors that are no word's."""
    words = AVQAModel.without_llm(TINY).llm.get_input_embeddings()
    torch.manual_seed(2)
    found = []
    for n in (7, 20, 45):
        ids = torch.randint(5, 1300, (n,))
        soft = words(torch.randint(5, 1300, (n // 2, 3))).mean(1)
        found.append(torch.cat([words(ids), soft, words(ids.flip(0))]).detach())
    return found


def peft(folder: Path | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(TINY / "llm", dtype=torch.float32)
    return (base if folder is None else PeftModel.from_pretrained(base, str(folder))).eval()


def written(model: Any, prompts: list[Tensor]) -> list[list[int]]:
    """What transformers and peft write."""
    return [
        model.generate(
            inputs_embeds=piece[None],
            attention_mask=torch.ones(1, len(piece), dtype=torch.long),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=10_000,  # none: never stop
        )[0].tolist()
        for piece in prompts
    ]


def asked(server: VLLMProcess, name: str, prompts: list[Tensor]) -> list[list[int]]:
    wishes = [Wish(model=name, embeds_LE=piece, most=NEW) for piece in prompts]
    return [list(one.ids) for one in server.client.complete_all(wishes)]


def test_base_and_adapter_write_the_ids_of_transformers_and_peft(
    server: VLLMProcess, prompts: list[Tensor]
) -> None:
    """All at the same time: on a processor the client keeps base and adapter apart."""
    plain, tuned = (written(peft(folder), prompts) for folder in (None, TINY))
    assert plain != tuned, "the adapter changes what is written"
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(asked, server, name, prompts) for name in ("base", "tiny") * 3]
        found = [job.result() for job in jobs]
    assert found == [plain, tuned] * 3


def test_answers_are_those_of_the_local_engine(here: LocalEngine, there: VLLMEngine) -> None:
    clips = [here.read(SAMPLES / name) for name in CLIPS]
    clips += [clips[0].muted(), clips[1].blanked()]
    rows = [(clip, question) for clip in range(len(clips)) for question in ASKED]
    choices = [CHOICES if n % 2 else () for n in range(len(rows))]
    for how in ({"evidence": True}, {"choices": choices}, {"open_ended": True}):
        expected = here.answer_many(clips, rows, **how)
        for mine, theirs in zip(there.answer_many(clips, rows, **how), expected, strict=True):
            same(mine, theirs, signs=ROUNDING)
    talks = [Session(engine, clips[0]) for engine in (there, here)]
    for question in ASKED:
        same(*(talk.ask(question) for talk in talks), signs=ROUNDING)


def test_an_open_answer_is_streamed(here: LocalEngine, there: VLLMEngine) -> None:
    clip = here.read(SAMPLES / CLIPS[0])
    (expected,) = here.answer(clip, ASKED[:1], open_ended=True)
    *deltas, done = there.stream(there.digest([there.encode(clip)]), ASKED[0], logprobs=2)
    assert isinstance(done, Done)
    assert "".join(delta.text for delta in deltas) == expected.answer == done.answer.answer
    assert all(len(token.top) >= 2 for delta in deltas for token in delta.tokens)


def test_a_second_question_finds_the_clip_in_the_prefix_cache(
    server: VLLMProcess, prompts: list[Tensor]
) -> None:
    prompt = torch.cat([prompts[2].flip(0), prompts[1]])
    for wish in (prompt, torch.cat([prompt, prompts[0]])):
        server.client.complete(Wish(model="tiny", embeds_LE=wish, most=1))
    reply = server.client._call("GET", "/metrics")
    hits = [line for line in reply.splitlines() if line.startswith("vllm:prefix_cache_hits_total")]
    assert float(hits[0].rsplit(" ", 1)[1]) > 0


def test_strangers_on_this_machine_are_refused(server: VLLMProcess) -> None:
    for path in ("/v1/models", "/invocations", "/metrics", "/tokenize"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.client.base_url}{path}", timeout=60)


def test_adapters_come_and_go(server: VLLMProcess, prompts: list[Tensor], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(TINY / "adapter_model.safetensors")
    other = {k: -v if "lora_B" in k else v for k, v in weights.items()}
    save_file(other, tmp_path / "adapter_model.safetensors")
    shutil.copy(TINY / "adapter_config.json", tmp_path)
    server.add_adapter("other", tmp_path)
    assert server.client.models() == ["base", "tiny", "other"]
    expected = written(peft(tmp_path), prompts)
    assert expected != written(peft(TINY), prompts)
    assert asked(server, "other", prompts) == expected
    server.remove_adapter("other")
    with pytest.raises(AVQAError, match="404"):
        asked(server, "other", prompts)


def test_killed_it_comes_back_with_the_same_answers(
    server: VLLMProcess, prompts: list[Tensor]
) -> None:
    before, pid = asked(server, "tiny", prompts), server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 1800
    while server.pid in (None, pid) or server.state != "ok":
        assert time.monotonic() < end, server.why
        time.sleep(0.5)
    assert asked(server, "tiny", prompts) == before
