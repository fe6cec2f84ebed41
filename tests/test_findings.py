"""The test bed of the field's claims: its plan, what it does to clips, its chain, its sentences."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from avqa_llm.encoders import Tokens
from avqa_llm.errors import RecipeError
from avqa_llm.media.changes import Cut
from avqa_llm.model import ClipTokens, read_config
from avqa_llm.presets import find_model
from avqa_llm.training.rows import ClipRow, Question
from bench.findings.__main__ import _command, _is_free, _parser, due, main
from bench.findings.changes import Change, Changed, captions, mixed
from bench.findings.data import prepare
from bench.findings.page import said_of, verdict, write_page
from bench.findings.plan import (
    PLAN,
    Plan,
    aligned_folder,
    folder_of,
    is_aligned,
    read_plan,
    records_file,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def at_the_top() -> Any:
    """Plans name their recipe from the top of the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


# -- the plan that ships -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(PLAN)


def test_every_row_is_a_recipe_and_differs_from_the_others(plan: Plan) -> None:
    for claim in plan.claims:
        keys = [run.key for run in plan.runs(claim, [0])]
        assert len(set(keys)) == len(keys), f"{claim.name}: two rows are the same run"
    names = {claim.name: claim for claim in plan.claims}
    shared = ("clues", "connectors", "pooling", "order", "stages", "rank", "mixed")
    assert len({plan.runs(names[name], [0])[0].key for name in shared}) == 1
    first, second = plan.runs(names["clues"], [0, 1])[:2]
    assert first.key != second.key and second.recipe.instruct.loop.seed == 1


def test_runs_that_differ_after_it_share_an_aligned_bridge(plan: Plan, tmp_path: Path) -> None:
    keys = {c.name: [r.align_key for r in plan.runs(c, [0]) if r.recipe.align] for c in plan.claims}
    for name in ("rank", "mixed", "debiasing"):
        assert set(keys[name]) == {keys["clues"][0]}
    for name in ("clues", "connectors", "pooling", "order", "stages"):
        assert len(set(keys[name])) == len(keys[name]), f"{name}: two rows share one"
    (claim,) = plan.chosen(["stages"])
    alone = plan.runs(claim, [0])[-1]
    assert alone.recipe.align is None and is_aligned(tmp_path, alone)
    first, second = plan.runs(plan.chosen(["rank"])[0], [0])[:2]
    assert _is_free(first, [], tmp_path) and not _is_free(second, [first], tmp_path)
    folder = aligned_folder(tmp_path, first)
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "align.json").write_text("{}")
    assert _is_free(second, [first], tmp_path) and not _is_free(first, [first], tmp_path)


def test_runs_that_prefer_go_on_from_one_that_does_not(plan: Plan, tmp_path: Path) -> None:
    (claim,) = plan.chosen(["adpo"])
    hedging, *preferring = plan.runs(claim, [0])
    assert hedging.begun.key == hedging.key
    assert {run.begun.key for run in preferring} == {hedging.key}
    assert hedging.key not in {run.key for run in preferring}
    folder = aligned_folder(tmp_path, hedging)
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "align.json").write_text("{}")
    first, second, *_ = preferring
    assert not _is_free(first, [hedging], tmp_path) and not _is_free(first, [second], tmp_path)
    begun = folder_of(tmp_path, hedging)
    begun.mkdir(parents=True)
    (begun / "instruct.json").write_text("{}")
    assert _is_free(first, [], tmp_path) and not _is_free(first, [second], tmp_path)
    records_file(tmp_path, first).write_text("{}")
    assert _is_free(first, [hedging, second], tmp_path)


def test_the_frozen_parts_are_those_of_the_embedded_model(plan: Plan) -> None:
    base = plan.runs(plan.claims[0], [0])[0].recipe.base
    config = read_config(find_model("tiny"))
    for side in ("picture", "sound"):
        mine, its = (dataclasses.asdict(getattr(one, side)) for one in (base, config))
        assert {**mine, "source": ""} == {**its, "source": ""}


