"""Bridges by recipe: each connector with each fusion keeps the same promises.

Legend: B clips, N tokens, D features, T time steps, R rows, C columns, Q timeline tokens.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avqa_llm.bridge import Bridge, BridgeConfig, ClipKeys
from avqa_llm.connectors import CONNECTORS, Layout
from avqa_llm.encoders import Tokens
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import RecipeError
from avqa_llm.model import AVQAModel, ModelConfig, read_config
from avqa_llm.presets import find_model
from avqa_llm.tokenbatch import TokenBatch
from tests import model_parts
from tests.model_parts import QUESTIONS, small_clip, stir, write_parts

SOUND_IN, PICTURE_IN, LLM = 12, 20, 24
GRID, RATE = (3, 4), 6.0
FUSED = [("concatenate", "after"), *((f, o) for f in ("sum", "cross") for o in ("before", "after"))]
VARIANTS = [(connector, *fused) for connector in CONNECTORS for fused in FUSED]
SEEN, CLOSE = 1e-4, {"atol": 1e-5, "rtol": 1e-5}

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids="-".join)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """What is this small is only slowed down by sharing it out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def config_of(variant: tuple[str, str, str], **more: object) -> BridgeConfig:
    names = dict(zip(("connector", "fusion", "fusion_order"), variant, strict=True))
    return BridgeConfig(width=32, heads=2, clue_layers=2, clues=3, **names, **more)


def bridge_of(config: BridgeConfig, *, stirred: bool = True) -> Bridge:
    """A bridge whose gates are open, unless it is to be as it starts."""
    torch.manual_seed(0)
    layouts = {"sound_layout": Layout(rate=RATE), "picture_layout": Layout(rate=1.0, grid=GRID)}
    bridge = Bridge(config, sound_in=SOUND_IN, picture_in=PICTURE_IN, llm_width=LLM, **layouts)
    bridge.fit_words(torch.randn(50, LLM, generator=torch.Generator().manual_seed(1)))
    if stirred:
        with torch.no_grad():
            for parameter in bridge.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return bridge.eval()


def sound_of(seconds: int, seed: int) -> Tokens:
    n, rng = int(seconds * RATE), torch.Generator().manual_seed(seed)
    values = torch.randn(n, SOUND_IN, generator=rng)
    times = (torch.arange(n) + 0.5) / RATE
    return Tokens(values_ND=values, times_N=times, places_N2=torch.zeros(n, 2), length_s=1 / RATE)


def picture_of(seconds: int, seed: int) -> Tokens:
    (rows, columns), rng = GRID, torch.Generator().manual_seed(seed + 100)
    times = (torch.arange(seconds) + 0.6).repeat_interleave(rows * columns)
    x = ((torch.arange(columns) + 0.5) / columns).expand(rows, columns)
    y = ((torch.arange(rows) + 0.5) / rows)[:, None].expand(rows, columns)
    places = torch.stack([x, y], -1).flatten(0, 1).repeat(seconds, 1)
    values = torch.randn(len(times), PICTURE_IN, generator=rng)
    return Tokens(values_ND=values, times_N=times, places_N2=places, length_s=1.0)


Clip = tuple[Tokens, Tokens, int]
SHORT: Clip = (sound_of(3, 0), picture_of(3, 0), 3)
LONG: Clip = (sound_of(5, 1), picture_of(5, 1), 5)
DEAF: Clip = (Tokens.none(SOUND_IN), *SHORT[1:])
BLIND: Clip = (SHORT[0], Tokens.none(PICTURE_IN), 3)


def keys_of(bridge: Bridge, *clips: Clip) -> ClipKeys:
    sound, picture = (TokenBatch.of([clip[side] for clip in clips]) for side in (0, 1))
    return bridge(sound, picture, torch.tensor([clip[2] for clip in clips]))


