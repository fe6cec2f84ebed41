"""Omni bases: what enters the model, what is learned, what is kept, what comes out.

Legend: B clips, L tokens, V vocabulary, M learned tokens.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from avqa_llm.answer import Answer
from avqa_llm.asking import converse, measured
from avqa_llm.errors import AVQAError, CheckpointError, RecipeError
from avqa_llm.labels import LABELS
from avqa_llm.media.changes import Cut
from avqa_llm.omni.chat import NO_PICTURE, NO_SOUND, Chat
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.engine import OmniEngine
from avqa_llm.omni.inputs import Heard, OmniClip
from avqa_llm.omni.model import OmniModel
from avqa_llm.omni.stage import OmniBatches, OmniStage, OmniTraining, question_pieces
from avqa_llm.prompt import Turn, spoken
from avqa_llm.session import Session
from avqa_llm.training.loop import LoopConfig, fit
from avqa_llm.training.packing import IGNORE
from avqa_llm.training.recipe import build
from avqa_llm.training.rows import ClipRow, Question
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.omni_parts import (
    ASKED,
    END,
    KINDS,
    ask_pieces,
    clip_of,
    plain_inputs,
    small_config,
    small_model,
    small_tokenizer,
    told_apart,
    variants,
    write_base,
    write_settings,
)

RECIPE = Path(__file__).resolve().parent.parent / "adapters" / "recipes" / "omni-lora.yaml"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost miniatures more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(kind, tmp_path_factory.mktemp(kind) / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> OmniModel:
    return small_model(base)


# -- one pass ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_batches_equal_the_plain_model(model: OmniModel) -> None:
    """Joint, picture-only and sound-only clips, two questions each, in one packed batch."""
    clips = variants(model)
    pieces = [ask_pieces(model, "two", "acoustic_guitar") for _ in clips]
    batch = model.batch(clips, pieces)
    logits_MV, rows_M, places_M = model.logits(batch)
    at = 0
    for row, clip in enumerate(clips):
        for piece in pieces[row]:
            wanted = model.thinker(**plain_inputs(model, clip, piece.ids)).logits[0]
            n = sum(piece.learn)
            assert (rows_M[at : at + n] == row).all()
            torch.testing.assert_close(
                logits_MV[at : at + n], wanted[-n - 1 : -1], atol=2e-4, rtol=1e-4
            )
            at += n
    assert at == len(logits_MV)


# -- the sound enters --------------------------------------------------------------------------


@torch.inference_mode()
def test_sound_is_heard_and_outputs_swap_with_it(model: OmniModel) -> None:
    one, other = (model.prepare(clip_of(1, sound_of=n)) for n in (1, 2))
    assert torch.equal(one.picture.patches_PD, other.picture.patches_PD)  # type: ignore[arg-type]
    pieces = ask_pieces(model, "two")

    def logits(first: OmniClip, second: OmniClip) -> Tensor:
        batch = model.batch([first, second], [pieces, pieces])
        assert int((batch.packed.ids_BL == model.marks["audio"]).sum()) == one.sound.n * 2 > 0
        return model.logits(batch)[0].unflatten(0, (2, -1))

    straight = logits(one, other)
    assert (straight[0] - straight[1]).abs().max() > 0.01
    swapped = logits(replace(one, sound=other.sound), replace(other, sound=one.sound))
    torch.testing.assert_close(swapped, straight.flip(0), atol=1e-5, rtol=0)


def test_what_does_not_enter_is_an_error(model: OmniModel) -> None:
    clip = model.prepare(clip_of(1))
    batch = model.batch([clip], [ask_pieces(model, "two")])
    ids = batch.packed.ids_BL.clone()
    ids[0, (ids[0] == model.marks["audio"]).nonzero()[0]] = model.pad_id
    with pytest.raises(AVQAError, match="places for sound tokens"):
        model.embed(replace(batch, packed=replace(batch.packed, ids_BL=ids)))
    short = replace(clip, sound=Heard(mel_MF=clip.sound.mel_MF[:, :-40], n=clip.sound.n))  # type: ignore[index]
    broken = replace(batch, **{"mel_SMF": short.sound.mel_MF[None]})  # type: ignore[index]
    broken = replace(broken, heard_SF=torch.ones(1, broken.mel_SMF.shape[2]).long())  # type: ignore[union-attr]
    with pytest.raises(AVQAError, match="counts otherwise"):
        model.embed(broken)
    with pytest.raises(AVQAError, match="neither sound nor picture"):
        model.prepare(clip_of(1).muted().blanked())


# -- what is learned ---------------------------------------------------------------------------


def test_answers_and_their_ends_alone_are_learned(model: OmniModel) -> None:
    turns = (Turn(question="Where is the tuba?", answer="left"),)
    rows = [
        Question(question=ASKED, steps="", answer="more than ten", history=turns),
        Question(question=ASKED, steps="", answer="acoustic_guitar"),
    ]
    batch = model.batch(variants(model)[:1], [question_pieces(model.chat, rows)])
    packed, decode = batch.packed, model.chat.tokenizer.decode
    learned = packed.labels_BL != IGNORE
    assert (packed.labels_BL[learned] == packed.ids_BL[learned]).all()
    for block, row in enumerate(rows, start=1):
        own = packed.blocks_BL[0] == block
        assert decode(packed.ids_BL[0, own & learned[0]]) == spoken(row.answer) + END
        asked = decode(packed.ids_BL[0, own & ~learned[0]])
        assert asked.endswith(f"{ASKED}{END}\n<|im_start|>assistant\n")
        assert ("tuba?<|im_end|>\n<|im_start|>assistant\nleft<|im_end|>\n<|im_start|>user\n" in
                asked) == (block == 1)  # fmt: skip
    assert not learned[packed.blocks_BL == 0].any()


def test_the_text_says_what_is_missing(model: OmniModel) -> None:
    joint, deaf, blind = (model.chat.tokenizer.decode(model.prefix(c)) for c in variants(model))
    assert NO_SOUND not in joint and NO_PICTURE not in joint
    assert NO_SOUND in deaf and model.family.words[1] not in deaf
    assert NO_PICTURE in blind and model.family.words[4] not in blind


def test_a_chat_template_of_the_tokenizer_is_used() -> None:
    tokenizer = small_tokenizer(KINDS[0])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    )
    chat = Chat(tokenizer, instruction="Be brief.")
    ids = chat.prefix([], sound=True, picture=True) + chat.question("<|endoftext|>?")
    assert tokenizer.decode(ids) == (
        "<|im_start|>user: <|endoftext|>?\nBe brief.<|im_end|><|im_start|>assistant: "
    )
    end = tokenizer.eos_token_id
    assert ids.count(end) == 1 and tokenizer.pad_token_id not in ids  # typed words stay text
    assert chat.answer("two")[-1] == end
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(CheckpointError, match="no special word"):
        Chat(tokenizer)


# -- training, saving, loading, answering ------------------------------------------------------


def learn(model: OmniModel, *, steps: int = 24, checkpointing: bool = False) -> list[float]:
    stage = OmniStage(model, checkpointing=checkpointing).train()
    assert not model.thinker.model.visual.training
    weights = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-2)
    clips = [model.prepare(clip) for clip in told_apart()]
    batch = model.batch(clips, [ask_pieces(model, "two"), ask_pieces(model, "seven")])
    losses = []
    for _ in range(steps):
        loss = stage(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_train_save_load_answer(base: Path, tmp_path: Path, kind: str) -> None:
    import transformers
    from peft import PeftModel

    model = small_model(base)
    before = {k: p.clone() for k, p in model.named_parameters() if not p.requires_grad}
    losses = learn(model)
    assert losses[-1] < 0.3 * losses[0]
    names = {k for k, p in model.named_parameters() if p.requires_grad}
    assert names and all("model.language_model.layers." in k and "lora_" in k for k in names)
    assert any("mlp" in k for k in names) == (kind == KINDS[0])
    assert all(torch.equal(p, before[k]) for k, p in model.named_parameters() if k in before)

    model.save_pretrained(tmp_path)
    files = {"avqa.json", "adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == files
    row = json.loads((tmp_path / "avqa.json").read_text())
    assert (row["format"], row["kind"], row["base"], row["fps"]) == (1, "omni", str(base), 2.0)

    engine = OmniEngine.load(tmp_path, device="cpu")
    clips = told_apart()
    prepared = [engine.encode(clip) for clip in clips]
    batch = model.batch(prepared, [ask_pieces(model, "two"), ask_pieces(model, "seven")])
    with torch.inference_mode():
        wanted = model.eval().logits(batch)[0]
        assert torch.equal(engine.model.logits(batch)[0], wanted)
    answers = engine.answer_many(clips, [(1, f"{ASKED} 0"), (0, f"{ASKED} 0")])
    assert [one.label for one in answers] == ["seven", "two"]  # the sound alone tells them apart
    assert answers[0].probability is not None and answers[0].probability > 0.5

    thinker = getattr(transformers, model.family.model).from_pretrained(base)
    plain = PeftModel.from_pretrained(thinker, str(tmp_path)).eval()
    with torch.inference_mode():
        given = plain_inputs(model, prepared[0], ask_pieces(model, "two")[0].ids)
        torch.testing.assert_close(
            plain(**given).logits, model.llm(**given).logits, atol=0.0, rtol=0.0
        )


def test_checkpointing_changes_no_gradient(base: Path) -> None:
    plain, spared = small_model(base), small_model(base)
    assert learn(plain, steps=2) == pytest.approx(learn(spared, steps=2, checkpointing=True))


def test_a_whole_checkpoint_gives_its_thinker(base: Path, kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    weights = {f"thinker.{k}": v for k, v in load_file(whole / "model.safetensors").items()}
    weights |= {"talker.model.embed_tokens.weight": torch.ones(3, 3), "token2wav.x": torch.ones(2)}
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    thinker = json.loads((whole / "config.json").read_text())
    row = {"model_type": kind.removesuffix("_thinker"), "thinker_config": thinker}
    (whole / "config.json").write_text(json.dumps(row))
    own, part = (small_model_of(path, kind).thinker.state_dict() for path in (whole, base))
    assert own.keys() == part.keys() and all(torch.equal(own[k], part[k]) for k in own)


def small_model_of(base: Path, kind: str) -> OmniModel:
    return OmniModel.fresh(OmniConfig(**small_config(kind, base)), base)


def test_what_does_not_fit_is_refused(base: Path, kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights.pop(next(k for k in weights if "q_proj" in k and "audio" not in k))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights"):
        small_model_of(broken, kind)
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="would be a guess"):
        small_model_of(broken, kind)
    other = KINDS[1 - KINDS.index(kind)]
    small_tokenizer(other).save_pretrained(broken)
    shutil.copy(base / "model.safetensors", broken)
    write_settings(kind, broken)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        small_model_of(broken, kind)
    (broken / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="omni bases are"):
        small_model_of(broken, kind)
    (tmp_path / "avqa.json").write_text('{"format": 1, "kind": "omni", "base": "x", "colour": 3}')
    with pytest.raises(CheckpointError, match="colour"):
        OmniModel.from_pretrained(tmp_path)


# -- the engine --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(model: OmniModel) -> OmniEngine:
    return OmniEngine(model)


def test_closed_answers_are_rated_as_a_plain_pass_would(
    engine: OmniEngine, model: OmniModel
) -> None:
    clip = clip_of(4)
    given, plain = engine.answer_many(
        [clip], [(0, ASKED), (0, "Where?")], choices=[("two", "two tubas", "no"), ()]
    )
    sums = []
    for choice in ("two", "two tubas", "no"):
        piece = question_pieces(model.chat, [Question(question=ASKED, steps="", answer=choice)])[0]
        batch = model.batch([model.prepare(clip)], [[piece]])
        with torch.inference_mode():
            logits = model.logits(batch)[0].log_softmax(-1)
        wanted = torch.tensor(model.chat.answer(choice))
        sums.append(logits.gather(1, wanted[:, None]).sum())
    likely = torch.stack(sums).softmax(0)
    assert given.label == ("two", "two tubas", "no")[int(likely.argmax())]
    assert given.probability == pytest.approx(float(likely.max()), abs=1e-3)
    assert len(given.alternatives) == 2 and plain.label in LABELS and len(plain.alternatives) == 3
    assert given.consumed is not None and given.consumed.sound_tokens == engine.encode(clip).sound.n


def test_free_text_is_that_of_generate(engine: OmniEngine, model: OmniModel) -> None:
    clip = clip_of(5)
    prepared = model.prepare(clip)
    given = plain_inputs(model, prepared, model.chat.question(ASKED))
    with torch.inference_mode():
        out = model.llm.generate(**given, max_new_tokens=12, do_sample=False)
    wanted = out[0, given["input_ids"].shape[1] :]
    from avqa_llm.omni.reading import read_prefix, write

    read = read_prefix(model, prepared)
    for _ in range(2):  # the first leaves nothing behind
        ids, _ = write(model, read, model.chat.question(ASKED), 12)
        assert ids == [i for i in wanted.tolist() if i != model.chat.end[0]]
    (answer,) = engine.answer(clip, [ASKED], open_ended=True)
    assert answer.alternatives == () and answer.consumed is not None


def test_a_conversation_and_what_is_missing(engine: OmniEngine) -> None:
    session = Session(engine, clip_of(6).muted())  # type: ignore[arg-type]
    first = session.ask(ASKED)
    assert first.consumed is not None
    assert not first.consumed.sound and first.consumed.sound_tokens == 0
    assert first.consumed.picture_tokens > 0 and "no sound to hear" in first.warnings[0]
    session.ask("And where?")
    assert [turn.question for turn in session.turns] == [ASKED, "And where?"]
    (long,) = engine.answer(clip_of(6, 12), [ASKED])
    assert any("lasts 12.0 s" in warning for warning in long.warnings)


def test_measured_facts_stand_before_the_first_question(engine: OmniEngine) -> None:
    clip = clip_of(6)
    facts = measured(engine, clip, "omni")
    assert facts.startswith("Measured from the sound") and "LUFS" in facts
    told, again = converse(
        engine,  # type: ignore[arg-type]
        clip,
        [ASKED, "And where?"],
        facts=facts,
        open_ended=False,
        times={},
    )
    (same,) = engine.answer(clip, [f"{facts}\n{ASKED}"])
    (untold,) = engine.answer(clip, [ASKED])
    assert told.label == same.label and told.probability == same.probability
    assert told.probability != untold.probability
    (later,) = engine.answer(clip, ["And where?"], history=[turn_of(f"{facts}\n{ASKED}", told)])
    assert again.probability == later.probability
    assert "no sound track" in measured(engine, clip.muted(), "omni")


def turn_of(question: str, answer: Answer) -> Turn:
    return Turn(question=question, answer=answer.answer)


# -- rows and media ----------------------------------------------------------------------------


def test_batches_from_files(model: OmniModel, base: Path, kind: str, tmp_path: Path) -> None:
    make_media(tmp_path / "a.mp4", Picture(times_s=at_rate(5, 3)), Sound(seconds=3.0))
    cuts = (Cut(), Cut(sound=False), Cut(picture=False), Cut(start_s=1.0, end_s=2.0))
    asked = tuple(Question(question=f"Q{n}?", steps="", answer="yes") for n in range(3))
    rows = [
        ClipRow(
            video_id="a", media="a.mp4", cut=cut, questions=asked,
            record="", record_without_sound="", record_without_picture="",
        )
        for cut in cuts
    ]  # fmt: skip
    config = OmniTraining(
        **small_config(kind), rows="r", questions=2,
        loop=LoopConfig(steps=2, batch=4, parts=2, lr=1e-3, log_every=1, precision="fp32"),
    )  # fmt: skip
    batches = OmniBatches(rows, tmp_path, model, config)
    whole = batches.batch_at(0, 0, 1)
    again = batches.batch_at(0, 0, 1)
    assert torch.equal(whole.packed.ids_BL, again.packed.ids_BL)
    heard, seen = whole.sounds_B.tolist(), whole.pictures_B.tolist()
    assert sorted(heard)[0] == 0 and sorted(seen)[0] == 0 and len(set(heard)) == 3
    parts = [batches.batch_at(0, part, 2) for part in (0, 1)]
    assert [n for p in zip(*(p.sounds_B.tolist() for p in parts), strict=True) for n in p] == heard
    assert whole.packed.n_blocks == 3  # the prefix and two questions
    learner = OmniStage(small_model(base))
    fit("omni", learner, batches.batch_at, config.loop, folder=tmp_path, resume=False)
    figures = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert figures[-1]["step"] == 2 and 0 < figures[-1]["loss"] < 20
    with pytest.raises(AVQAError, match="b.mp4"):
        OmniBatches([replace(rows[0], media="b.mp4")], tmp_path, model, config)


# -- configuration -----------------------------------------------------------------------------


def test_the_recipe_is_read_whole() -> None:
    row = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    config = build(OmniTraining, row["omni"], "omni-lora.yaml: omni")
    assert config.base == "Qwen/Qwen2.5-Omni-7B" and len(config.revision) == 40
    assert config.rank >= 64 and config.model() == OmniConfig(**config.model().__dict__)


def test_values_that_cannot_work() -> None:
    with pytest.raises(RecipeError, match="fps is 0"):
        OmniConfig(base="x", fps=0)
    with pytest.raises(RecipeError, match="at least min_pixels"):
        OmniConfig(base="x", max_pixels=100)


def test_the_configuration_imports_nothing_heavy() -> None:
    code = "import sys, avqa_llm.omni.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