def small(folder: Path, **changes: Any) -> Path:
    """A plan of few clips and steps, with a row of each kind."""
    loop = {"steps": 2, "batch": 2, "lr": 1e-3, "warmup": 1, "precision": "fp32"}
    stage = {"rows": "few/instruct.jsonl", "features": "few", "questions": 2, "steps": False}
    stage |= {"grounding": 0.0, "loop": loop}
    prefer = {"rows": "few/pairs.jsonl", "features": "few", "loop": loop}
    row = {
        "recipe": "adapters/recipes/findings.yaml",
        "test": {"clips": 3, "seed": 5},
        "set": [
            'sets=[{"name": "few", "clips": 6, "seed": 4}]',
            "instruct.features=few",
            "instruct.loop.steps=2",
            "instruct.loop.batch=2",
            "instruct.loop.warmup=1",
            "align.rows=few/instruct.jsonl",
            "align.features=few",
            "align.compile=false",
            *(f"align.loop.{key}={value}" for key, value in loop.items()),
            "bridge.width=40",
            "bridge.clue_layers=1",
        ],
        "claims": [
            {
                "name": "tokens",
                "title": "Tokens",
                "says": "Times help.",
                "tries": "With and without.",
                "conditions": ["full", "no sound"],
                "parts": ["Visual Counting"],
                "set": {"instruct.rows": "few/instruct.jsonl"},
                "rows": [
                    {"name": "as they are"},
                    {"name": "pooled", "pool": ["sound", "picture"], "rows": {"instruct": "mixed"}},
                    {"name": "shuffled", "shuffle": "apart", "rows": {"align": "captions"},
                     "set": {"align": {**stage, "questions": 1, "train_lora": False}}},
                ],
            },
            {
                "name": "talk",
                "title": "Talk",
                "says": "Preferences help.",
                "tries": "With and without.",
                "ask": "open",
                "prior": True,
                "set": {"instruct.rows": "few/hedged.jsonl"},
                "rows": [{"name": "hedging"}, {"name": "preferring", "set": {"prefer": prefer}}],
            },
        ],
    }  # fmt: skip
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(row | changes))
    return path


def test_a_plan_that_cannot_be_is_refused(tmp_path: Path) -> None:
    claims = yaml.safe_load(small(tmp_path).read_text())["claims"]
    wrong = [
        ({"conditions": ["blind"]}, "'blind' is none of full"),
        ({"rows": claims[0]["rows"][:1]}, "at least two rows"),
        ({"rows": [{"name": "a"}, {"name": "b", "shuffle": "all"}]}, "shuffle 'all'"),
        ({"rows": [{"name": "a"}, {"name": "b", "pool": ["text"]}]}, "pool 'text'"),
        ({"rows": [{"name": "a"}, {"name": "b", "rows": {"instruct": "half"}}]}, "names captions"),
        ({"row": []}, "did you mean 'rows'"),
    ]
    for change, said in wrong:
        with pytest.raises(RecipeError, match=said):
            read_plan(small(tmp_path, claims=[claims[0] | change]))
    with pytest.raises(RecipeError, match="choose from tokens, talk"):
        read_plan(small(tmp_path)).chosen(["clues"])


# -- what is done to clips ---------------------------------------------------------------------