def asked(bridge: Bridge, keys: ClipKeys, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Soft clues, and their attention to sound and to picture."""
    words = torch.randn(1, 7, LLM, generator=torch.Generator().manual_seed(seed))
    n = len(keys.sound_BQE)
    soft, clues = bridge.clues(keys, words.expand(n, -1, -1), torch.ones(n, 7, dtype=torch.bool))
    return soft, clues.sound_weights_BN, clues.picture_weights_BN


def lines(keys: ClipKeys, n: int = 0) -> list[Tensor]:
    """Both timelines of one clip, as far as they exist."""
    return [
        keys.sound_BQE[n][keys.sound_there_BQ[n]],
        keys.picture_BQE[n][keys.picture_there_BQ[n]],
    ]


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


# --- what every bridge promises -------------------------------------------------------------


@every_variant
def test_as_many_places_as_the_prompt_counts_on(variant: tuple[str, str, str]) -> None:
    bridge = bridge_of(config_of(variant))
    keys = keys_of(bridge, SHORT, LONG, DEAF, BLIND)
    assert keys.sound_BQE.shape == (4, 5 * 2, LLM)
    assert keys.picture_BQE.shape == (4, 5 * 4, LLM)
    assert keys.sound_there_BQ.sum(1).tolist() == [6, 10, 0, 6]
    assert keys.picture_there_BQ.sum(1).tolist() == [12, 20, 12, 0]
    assert asked(bridge, keys)[0].shape == (4, 6, LLM)
    assert torch.isfinite(keys.sound_BQE).all() and torch.isfinite(keys.picture_BQE).all()


@every_variant
def test_padding_changes_nothing(variant: tuple[str, str, str]) -> None:
    bridge = bridge_of(config_of(variant))
    clips = (SHORT, LONG, DEAF, BLIND)
    together = keys_of(bridge, *clips)
    for n, clip in enumerate(clips):
        for one, other in zip(lines(together, n), lines(keys_of(bridge, clip)), strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


@every_variant
def test_the_order_of_time_matters(variant: tuple[str, str, str]) -> None:
    bridge = bridge_of(config_of(variant))
    sound, picture, seconds = SHORT
    per_frame = GRID[0] * GRID[1]
    frames = picture.values_ND.unflatten(0, (-1, per_frame)).flip(0).flatten(0, 1)
    turned = (
        replace(sound, values_ND=sound.values_ND.flip(0)),
        replace(picture, values_ND=frames),
        seconds,
    )
    before, after = lines(keys_of(bridge, SHORT)), lines(keys_of(bridge, turned))
    for one, other in zip(before, after, strict=True):
        assert apart(one, other) > SEEN
        assert apart(one, other.flip(0)) > SEEN


@every_variant
def test_each_timeline_is_its_own_modality_and_what_the_fusion_adds(
    variant: tuple[str, str, str],
) -> None:
    bridge, plain = bridge_of(config_of(variant)), bridge_of(config_of((variant[0], *FUSED[0])))
    plain.load_state_dict(bridge.state_dict(), strict=False)
    together, alone = lines(keys_of(bridge, SHORT)), lines(keys_of(plain, SHORT))
    changed = (sound_of(3, 7), *SHORT[1:])
    other = lines(keys_of(bridge, changed))
    assert apart(together[0], other[0]) > SEEN, "the sound's timeline does not hear the sound"
    fused = variant[1] != "concatenate"
    for one, same in zip(together, alone, strict=True):
        assert (apart(one, same) > SEEN) == fused
    assert (apart(together[1], other[1]) > SEEN) == fused
    missing = zip(
        (lines(keys_of(bridge, DEAF)), lines(keys_of(bridge, BLIND))),
        (lines(keys_of(plain, DEAF)), lines(keys_of(plain, BLIND))),
        strict=True,
    )
    for ours, theirs in missing:
        assert [len(line) for line in ours] == [len(line) for line in theirs]
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@torch.enable_grad()
@every_variant
def test_every_parameter_learns(variant: tuple[str, str, str]) -> None:
    bridge = bridge_of(config_of(variant))
    keys = keys_of(bridge, SHORT, LONG)
    loss = sum((part * torch.randn_like(part)).sum() for part in (*lines(keys), *lines(keys, 1)))
    (loss + asked(bridge, keys)[0].square().sum()).backward()
    still = [k for k, p in bridge.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not feel a constant added to all its scores.
    assert [k for k in still if not k.endswith("key.bias")] == []


def test_the_projector_is_without_any_attention() -> None:
    bridge = bridge_of(config_of(("projector", *FUSED[0]), reader_layers=2))
    timeline = (
        bridge.read_sound,
        bridge.qformer_sound,
        bridge.read_picture,
        bridge.qformer_picture,
    )
    assert not [k for part in timeline for k, _ in part.named_modules() if "attention" in k]
    changed = sound_of(3, 0)
    changed.values_ND[:3] *= torch.linspace(-1, 1, SOUND_IN)
    one, other = lines(keys_of(bridge, SHORT))[0], lines(keys_of(bridge, (changed, *SHORT[1:])))[0]
    assert apart(one[:1], other[:1]) > SEEN and apart(one[1:], other[1:]) < 1e-6


def test_a_cross_fusion_starts_closed_and_only_its_gates_learn_at_first() -> None:
    for order in ("before", "after"):
        bridge = bridge_of(config_of(("qformer", "cross", order)), stirred=False)
        plain = bridge_of(config_of(VARIANTS[0]), stirred=False)
        ours, theirs = lines(keys_of(bridge, SHORT)), lines(keys_of(plain, SHORT))
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
        with torch.enable_grad():
            sum(
                (line * torch.randn_like(line)).sum() for line in lines(keys_of(bridge, SHORT))
            ).backward()
        grads = {k: bool(p.grad.any()) for k, p in bridge.fusion.named_parameters()}
        assert {k for k, some in grads.items() if some} == {
            "into_sound.gates",
            "into_picture.gates",
        }


# --- whole models ---------------------------------------------------------------------------


Parts = tuple[Path, ModelConfig]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    return folder, write_parts(folder, "llama-vit-vit")


def fresh(parts: Parts, folder: Path, bridge: BridgeConfig, **more: bool) -> AVQAModel:
    """A model directory with that bridge around the same frozen parts."""
    for part in ("picture", "sound", "llm"):
        (folder / part).symlink_to(parts[0] / part)
    model = AVQAModel.fresh(replace(parts[1], bridge=bridge, **more), folder, seed=1).eval()
    stir(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v[2] == "after"], ids="-".join)
def test_a_saved_bridge_comes_back_bit_for_bit(
    variant: tuple[str, str, str], parts: Parts, tmp_path: Path
) -> None:
    model = fresh(parts, tmp_path, config_of(variant))
    again = AVQAModel.from_pretrained(tmp_path)
    assert again.config.bridge == model.config.bridge
    tokens, question = model.encode(small_clip(0)), [model.prompt.text(QUESTIONS[0])]
    answers = []
    for one in (model, again):
        keys = one.keys([tokens])
        answers.append((*lines(keys), one.clues(keys, question)[0]))
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True))


def test_without_clue_stage_the_engine_answers_and_cites_nothing(
    parts: Parts, tmp_path: Path
) -> None:
    bridge = replace(config_of(VARIANTS[0]), clues=0)
    model = fresh(parts, tmp_path, bridge, records=False)
    assert not [key for key in model.bridge.state_dict() if "clue" in key or "aggregator" in key]
    clips = [small_clip(0), small_clip(1).muted(), small_clip(2, 5).blanked()]
    tokens = [model.encode(clip) for clip in clips]
    soft, exists, clues = model.clues(model.keys(tokens), [[5, 6], [7], [8]])
    assert soft.shape == (3, 0, model_parts.HIDDEN) and exists.shape == (3, 0)
    assert clues.sound_weights_BN.shape == (3, max(t.sound.n for t in tokens))
    assert not clues.sound_weights_BN.any() and not clues.picture_weights_BN.any()
    rows = [(0, QUESTIONS[0]), (1, QUESTIONS[0]), (2, QUESTIONS[1]), (0, QUESTIONS[1])]
    answers = LocalEngine(model).answer_many(clips, rows, evidence=True)
    assert all(answer.answer and answer.evidence == () for answer in answers)
    assert [answer.consumed.sound for answer in answers] == [True, False, True, True]


def test_clues_that_do_not_hear_the_question_do_not_change_with_it() -> None:
    for ask in (True, False):
        bridge = bridge_of(config_of(VARIANTS[0], ask=ask))
        keys = keys_of(bridge, SHORT)
        one, other = (asked(bridge, keys, seed)[0] for seed in (5, 6))
        assert (apart(one, other) > SEEN) == ask
        changed = asked(bridge, keys_of(bridge, (sound_of(3, 7), *SHORT[1:])))[0]
        assert apart(one, changed) > SEEN
        assert float(asked(bridge, keys)[1].sum()) == pytest.approx(1.0, abs=1e-4)


@torch.enable_grad()
def test_without_the_question_all_that_is_left_learns() -> None:
    bridge = bridge_of(config_of(VARIANTS[0], ask=False))
    asked(bridge, keys_of(bridge, SHORT))[0].square().sum().backward()
    clue = [(k, p) for k, p in bridge.named_parameters() if k.startswith("aggregator")]
    still = [k for k, p in clue if p.grad is None or not p.grad.any()]
    assert [k for k in still if not k.endswith("key.bias")] == []
    assert not [k for k, _ in clue if "word" in k]


def test_the_shipped_bridge_is_what_it_was() -> None:
    config = read_config(find_model("tiny")).bridge
    assert (config.connector, config.fusion, config.ask) == ("qformer", "concatenate", True)
    torch.manual_seed(0)
    bridge = Bridge(config, sound_in=8, picture_in=8, llm_width=8)
    assert sorted({key.split(".")[0] for key in bridge.state_dict()}) == [
        *("aggregator", "gain", "out", "qformer_picture", "qformer_sound"),
        *("read_picture", "read_sound", "word_mean", "word_std"),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"connector": "qformr"}, "connector 'qformr': choose one of qformer, projector"),
        ({"fusion": "add"}, "fusion 'add': choose one of concatenate, sum, cross"),
        ({"fusion": "sum", "fusion_order": "first"}, "fusion_order 'first'"),
        ({"fusion_order": "before"}, "needs fusion 'sum' or 'cross'"),
        ({"clues": -1}, "clues -1: at least 0"),
        ({"clue_layers": 0}, "clue_layers 0: at least 1"),
        ({"sound_per_second": 0}, "sound_per_second 0: at least 1"),
    ],
)
def test_bridges_that_cannot_be_are_refused(values: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        BridgeConfig(**values)
    assert BridgeConfig(clues=0, clue_layers=0).clues == 0


# --- where and how it runs ------------------------------------------------------------------


@every_variant
def test_nothing_is_made_on_another_device(variant: tuple[str, str, str]) -> None:
    """A tensor made without naming its device would land on the default device here."""
    bridge = bridge_of(config_of(variant))
    sound, picture = (TokenBatch.of([clip[side] for clip in (SHORT, DEAF)]) for side in (0, 1))
    seconds, words = torch.tensor([3, 3]), torch.randn(2, 5, LLM)
    there = torch.ones(2, 5, dtype=torch.bool)
    with torch.device("meta"):
        keys = bridge(sound, picture, seconds)
        soft, clues = bridge.clues(keys, words, there)
    made = (keys.sound_BQE, keys.picture_BQE, keys.sound_there_BQ, soft, clues.sound_weights_BN)
    assert {tensor.device.type for tensor in made} == {"cpu"}
    assert torch.isfinite(soft).all()


def test_no_clues_are_made_where_the_keys_are() -> None:
    bridge = bridge_of(replace(config_of(VARIANTS[0]), clues=0))
    keys, words = keys_of(bridge, SHORT), torch.randn(1, 5, LLM)
    with torch.device("meta"):
        soft, clues = bridge.clues(keys, words, torch.ones(1, 5, dtype=torch.bool, device="cpu"))
    assert {t.device.type for t in (soft, clues.sound_BCD, clues.picture_weights_BN)} == {"cpu"}


LOW = """
import torch
from tests.test_bridges import CONNECTORS, SHORT, DEAF, asked, bridge_of, config_of, keys_of, lines
for variant in [*((c, "cross", "after") for c in CONNECTORS), ("stc", "sum", "before")]:
    bridge = bridge_of(config_of(variant))
    whole = keys_of(bridge, SHORT, DEAF)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = keys_of(bridge, SHORT, DEAF)
        soft = asked(bridge, low)[0]
    (sum(line.square().sum() for line in lines(low)) + soft.square().sum()).backward()
    for one, other in zip(lines(whole), lines(low)):
        assert other.dtype == torch.float32
        off = (one - other).norm() / one.norm()
        assert off < 0.06, (variant, float(off))
print("ok")
"""


def test_half_precision_is_near_whole_precision() -> None:
    """In a process of its own: there are virtual machines on which AMX products kill it."""
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", LOW], env=env, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_compiled_parts_give_the_same() -> None:
    bridge = bridge_of(config_of(VARIANTS[0]))
    plain, soft = keys_of(bridge, SHORT), asked(bridge, keys_of(bridge, SHORT))[0]
    assert len(bridge.compiled_parts()) == 3
    for part in bridge.compiled_parts():
        part.compile(dynamic=False, backend="eager")
    keys = keys_of(bridge, SHORT)
    torch.testing.assert_close(keys.sound_BQE, plain.sound_BQE, **CLOSE)
    torch.testing.assert_close(asked(bridge, keys)[0], soft, **CLOSE)
    assert len(bridge_of(replace(config_of(VARIANTS[0]), clues=0)).compiled_parts()) == 2
