"""`avqa features` and the store that it writes: whole, right, and found again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from avqa_llm.cli import build_parser
from avqa_llm.encoders.codec import rounded
from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.store_info import StoreInfo
from avqa_llm.encoders.store_writer import StoreWriter
from avqa_llm.encoding import ClipEncoder, clip_digests
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AnnotationError, CheckpointError, MediaError, RecipeError
from avqa_llm.featuring import encode_rows
from avqa_llm.featuring.command import encoder_configs
from avqa_llm.featuring.files import find
from avqa_llm.media import Clip
from avqa_llm.media.changes import Cut, changed, sampling_of
from avqa_llm.model import AVQAModel
from avqa_llm.training.find import find_media
from avqa_llm.training.pairs import PairRow
from avqa_llm.training.stored import StoredFeatures
from tests.feature_files import NAMES, features, make_world, same, tensors
from tests.model_parts import QUESTIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> LocalEngine:
    return LocalEngine.load(folder / "model")


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    assert features(folder / "media", folder, folder / "store") == 0
    return FeatureStore(folder / "store")


def counted(model: AVQAModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The list to which each run of an encoder's network adds a word."""
    calls: list[str] = []
    for name in ("picture", "sound"):
        network = getattr(model, name).model
        hook = network.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        monkeypatch.setattr(network, "_counting", hook, raising=False)
    return calls


# --- the command line ---------------------------------------------------------------------------

FEATURES = {
    "source": Path("clips"),
    "model": "tiny",
    "out": Path("kept"),
    "rows": None,
    "workers": 1,
    "dtype": None,
    "shard_mb": 256,
    "engine": "local",
    "skip_broken": False,
    "target": "avqa_llm.featuring:run",
}


def test_command_line_is_frozen() -> None:
    short = ["features", "clips", "--out", "kept"]
    assert vars(build_parser().parse_args(short)) == FEATURES
    more = "--model m.yaml --rows r.jsonl --workers 2 --dtype int8 --shard-mb 0.5 --engine ray"
    given = build_parser().parse_args([*short, *more.split(), "--skip-broken"])
    assert vars(given) == FEATURES | {
        "model": "m.yaml",
        "rows": Path("r.jsonl"),
        "workers": 2,
        "dtype": "int8",
        "shard_mb": 0.5,
        "engine": "ray",
        "skip_broken": True,
    }


@pytest.mark.parametrize("more", ["--workers 0", "--shard-mb 0", "--shard-mb nan", "--model none"])
def test_wrong_arguments_are_one_line(
    folder: Path, tmp_path: Path, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert features(folder / "media", folder, tmp_path / "s", *more.split()) == 2
    assert features(tmp_path / "nothing", folder, tmp_path / "s") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "s").exists()


def test_recipes_name_encoders(folder: Path, tmp_path: Path) -> None:
    model = folder / "model"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"out: a\nwork: b\nstart: {model}\n")
    assert encoder_configs(str(recipe)) == encoder_configs(str(model))
    blocks = [f"  {part}: {{source: {model / part}}}\n" for part in ("picture", "sound")]
    recipe.write_text("out: a\nwork: b\nbase:\n  llm: x\n" + "".join(blocks))
    picture, sound = encoder_configs(str(recipe))
    assert (picture.source, sound.source) == (str(model / "picture"), str(model / "sound"))
    recipe.write_text("out: a\nwork: b\n")
    with pytest.raises(RecipeError, match="names no encoders"):
        encoder_configs(str(recipe))


# --- what is kept -----------------------------------------------------------------------------


def test_a_store_holds_what_the_encoders_make(
    folder: Path, store: FeatureStore, engine: LocalEngine
) -> None:
    assert len(store) == 6 and set(store.names) == {*NAMES, "deep/deaf.mp4"}
    for name in store.names:
        clip = engine.read(folder / "media" / name)
        fresh = engine.model.picture(clip), engine.model.sound(clip)
        found = store.by_name(name)
        assert found is not None
        assert all(same(rounded(one), other) for one, other in zip(fresh, found, strict=True))
        key = store.info.clip_key(
            clip.sha256, clip_digests(clip), engine.model.config.picture.sampling()
        )
        kept, by_file = store.get(key), store.by_file(clip.sha256)
        assert kept is not None and by_file is not None
        assert same(kept[0], found[0]) and same(by_file[1], found[1])
    assert store.by_name("nothing.mp4") is None and store.get("") is None
    deaf = store.by_name("deep/deaf")
    assert deaf is not None and deaf[1].n == 0 and deaf[0].n > 0