class Clips:
    """Clips of four seconds: two sound tokens a second, two places a moment."""

    def __len__(self) -> int:
        return 3

    def clip(self, index: int) -> ClipTokens:
        """Values are the tokens' numbers."""
        numbers = torch.arange(8.0)
        places = torch.tensor([[0.25, 0.5], [0.75, 0.5]]).repeat(4, 1)
        heard = Tokens(
            values_ND=numbers[:, None], times_N=numbers / 2 + 0.25, places_N2=torch.zeros(8, 2),
            length_s=0.5,
        )  # fmt: skip
        seen = Tokens(
            values_ND=numbers[:, None], times_N=(numbers // 2) + 0.6, places_N2=places, length_s=1.0
        )
        heard = Tokens.none(1) if index == 2 else heard
        return ClipTokens(sound=heard, picture=seen, seconds=4.0)

    def timeline(self, index: int) -> int:
        return 4

    def present(self, index: int) -> tuple[bool, bool]:
        return index != 2, True


def changed(clip: int = 0, **change: Any) -> ClipTokens:
    return Changed(features=Clips(), change=Change(**change)).clip(clip)  # type: ignore[arg-type]


def test_pooling_leaves_one_vector_a_clip_and_one_a_moment() -> None:
    clip = changed(pool=("sound", "picture"))
    assert clip.sound.values_ND.tolist() == [[3.5]] and clip.sound.times_N.tolist() == [2.0]
    assert clip.picture.values_ND.flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert clip.picture.times_N.tolist() == pytest.approx([0.6, 1.6, 2.6, 3.6])
    assert changed(2, pool=("sound",)).sound.n == 0


def test_shuffling_moves_whole_seconds_and_keeps_times_and_places() -> None:
    plain = Clips().clip(0)
    orders = {}
    for kind in ("sound", "picture", "together", "apart"):
        for index in range(2):
            clip = changed(index, shuffle=kind)
            assert torch.allclose(clip.sound.times_N, plain.sound.times_N)
            assert torch.allclose(clip.picture.times_N, plain.picture.times_N)
            assert torch.equal(clip.picture.places_N2, plain.picture.places_N2)
            for side in ("sound", "picture"):
                values = getattr(clip, side).values_ND.flatten()
                assert sorted(values.tolist()) == list(range(8))
                assert torch.equal(values[1::2], values[::2] + 1)
                orders[kind, side, index] = tuple(values.tolist())
    still = tuple(float(n) for n in range(8))
    for index in range(2):
        assert orders["sound", "picture", index] == orders["picture", "sound", index] == still
        assert orders["together", "sound", index] == orders["together", "picture", index]
    assert any(orders["apart", "sound", n] != orders["apart", "picture", n] for n in range(2))
    assert orders["sound", "sound", 0] != orders["sound", "sound", 1]
    assert changed(shuffle="apart").sound.values_ND.equal(
        changed(shuffle="apart").sound.values_ND
    ), "the same each time that it is asked for"


def test_a_changed_batch_holds_the_changed_clips() -> None:
    features = Changed(features=Clips(), change=Change(pool=("sound",)))  # type: ignore[arg-type]
    sound, picture, seconds = features.batch([0, 2])
    assert sound.there_BN.tolist() == [[True], [False]] and seconds.tolist() == [4, 4]
    assert picture.values_BND.shape == (2, 8, 1)


def test_mixed_rows_lose_a_modality_and_the_questions_about_it() -> None:
    heard = "How many musical instruments were heard throughout the video?"
    seen = "How many types of musical instruments appeared in the entire video?"
    asked = [
        Question(question=text, steps="", answer="two", template=text) for text in (heard, seen)
    ]
    row = ClipRow(
        video_id="a", record="r", record_without_sound="", record_without_picture="",
        questions=tuple(asked),
    )  # fmt: skip
    both, deaf, blind = mixed([row] * 3)[0], mixed([row] * 3)[2], mixed([row] * 3)[1]
    assert both == row
    assert deaf.cut == Cut(sound=False) and [q.template for q in deaf.questions] == [seen]
    assert blind.cut == Cut(picture=False) and [q.template for q in blind.questions] == [heard]
    (question,) = captions([row])[0].questions
    assert question.answer == "r"


# -- what is said ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ({"value": 0.01, "low": -0.01, "high": 0.03, "p": 0.3, "seeds": [0.01]},
         "no difference beyond its interval, +1.00 [-1.00, +3.00] points."),
        ({"value": 0.02, "low": 0.001, "high": 0.03, "p": 0.06, "seeds": [0.02]},
         "not told apart, +2.00 [+0.10, +3.00] points: the test over clips does not confirm it"),
        ({"value": -0.05, "low": -0.07, "high": -0.03, "p": 0.01, "seeds": [-0.05]},
         "worse by 5.00 points, -5.00 [-7.00, -3.00] points; one seed"),
        ({"value": 0.05, "low": 0.03, "high": 0.07, "p": 0.01, "seeds": [0.12, -0.02]},
         "but so with 1 of 2 seeds only"),
        ({"value": 0.05, "low": 0.03, "high": 0.07, "p": 0.01, "seeds": [0.04, 0.06]},
         "with all 2 seeds, whose own interval is [-7.71, +17.71]."),
        ({"value": 0.05, "low": None, "high": None, "p": None, "seeds": [0.05]},
         "no difference beyond its interval, +5.00 points"),
    ],
)  # fmt: skip
def test_sentences_say_what_intervals_and_seeds_say(difference: dict[str, Any], said: str) -> None:
    assert said in said_of(difference)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([-0.05], "worse"),
        ([-0.04, -0.05, -0.06], "worse"),
        ([-0.01, -0.03, -0.11], "worse with these seeds"),
        ([0.01, -0.03, -0.13], "worse, but so with 2 of 3 seeds only"),
    ],
)
def test_a_verdict_says_where_other_seeds_might_change_it(seeds: list[float], said: str) -> None:
    difference = {"value": -0.05, "low": -0.07, "high": -0.03, "p": 0.01, "seeds": seeds}
    assert verdict(difference) == said


