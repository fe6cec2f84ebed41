"""`avqa export`: plain peft, plain transformers, the same answers; whole or not at all."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avqa_llm.answer import Answer
from avqa_llm.cli import build_parser, main
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.exporting import export
from avqa_llm.model import AVQAModel, read_config
from avqa_llm.presets import PRESETS
from tests.model_parts import QUESTIONS, small_clip, small_llm, stir, write_parts

CLIP = PRESETS["tiny"].parent.parent / "app" / "samples" / "duo.mp4"
ASKED = ["How many instruments are sounding in the video?", "Is there a voiceover?"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    model = AVQAModel.fresh(write_parts(folder, "llama-vit-vit"), folder, seed=1)
    stir(model)
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# mine\n")
    return folder


def answers(folder: str | Path) -> list[Answer]:
    return LocalEngine.load(folder).answer(small_clip(0), QUESTIONS)


def same(one: Answer, other: Answer, *, within: float) -> bool:
    return (one.label, one.steps, one.record) == (other.label, other.steps, other.record) and abs(
        one.probability - other.probability
    ) <= within


# --- the adapter as it is -----------------------------------------------------------------------


def test_an_exported_adapter_is_found_by_peft_alone_and_computes_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    export(trained, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    plain = AutoPeftModelForCausalLM.from_pretrained("out", attn_implementation="eager").eval()
    model = AVQAModel.from_pretrained(trained)
    ids = torch.tensor([model.prompt.text(QUESTIONS[1])])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, model.llm(ids).logits)
    for one, other in zip(answers(trained), answers(tmp_path / "out"), strict=True):
        assert same(one, other, within=0)


def test_hub_names_and_revisions_are_kept(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "named"))
    row = json.loads((folder / "avqa.json").read_text())
    row |= {"llm": "some/model", "llm_revision": "a" * 40}
    row["picture"] |= {"source": "some/eye", "revision": "b" * 40}
    (folder / "avqa.json").write_text(json.dumps(row))
    export(folder, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("some/model", "a" * 40)
    config = read_config(tmp_path / "out")
    assert (config.llm, config.llm_revision) == ("some/model", "a" * 40)
    assert (config.picture.source, config.sound.source) == ("some/eye", "sound")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["sound"]


def test_parts_that_lie_elsewhere_are_named_by_their_whole_path(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "in" / "run"))
    (folder / "llm").rename(tmp_path / "in" / "base")
    row = json.loads((folder / "avqa.json").read_text())
    (folder / "avqa.json").write_text(json.dumps(row | {"llm": "../base"}))
    export(folder, tmp_path / "out")
    assert read_config(tmp_path / "out").llm == str((tmp_path / "in" / "base").resolve())
    monkeypatch.chdir(tmp_path)
    assert AVQAModel.from_pretrained("out").config.lora.rank


# --- merged -------------------------------------------------------------------------------------


def test_merged_weights_are_a_plain_checkpoint_with_the_same_logits(
    trained: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    export(trained, out, merge=True)
    plain = AutoModelForCausalLM.from_pretrained(out / "llm", attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(out / "llm")
    model = AVQAModel.from_pretrained(trained)
    ids = torch.tensor([tokenizer(QUESTIONS[1], add_special_tokens=False)["input_ids"]])
    assert ids[0].tolist() == model.prompt.text(QUESTIONS[1])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model.llm(ids).logits, atol=1e-4, rtol=0)
        model.llm.disable_adapter_layers()
        assert not torch.allclose(plain(ids).logits, model.llm(ids).logits, atol=1e-2)
    assert sorted(p.name for p in (out / "llm").glob("*.safetensors")) == ["model.safetensors"]
    assert not list(out.glob("adapter*"))
    bridges = [load_file(folder / "bridge.safetensors") for folder in (trained, out)]
    assert all(torch.equal(bridges[0][k], bridges[1][k]) for k in bridges[0] | bridges[1])


def test_a_merged_model_answers_the_same_and_has_no_adapter(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(trained, out, merge=True)
    for one, other in zip(answers(trained), answers(out), strict=True):
        assert same(one, other, within=1e-4)
    model = AVQAModel.from_pretrained(out)
    assert model.config.lora.rank == 0
    with pytest.raises(CheckpointError, match="was merged"):
        model.save_pretrained(tmp_path / "again")
    for merge in (True, False):
        with pytest.raises(CheckpointError, match="merged already"):
            export(out, tmp_path / "twice", merge=merge)
    assert "library_name: transformers" in (out / "README.md").read_text()


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_the_embedded_model_merged(
    tmp_path: Path, dtype: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = ["export", "tiny", "--out", str(out), "--merge"] + (["--dtype", dtype] if dtype else [])
    assert main(line) == 0
    assert f"vllm serve {out / 'llm'}" in capsys.readouterr().out
    stored = {tensor.dtype for tensor in load_file(out / "llm" / "model.safetensors").values()}
    assert stored == {getattr(torch, dtype or "float16")}, "the base is stored as float16"
    assert json.loads((out / "llm" / "config.json").read_text())["dtype"] == (dtype or "float16")
    # Probabilities of this model are so near to 1 that they hide a change: logits show it.
    # Without the adapter they are 14 apart.
    within = {"float32": 1e-4, "bfloat16": 0.2, None: 0.02}[dtype]
    model = AVQAModel.from_pretrained(PRESETS["tiny"])
    plain = AVQAModel.from_pretrained(out)
    ids = torch.tensor([model.prompt.opening + model.prompt.text(ASKED[0])])
    with torch.no_grad():
        torch.testing.assert_close(
            plain.llm(ids).logits, model.llm(ids).logits, atol=within, rtol=0
        )
    engines = [LocalEngine(each) for each in (model.eval(), plain.eval())]
    clip = engines[0].read(CLIP)
    one, other = (engine.answer(clip, ASKED) for engine in engines)
    for before, after in zip(one, other, strict=True):
        assert before.label == after.label
        assert dtype != "float32" or same(before, after, within=1e-4)


# --- what is refused ----------------------------------------------------------------------------


def test_what_is_there_is_not_written_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("work of a week")
    with pytest.raises(CheckpointError, match="out is not empty"):
        export(trained, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(trained, tmp_path / "empty")
    assert (tmp_path / "empty" / "avqa.json").is_file()


@pytest.mark.parametrize("gone", ["bridge.safetensors", "adapter_model.safetensors", "avqa.json"])
@pytest.mark.parametrize("merge", [False, True])
def test_an_incomplete_directory_leaves_nothing_half_written(
    trained: Path, tmp_path: Path, gone: str, merge: bool
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "damaged"))
    (folder / gone).unlink()
    with pytest.raises(CheckpointError, match=gone.split(".")[0]):
        export(folder, tmp_path / "out", merge=merge)
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


def test_omni_directories_are_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "omni").mkdir()
    row = {"format": 1, "kind": "omni", "base": "some/omni"}
    (tmp_path / "omni" / "avqa.json").write_text(json.dumps(row))
    with pytest.raises(CheckpointError, match="plain peft adapter of 'some/omni'.*thinker"):
        export(tmp_path / "omni", tmp_path / "out", merge=True)


def quantized(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained, folder)
    (folder / "recipe.yaml").write_text("base: {quantize: nf4}\n")
    return folder


def test_an_adapter_trained_over_rounded_weights_asks_where_to_merge(
    trained: Path, tmp_path: Path
) -> None:
    folder = quantized(trained, tmp_path / "in")
    with pytest.raises(CheckpointError, match="trained over nf4.*--base float.*--base dequantized"):
        export(folder, tmp_path / "out", merge=True)
    export(folder, tmp_path / "out", merge=True, base="float")
    for one, other in zip(answers(trained), answers(tmp_path / "out"), strict=True):
        assert same(one, other, within=1e-4)
    with pytest.raises(CheckpointError, match="not trained over quantised"):
        export(trained, tmp_path / "other", merge=True, base="dequantized")
    with pytest.raises(CheckpointError, match="say --merge"):
        export(trained, tmp_path / "other", base="float")


@pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'avqa-llm[train]'",
)
def test_dequantised_weights_are_the_rounded_ones(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    config = write_parts(folder, "llama-vit-vit")
    small_llm("llama", hidden=64).save_pretrained(folder / "llm")  # 64 weights share a scale
    AVQAModel.fresh(config, folder).save_pretrained(folder)
    (folder / "recipe.yaml").write_text("base: {quantize: nf4}\n")
    for base in ("float", "dequantized"):
        export(folder, tmp_path / base, merge=True, base=base)
    exact, rounded = (
        load_file(tmp_path / base / "llm" / "model.safetensors")
        for base in ("float", "dequantized")
    )
    assert {tensor.dtype for tensor in rounded.values()} == {torch.float32}
    for name, weight in exact.items():
        error = float((weight - rounded[name]).norm() / weight.norm())
        assert 0.05 < error < 0.15 if "_proj" in name else error == 0, (name, error)
    assert answers(tmp_path / "dequantized")


def test_a_base_that_is_stored_quantised_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import avqa_llm.llm as loading

    whole = loading.load_llm

    def stored_in_bits(*args: object, **how: object) -> object:
        llm, tokenizer = whole(*args, **how)  # type: ignore[arg-type]
        llm.config.quantization_config = {"quant_method": "bitsandbytes"}
        return llm, tokenizer

    monkeypatch.setattr(loading, "load_llm", stored_in_bits)
    with pytest.raises(CheckpointError, match="stored quantised.*avqa.json"):
        export(trained, tmp_path / "out", merge=True)


# --- the command --------------------------------------------------------------------------------


def test_the_command_line_is_frozen() -> None:
    plain = {"model": "tiny", "out": Path("o"), "merge": False, "dtype": None, "base": None}
    plain |= {"target": "avqa_llm.exporting:run"}
    parse = build_parser().parse_args
    assert vars(parse(["export", "tiny", "--out", "o"])) == plain
    line = ["export", "runs/a", "--out", "o", "--merge", "--dtype", "bfloat16", "--base", "float"]
    changed = {"model": "runs/a", "merge": True, "dtype": "bfloat16", "base": "float"}
    assert vars(parse(line)) == plain | changed
    assert isinstance(parse(["export", "tiny", "--out", "o"]), argparse.Namespace)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("avqa: ") and len(err.strip().splitlines()) == 1


def test_answers_that_differ_are_seen() -> None:
    one = answers(PRESETS["tiny"])[0]
    assert same(one, one, within=0)
    assert not same(one, replace(one, probability=one.probability - 0.01), within=1e-3)
