"""A benchmark in the layout of Hugging Face `datasets`: `load_dataset(OUT)` reads it.

    OUT/README.md          dataset card: YAML front matter, what is inside, licences
    OUT/data/test.jsonl    the questions
    OUT/videos/            the clips, where they are copied

After the hub's documentation ("Structure your repository", "Create a dataset card"). Nothing of
`datasets` is needed to write it.
"""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from eval.benchmarks import BENCHMARKS
from eval.benchmarks.base import QuestionSet
from eval.benchmarks.family import BANDSTANDS
from eval.exports.rows import FEATURES, TEST, Rows, files_below, rows_of, whole_folder, write_rows
from eval.samples import RunError
from instruct_data.places import CATALOGUE

VIDEOS = "videos"
NEVER = {
    "music-avqa-r": "the authors of MUSIC-AVQA-R state no licence for its questions, so nobody may "
    "pass them on. Get them from the authors.",
    "fortisavqa": "FortisAVQA asks the questions of MUSIC-AVQA-R, whose authors state no licence "
    "for them, so nobody may pass them on. Get them from the authors.",
}
"""Why a benchmark is never to be passed on."""
_HUB_LICENCES = {"music-avqa-v2": "gpl-3.0", **dict.fromkeys(BANDSTANDS, "apache-2.0")}
"""As the hub spells them; what is not here is `other`: stated in several ways, or not at all."""


def export_hf(
    asked: QuestionSet,
    media: Path,
    out: Path,
    *,
    copy_media: bool = False,
    private: bool = False,
) -> list[Path]:
    """Write the folder, and return its files.

    Args:
        asked: the questions.
        media: folder of VIDEO_ID.mp4 of each clip.
        out: the folder to write.
        copy_media: put the clips into it; else rows name their paths within `media`.
        private: the folder stays with whoever writes it; see `NEVER`.

    Raises:
        RunError: the set may not be passed on, the folder is there already, or there is no
            media file for any question.
    """
    refuse_public(asked, private=private)
    with whole_folder(out) as aside:
        rows = rows_of(asked, media)
        if copy_media:
            for name, source in rows.files.items():
                (aside / VIDEOS / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, aside / VIDEOS / name)
        write_rows(aside / TEST, [_placed(row, copied=copy_media) for row in rows.rows])
        card = _card(asked, rows, copied=copy_media)
        (aside / "README.md").write_text(card, encoding="utf-8")
    return files_below(out)


def refuse_public(asked: QuestionSet, *, private: bool) -> None:
    """Raise RunError for a set that may not be passed on, unless it stays where it is written."""
    if asked.benchmark in NEVER and not private:
        raise RunError(
            f"{asked.benchmark} is not exported: {NEVER[asked.benchmark]} For yourself alone: "
            "--private"
        )


def _placed(row: dict[str, Any], *, copied: bool) -> dict[str, Any]:
    """The row with the path of its clip as a reader of the folder finds it."""
    return row | {"video": str(PurePosixPath(VIDEOS) / row["video"])} if copied else row


def _card(asked: QuestionSet, rows: Rows, *, copied: bool) -> str:
    import yaml

    front = {
        "license": _HUB_LICENCES.get(asked.benchmark, "other"),
        "language": ["en"],
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "tags": ["audio-visual-question-answering", "video", "audio"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "test", "path": TEST}],
            }
        ],
        "dataset_info": {"features": FEATURES},
    }
    benchmark = BENCHMARKS.get(asked.benchmark)
    lines = [f"# {benchmark.title if benchmark else asked.benchmark}", ""]
    if asked.benchmark in NEVER:
        lines += [f"> **Do not pass this on:** {NEVER[asked.benchmark]}", ""]
    lines += [f"{len(rows.rows):,} questions about {len(rows.files):,} clips."]
    lines += [f"Version: {asked.version}." for _ in [1] if asked.version]
    lines += [f"- {said}" for said in rows.said]
    lines += ["", _about_video(copied), "", "| file | SHA-256 |", "|---|---|"]
    lines += [f"| {name} | `{sha256}` |" for name, sha256 in asked.sha256.items()]
    lines += _oddities(asked) + _licences(asked.benchmark)
    front_text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{front_text}---\n\n" + "\n".join(lines) + "\n"


def _about_video(copied: bool) -> str:
    if copied:
        return "`video` is the path of the clip in this folder."
    return (
        "`video` is the path of the clip within the folder of clips, which is not included: get "
        "the clips from the authors."
    )


def _oddities(asked: QuestionSet) -> list[str]:
    if not asked.oddities:
        return []
    return ["", "What is odd about the file; no row was changed:", ""] + [
        f"- {line}" for line in asked.oddities
    ]


def _licences(name: str) -> list[str]:
    """Licences as the places state them, each with its address."""
    benchmark = BENCHMARKS.get(name)
    places = [
        place
        for data_set in (benchmark.data_sets if benchmark else ())
        for place in CATALOGUE[data_set].places
    ]
    if not places:
        return ["", "Made by this project, Apache-2.0."] if name in _HUB_LICENCES else []
    lines = ["", "| what | licence as stated there | place |", "|---|---|---|"]
    return lines + [f"| {place.what} | {place.licence} | {place.url} |" for place in places]