def test_the_key_is_that_of_the_cache(
    folder: Path, store: FeatureStore, engine: LocalEngine, tmp_path: Path
) -> None:
    from avqa_llm.encoders.cache import FeatureCache

    cache = FeatureCache(tmp_path, 2**20)
    ClipEncoder(engine.model, cache)(engine.read(folder / "media" / NAMES[0]))
    (path,) = tmp_path.iterdir()
    kept, there = cache.get(path.stem), store.get(path.stem)
    assert kept is not None and there is not None
    assert same(kept[0], there[0]) and same(kept[1], there[1])


def test_an_engine_with_a_store_answers_the_same_without_encoding(
    folder: Path, store: FeatureStore, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = LocalEngine.load(folder / "model", features=store.folder)
    calls = counted(quick.model, monkeypatch)
    clips = [engine.read(folder / "media" / name) for name in ("0.mp4", "deep/deaf.mp4")]
    for clip in clips:
        for changed_clip in (clip, clip.muted(), clip.blanked()):
            one, other = engine.encode(changed_clip), quick.encode(changed_clip)
            assert same(one.sound, other.sound) and same(one.picture, other.picture)
    (said,), (too,) = (e.answer(clips[0], QUESTIONS[:1]) for e in (engine, quick))
    assert replace(said, timing_s={}) == replace(too, timing_s={})
    assert calls == []
    quick.encode(replace(clips[0], sound_CS=clips[0].sound_CS[:, ::-1].copy()))
    assert calls == ["sound"], "other sound has to be encoded, the same frames need not"
    quick.encode(replace(clips[0], frames_THWC=clips[0].frames_THWC[::-1].copy()))
    assert calls == ["sound", "picture"]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_kinds_of_values(folder: Path, store: FeatureStore, tmp_path: Path, dtype: str) -> None:
    assert features(folder / "media", folder, tmp_path / "s", "--dtype", dtype) == 0
    other = FeatureStore(tmp_path / "s")
    largest = 0.0
    for name in NAMES:
        exact, rough = store.by_name(name), other.by_name(name)
        assert exact is not None and rough is not None
        for one, two in zip(exact, rough, strict=True):
            off = (one.values_ND - two.values_ND).abs().amax(1) / one.values_ND.abs().amax(1)
            largest = max(largest, float(off.max()))
    bound = 1 / 225 + 2**-11 if dtype == "int8" else 2**-11
    assert 0 < largest <= bound
    sizes = [sum(t.numel() * t.element_size() for t in tensors(s.folder).values()) for s in
             (store, other)]  # fmt: skip
    assert (sizes[1] < 0.8 * sizes[0]) == (dtype == "int8")
    assert features(folder / "media", folder, tmp_path / "s") == 0, "without --dtype: as it is"
    assert len(FeatureStore(tmp_path / "s")) == 6


def test_values_too_large_for_the_kind_are_kept_whole(store: FeatureStore, tmp_path: Path) -> None:
    found = store.by_name(NAMES[0])
    entry = store.find(NAMES[0])
    assert found is not None and entry is not None
    huge = replace(found[0], values_ND=found[0].values_ND * 1e6)
    writer = StoreWriter(tmp_path, store.info, shard_bytes=1)
    writer.add(entry.entry, huge, found[1])
    writer.flush()
    kept = FeatureStore(tmp_path).get(entry.entry.key)
    assert kept is not None and same(kept[0], huge) and same(kept[1], found[1])


# --- cuts -------------------------------------------------------------------------------------

CUTS = (
    Cut(),
    Cut(start_s=1.0, end_s=2.5),
    Cut(mirrored=True),
    Cut(reversed=True, start_s=0.5),
    Cut(sound=False),
    Cut(picture=False, mirrored=True),
)


def test_rows_are_encoded_as_they_are_cut(
    folder: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    rows = [{"clip": {"video": "4", **vars(cut)}} for cut in CUTS]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert features(folder / "media", folder, tmp_path / "s", "--rows", str(path)) == 0
    stored = StoredFeatures(FeatureStore(tmp_path / "s"), ["4"] * len(CUTS), CUTS)
    assert len(stored.store) == 4, "a missing modality is no other clip"
    for n, cut in enumerate(CUTS):
        clip = read_cut(engine, folder / "media" / "4.mp4", cut)
        fresh, kept = engine.encode(clip), stored.clip(n)
        assert same(fresh.sound, kept.sound) and same(fresh.picture, kept.picture)
        assert fresh.seconds == kept.seconds == stored.seconds(n)
        assert stored.timeline(n) == fresh.timeline
        assert stored.present(n) == (fresh.sound.n > 0, fresh.picture.n > 0)
    sound, picture, seconds_B = stored.batch([1, 4, 5])
    assert seconds_B.tolist() == [stored.timeline(n) for n in (1, 4, 5)]
    assert sound.there_BN.sum(1).tolist() == [stored.clip(n).sound.n for n in (1, 4, 5)]
    assert picture.there_BN.any(1).tolist() == [True, True, False]


def read_cut(engine: LocalEngine, path: Path, cut: Cut) -> Clip:
    from avqa_llm.media import read_clip

    picture = engine.model.picture
    sampling = sampling_of(cut, picture.config.sampling())
    clip = read_clip(path, sampling=sampling, max_side=max(picture.size))
    return changed(clip, cut, pairs=True)


def test_training_is_told_which_clips_are_missing(store: FeatureStore) -> None:
    names = [*NAMES, "a.mp4", "b.mp4"]
    with pytest.raises(CheckpointError, match=r"2 of 7 clips \(a.mp4, b.mp4\).*avqa features"):
        StoredFeatures(store, names)
    with pytest.raises(CheckpointError, match="0.mp4 1–2 s mirrored.*--rows"):
        StoredFeatures(store, ["0.mp4"], [Cut(start_s=1, end_s=2, mirrored=True)])


def test_rows_of_a_model_in_memory(folder: Path, engine: LocalEngine, tmp_path: Path) -> None:
    media = folder / "media"
    wanted = [(media / "1.mp4", Cut()), (media / "1.mp4", Cut(reversed=True))]
    store = encode_rows(engine.model, media, wanted, out=tmp_path / "s")
    assert len(StoredFeatures(store, ["1.mp4"] * 2, [cut for _, cut in wanted])) == 2
    late = [(media / "1.mp4", Cut(start_s=50.0))]
    with pytest.raises(MediaError, match="1.mp4.*beyond the end"):
        encode_rows(engine.model, media, late, out=tmp_path / "s")
    with pytest.raises(AnnotationError, match="leads out"):
        encode_rows(engine.model, media, [(folder / "x.mp4", Cut())], out=tmp_path / "s")


def test_a_folder_below_a_link_is_as_good(
    folder: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own/media").mkdir(parents=True)
    shutil.copy(folder / "media/1.mp4", tmp_path / "own/media")
    (tmp_path / "direct").symlink_to(tmp_path / "own/media")
    (tmp_path / "above").symlink_to(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    for given in (
        tmp_path / "direct",
        tmp_path / "above/media",
        Path("direct"),
        Path("above/media"),
    ):
        paths = find_media(
            [PairRow(video_id="1", media="", question="", chosen="", rejected="")], given
        )
        store = encode_rows(engine.model, given, [(paths[0], Cut())], out=tmp_path / "s")
        assert len(store) == 1 and StoredFeatures(store, ["1.mp4"]).present(0) == (True, True)
    outside = tmp_path / "outside.mp4"
    shutil.copy(folder / "media/1.mp4", outside)
    (tmp_path / "own/media/out.mp4").symlink_to(outside)
    wanted = [(Path("direct/out.mp4"), Cut())]
    with pytest.raises(MediaError, match=r"out.mp4: a link that leads out"):
        encode_rows(engine.model, Path("direct"), wanted, out=tmp_path / "s")
    with pytest.raises(AnnotationError, match="leads out"):
        encode_rows(
            engine.model, Path("direct"), [(Path("outside.mp4"), Cut())], out=tmp_path / "s"
        )


# --- what can go wrong ------------------------------------------------------------------------


def test_copies_are_encoded_once_and_broken_files_are_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(folder / "media" / NAMES[0], media / name)
    (media / "broken.mp4").write_bytes(b"no media at all")
    (media / "notes.txt").write_text("no media by its name")
    assert features(media, folder, tmp_path / "s") == 1
    said = capfd.readouterr()
    assert "broken.mp4: " in said.err
    assert "3 files: 1 encoded, 1 there before, 1 could not be encoded" in said.out
    assert "1 other files" in said.out
    store = FeatureStore(tmp_path / "s")
    assert len(store) == 1 and store.by_name("a.mp4") and store.by_name("b.mp4")
    assert features(media, folder, tmp_path / "s", "--skip-broken") == 0
    assert len(tensors(tmp_path / "s")) == 6


def test_a_file_that_was_exchanged_is_encoded_anew(
    folder: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    media, path = tmp_path / "media", tmp_path / "media" / "a.mp4"
    media.mkdir()
    for name in NAMES[:2]:
        shutil.copy(folder / "media" / name, path)
        assert features(media, folder, tmp_path / "s") == 0
        found = FeatureStore(tmp_path / "s").by_name("a.mp4")
        assert found is not None
        assert same(found[1], engine.encode(engine.read(path)).sound)
    assert features(folder / "media", folder, tmp_path / "s") == 0
    shutil.copytree(folder / "media", tmp_path / "other")
    shutil.copy(folder / "media" / NAMES[2], tmp_path / "other" / NAMES[0])
    assert features(tmp_path / "other", folder, tmp_path / "s") == 0
    with pytest.raises(CheckpointError, match="different files.*one store for each"):
        FeatureStore(tmp_path / "s").by_name(NAMES[0])
    assert FeatureStore(tmp_path / "s").by_name(NAMES[1]) is not None


def test_foreign_features_are_refused(
    folder: Path, store: FeatureStore, engine: LocalEngine, tmp_path: Path
) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    path = tmp_path / "model" / "avqa.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "picture": {**row["picture"], "fps": 2.0}}))
    with pytest.raises(CheckpointError, match=r"sampling fps is 1.0 there, 2.0 here.*avqa featu"):
        LocalEngine.load(tmp_path / "model", features=store.folder)
    weights = load_file(tmp_path / "model" / "sound" / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-3
    path.write_text(json.dumps(row))
    save_file(weights, tmp_path / "model" / "sound" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"sound weights \(fingerprint\) is"):
        LocalEngine.load(tmp_path / "model", features=store.folder)
    assert features(folder / "media", tmp_path, store.folder) == 2, "nor is anything added"
    assert features(folder / "media", folder, store.folder, "--dtype", "int8") == 2
    assert features(folder / "media", folder, folder / "media") == 2, "a folder with other things"
    with pytest.raises(CheckpointError, match="no feature store"):
        FeatureStore(tmp_path)


def test_damage_is_never_passed_over(store: FeatureStore, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(store.folder, tmp_path / name))

    (shard,) = (copy("short") / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is no shard.*remove it and run"):
        FeatureStore(tmp_path / "short")
    other = copy("foreign")
    row = json.loads((other / "store.json").read_text())
    (other / "store.json").write_text(json.dumps({**row, "dtype": "int8"}))
    with pytest.raises(CheckpointError, match="belongs to another store"):
        FeatureStore(other)
    (other / "store.json").write_text(json.dumps({**row, "format": 0}))
    with pytest.raises(CheckpointError, match="format 0, this version reads 1"):
        FeatureStore(other)
    gone = FeatureStore(copy("gone"))
    shutil.rmtree(gone.folder / "shards")
    with pytest.raises(CheckpointError, match="cannot be read"):
        gone.by_name(NAMES[0])
    assert not list(tmp_path.glob("*/shards/*.writing"))


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/a.mp4", "b/../../a.mp4", "C:\\a.mp4", "..\\a"])
def test_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{name}\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"clip": {"video": name}}) + "\n")
    with pytest.raises(AnnotationError, match="leads out"):
        find(tmp_path / "list.txt", None)
    with pytest.raises(AnnotationError, match="leads out"):
        find(tmp_path, tmp_path / "rows.jsonl")


def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"0")
    os.symlink(outside / "a.mp4", inside / "link.mp4")
    os.symlink(outside, inside / "way")
    os.symlink(inside / "nothing", inside / "lost.mp4")
    os.symlink(inside / "a.mp4", inside / "same.mp4")
    found = find(inside, None)
    assert [job.name for job in found.jobs] == ["a.mp4", "same.mp4"]
    assert set(found.refused) == {"link.mp4", "way", "lost.mp4"}
    (inside / "list.txt").write_text("a.mp4\nlink.mp4\nway/a.mp4\nmissing.mp4\n")
    found = find(inside / "list.txt", None)
    assert [job.name for job in found.jobs] == ["a.mp4"]
    assert set(found.refused) == {"link.mp4", "way/a.mp4", "missing.mp4"}


def test_the_info_of_a_store_says_what_made_it(store: FeatureStore, engine: LocalEngine) -> None:
    from avqa_llm.encoders.cache import identity

    info = StoreInfo.of(engine.model.picture, engine.model.sound)
    assert info.picture.identity == identity(engine.model.picture)
    assert info.sound.identity == identity(engine.model.sound)
    assert store.info.dtype == "float16" and store.info.differences(info) == []