# -- the chain ---------------------------------------------------------------------------------


@pytest.fixture()
def threads() -> Any:
    """The recipe says one thread; other tests have theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_from_a_plan_to_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets, features, every kind of row, figures, page; and a second call has nothing to do."""
    # All is fp32: no need to try in a process of its own what bf16 does here, run after run.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    path, out, docs = small(tmp_path), tmp_path / "out", tmp_path / "docs"
    words = ["--plan", str(path), "--out", str(out), "--docs", str(docs)]
    plan = read_plan(path)
    waiting = due(plan, plan.claims, [0], out)
    assert len(waiting) == 5
    for run in waiting:
        prepare(run, out)
    for run in waiting:  # as a child process does it, without the import of torch in each
        args = _parser().parse_args(words)
        command = _command(args, f"{run.claim.name}/{run.row.name}", 0)
        assert main(command[command.index("bench.findings") + 1 :]) == 0
    assert due(plan, plan.claims, [0], out) == []

    assert main(words) == 0
    figures = json.loads((docs / "findings" / "tokens.json").read_text())
    assert figures["clips"] == 3 and figures["seeds"] == [0]
    first, pooled, shuffled = figures["rows"]
    assert set(first["conditions"]) == {"full", "no sound"}
    assert "difference" not in first["conditions"]["full"]
    assert "difference" in pooled["conditions"]["no sound"] and shuffled["steps"] == 4
    talk = json.loads((docs / "findings" / "talk.json").read_text())
    assert talk["parts"] == ["head", "tail"]
    assert 0 <= talk["rows"][1]["conditions"]["full"]["hedging"]["accuracy"] <= 1
    page = (docs / "findings.md").read_text()
    assert "*pooled* against *as they are*" in page and "sound pooled" in page
    assert "**A trial, not the plan:**" in page and "(findings/tokens.svg)" in page
    assert (docs / "findings" / "tokens.svg").read_text().startswith("<svg")

    assert f"encoders `{figures['frozen']}`, seeds" in page
    (docs / "findings.md").unlink()
    assert main([*words, "--page"]) == 0
    assert (docs / "findings.md").read_text() == page
    write_page(docs, [], "others")
    assert "(not those that ship now, `others`" in (docs / "findings.md").read_text()
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert "0 runs" in capsys.readouterr().out


def test_without_figures_there_is_no_page(tmp_path: Path) -> None:
    assert write_page(tmp_path, [], "") is None
    assert not (tmp_path / "findings.md").exists()
