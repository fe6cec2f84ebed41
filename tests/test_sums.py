"""The text stage's second stretch: clues that are sums of words, and what is learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from avqa_llm.prompt import CLUE, Prompt, spoken
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.packing import IGNORE
from avqa_llm.training.rows import ClipRow, Question, drawn, read_rows
from avqa_llm.training.sums import SCALES, Summed, SumsConfig, sum_batch
from avqa_llm.training.text import TextConfig, build_tokenizer, train_text
from instruct_data.bandstand.write import SetConfig, write_set

LOOP = LoopConfig(steps=2, batch=3, lr=1e-2, warmup=0, precision="fp32")
SUMS = SumsConfig(loop=LOOP, clues=4, questions=2)
CONFIG = TextConfig(
    rows="few/instruct.jsonl", loop=LOOP, vocab_size=900, hidden=32, layers=1, heads=2,
    intermediate=32, questions=2, length=320, sums=SUMS,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "few", SetConfig(clips=8, seed=3, media="none"))
    return folder


@pytest.fixture(scope="module")
def rows(data: Path) -> list[ClipRow]:
    return read_rows(data / CONFIG.rows)


@pytest.fixture(scope="module")
def summed(rows: list[ClipRow]) -> Summed:
    tokenizer = build_tokenizer(rows, CONFIG.vocab_size)
    words = torch.randn(len(tokenizer), 192, generator=torch.Generator().manual_seed(0))
    return Summed(words, Prompt(tokenizer), smeared=0.0)


def nearest(summed: Summed, clue_E: torch.Tensor, count: int) -> set[int]:
    unit = functional.normalize(clue_E - summed.mean_E, dim=-1)
    return set((summed.unit_VE @ unit).topk(count).indices.tolist())


def test_a_clue_lies_nearest_to_the_words_of_its_event(summed: Summed) -> None:
    events = ["violin left s3 e9 n6 l2 r1", "piano off s0 e20 n20 l4 r0"]
    heard, seen = summed.clues(events, 3, np.random.default_rng(0)).split(3)
    for event, clue in zip(events, heard, strict=False):
        words = set(summed.prompt.text(spoken(event)))
        assert nearest(summed, clue, len(words)) == words
    assert nearest(summed, seen[0], 2) == set(summed.prompt.text("violin left"))
    words = set(summed.prompt.text("piano off"))
    assert not words & nearest(summed, seen[1], 2), "who is off the picture is not seen"
    assert summed.clues([*events, *events], 3, np.random.default_rng(0)).shape[0] == 6


def test_smeared_numbers_stand_between_neighbours(summed: Summed) -> None:
    smearing = Summed(summed.unit_VE, summed.prompt, smeared=1.0)
    beside = {tuple(sorted(words)) for words in smearing.beside.values()}
    ends = [words for words in beside if len(words) == 1]
    assert len(smearing.beside) == sum(SCALES.values()) and len(ends) == 2 * len(SCALES)

    def likeness(maker: Summed) -> torch.Tensor:
        rng = np.random.default_rng(1)
        clues = torch.stack([maker.clues(["violin left s3"], 1, rng)[0] for _ in range(100)])
        unit = functional.normalize(clues - maker.mean_E, dim=-1)
        return (unit @ maker.unit_VE.T).mean(0)

    plain = Summed(summed.unit_VE, summed.prompt, smeared=0.0)
    more = likeness(smearing) - likeness(plain)
    ids = {n: summed.prompt.text(f"s{n}")[0] for n in range(21)}
    others = max(float(more[ids[n]]) for n in range(21) if n not in (2, 4))
    assert min(float(more[ids[n]]) for n in (2, 4)) > 0.03 > others and more[ids[3]] < -0.03


def test_what_no_clue_holds_is_given_and_the_events_are_learned(
    summed: Summed, rows: list[ClipRow]
) -> None:
    batch = sum_batch(summed.prompt, summed, rows[:1], CONFIG, SUMS, np.random.default_rng(0))
    assert int((batch.packed.ids_BL == CLUE).sum()) == 8 == batch.soft_BNE.shape[1]
    place, voice, *events = rows[0].record.split(" ; ")
    ids = batch.packed.ids_BL[0].tolist()
    record = summed.prompt.record(rows[0].record)
    at = next(n for n in range(len(ids)) if ids[n : n + len(record)] == record)
    labels = batch.packed.labels_BL[0, at : at + len(record)].tolist()
    given = len(summed.prompt.text(spoken(f"{place} ; {voice} ;")))
    learned = [label != IGNORE for label in labels]
    assert events and learned == [False] * given + [True] * (len(record) - given)


def test_words_of_records_stay_where_they_are(data: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = read_rows(data / CONFIG.rows)
    table = {}
    for name, sums in (("text", None), ("sums", SUMS)):
        config = TextConfig(**{**vars(CONFIG), "sums": sums})
        folder = train_text(config, data=data, folder=tmp_path / name, resume=False)
        model = AutoModelForCausalLM.from_pretrained(folder)
        table[name] = model.get_input_embeddings().weight.detach()
    prompt = Prompt(AutoTokenizer.from_pretrained(folder))
    kept = sorted({word for row in rows for word in prompt.text(spoken(row.record))})
    assert torch.equal(table["text"][kept], table["sums"][kept])
    assert not torch.equal(table["text"], table["sums"])


def test_questions_of_favoured_templates_come_more_often() -> None:
    templates = ("Is the <Object> louder than the <Object>?", "Where is the performance?", "Other")
    asked = [Question(question=t, steps="", answer="", template=t) for t in templates]
    rng = np.random.default_rng(0)
    favour = {"louder": 6.0, "Where is": 0.0}
    first = [drawn(asked, 1, favour, rng)[0].template for _ in range(300)]
    assert first.count(templates[1]) == 0
    assert 4 < first.count(templates[0]) / first.count("Other") < 9
    assert {q.template for q in drawn(asked, 3, favour, rng)} == {templates[0], "Other"}
    assert len(drawn(asked, 5, {}, rng)) == 3 and drawn([], 2, favour, rng) == []
