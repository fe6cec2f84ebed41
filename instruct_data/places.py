"""Where the data sets lie: the catalogue of official places, and what is known of each file.

Nothing here is fetched by itself; `python -m instruct_data get NAME` does that. A file on
GitHub is named by its commit, so that it cannot change under its hash.

Looked up in the repositories of the authors in November 2026. A place with
`confirmed=False` is linked by its authors, or is where others publish it, but what lies
there was not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Place:
    """One file that can be fetched, or one thing that a person has to get by hand."""

    name: str
    """The file's name on disk, or a short name of what is got by hand. Never from a server."""
    what: str
    url: str
    licence: str
    """As its authors state it; `unstated` where they do not."""
    kind: Literal["file", "manual"] = "file"
    size: int | None = None
    """Bytes, where the file itself was seen."""
    sha256: str | None = None
    git_blob: str | None = None
    """The id under which git stores the bytes: SHA-1 of `blob SIZE\\0` and the bytes. It is
    known for every file of a repository, also for those whose bytes were not seen."""
    todo: str = ""
    """Of a manual place: what a person does, and where the files go."""
    confirmed: bool = True


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What belongs together under one name."""

    title: str
    reader: str
    """Name of the reader in `instruct_data.sources.SOURCES`."""
    home: str
    """Page of its authors."""
    places: tuple[Place, ...]
    note: str = ""


def _github(repository: str, commit: str, path: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def _v1(path: str) -> str:
    return _github("GeWu-Lab/MUSIC-AVQA", "cc8809514a2ee3d7ae81a3021c15e7c0679170d7", path)


def _v2(path: str) -> str:
    commit = "7db4f5480dcf833d4aa588235bc7a533c57c1719"
    return _github("DragonLiu1995/MUSIC-AVQA-v2.0", commit, path)


def _r(path: str) -> str:
    commit = "d9bed99bb3ecfdc33553a20579d9a040a8844750"
    return _github("reml-group/MUSIC-AVQA-R", commit, f"dataset/MUSIC-AVQA-R/{path}")


def _avqa(path: str) -> str:
    return _github("AlyssaYoung/AVQA", "a5056c1d82849aa0981f50fa4c5a57bd16658c52", path)


def _cat(path: str) -> str:
    return _github("rikeilong/Bay-CAT", "a568f2de85b4078b7edbf0accf64a5d0ea93a42c", path)


_PUT = "put the video files into DIR/videos (sub-folders are fine), then run verify on DIR"
_V1_LICENCE = "MIT (LICENSE file); the README says GPL-3.0, the project page CC BY-NC 4.0"
_V2_LICENCE = "GPL-3.0 (LICENSE file)"
_V1_VIDEOS = Place(
    name="videos",
    what="the 9,288 videos of MUSIC-AVQA: real 36.67 GB, synthetic 11.59 GB (as stated there)",
    url="https://drive.google.com/drive/folders/1WAryZZE0srLIZG8VHl22uZ3tpbGHtsrQ",
    licence="CC BY-NC 4.0 (project page)",
    kind="manual",
    todo="Google Drive gives no direct links: open the page in a browser and download the "
    "folders; or Baidu (password cvpr): real https://pan.baidu.com/s/1yVPfOXyDesHdUZFHK3tYog "
    f"synthetic https://pan.baidu.com/s/1b7HQbMdcfaWjsHdWiLWO2Q; unpack, and {_PUT}",
)

CATALOGUE: dict[str, DataSet] = {
    "music-avqa": DataSet(
        title="MUSIC-AVQA v1, corrected annotations (json_update)",
        reader="music-avqa",
        home="https://gewu-lab.github.io/MUSIC-AVQA/",
        note="The official split shares videos between train, val and test.",
        places=(
            Place(
                name="avqa-train.json",
                what="31,927 questions (published count)",
                url=_v1("data/json_update/avqa-train.json"),
                licence=_V1_LICENCE,
                git_blob="dfb9233f598bb27ce6d2783ca377131a6ae2be2c",
            ),
            Place(
                name="avqa-val.json",
                what="4,568 questions",
                url=_v1("data/json_update/avqa-val.json"),
                licence=_V1_LICENCE,
                size=1_241_698,
                sha256="650ca7e9e577139f43b7895d5b8207a2e287d8cdad940522b2122a12c0c9b8ef",
                git_blob="dcda27ddfd5de55e8e5723b5ffe5b40d35efeabc",
            ),
            Place(
                name="avqa-test.json",
                what="9,129 questions",
                url=_v1("data/json_update/avqa-test.json"),
                licence=_V1_LICENCE,
                size=2_479_019,
                sha256="76ce24ee02fd85e28038605aedd4f62633e1335ccda96a1fcf7340b5feaf230e",
                git_blob="84e8b4579b1bd62e5bf0b5e1e6545a3e68b39f88",
            ),
            _V1_VIDEOS,
        ),
    ),
    "music-avqa-2022": DataSet(
        title="MUSIC-AVQA v1, first annotations (json): only to compare with older papers",
        reader="music-avqa",
        home="https://gewu-lab.github.io/MUSIC-AVQA/",
        note="55 questions of test and 27 of val occur twice with two different answers.",
        places=(
            Place(
                name="avqa-train.2022.json",
                what="train questions before the correction",
                url=_v1("data/json/avqa-train.json"),
                licence=_V1_LICENCE,
                git_blob="d1da1c6da7ea5a523b93d0dc73444f3b69967528",
            ),
            Place(
                name="avqa-train.synthetic-only.2022.json",
                what="6,233 train questions about synthetic videos",
                url=_v1("data/json/avqa-train_fake.json"),
                licence=_V1_LICENCE,
                size=1_690_341,
                sha256="a5b0faaa357178ef5712f0a3b6be8e66d99c1e4d1b9fa6a1f95ec08b6b3f7cc4",
                git_blob="96c434d376af93f317e4604a04db587d4422ab10",
            ),
            Place(
                name="avqa-val.2022.json",
                what="4,595 questions",
                url=_v1("data/json/avqa-val.json"),
                licence=_V1_LICENCE,
                size=1_249_258,
                sha256="119fc12dd07e2e4568797d0c5faf4e786356eab7eb8271cb6a14034e1148ac37",
                git_blob="682bca7ad3a09969995ac9fe5d6378145e92797f",
            ),
            Place(
                name="avqa-test.2022.json",
                what="9,185 questions",
                url=_v1("data/json/avqa-test.json"),
                licence=_V1_LICENCE,
                size=2_494_644,
                sha256="fa79cbd8e7f0bf043e1761271b216f130832dd419a171bce9d9b561017af6cc2",
                git_blob="835b8b552ce71548a04bfb50806d619f94bd5947",
            ),
        ),
    ),
    "music-avqa-v2": DataSet(
        title="MUSIC-AVQA v2.0, balanced and biased",
        reader="music-avqa-v2",
        home="https://github.com/DragonLiu1995/MUSIC-AVQA-v2.0",
        note="The authors publish train and test only; the validation file is of others.",
        places=(
            Place(
                name="train_balance.json",
                what="train questions of the balanced set",
                url=_v2("data/balance_full_set/train_balance.json"),
                licence=_V2_LICENCE,
                git_blob="5b5ef1934f4f538a2ea15aa853ba34bfe52ff29a",
            ),
            Place(
                name="test_balance.json",
                what="10,819 questions, 14 of them exact duplicates",
                url=_v2("data/balance_full_set/test_balance.json"),
                licence=_V2_LICENCE,
                size=2_889_309,
                sha256="78e854694bc5944f63a49b26a2a95bfe672ed7de6a455a8a097f1731d98a70a0",
                git_blob="b78957e2ea85d6e932ef220aacd94d9a4b41a852",
            ),
            Place(
                name="train_bias.json",
                what="train questions of the biased set",
                url=_v2("data/bias_set/train_bias.json"),
                licence=_V2_LICENCE,
                git_blob="fd92f964a630e4f321a1ab56b3641757791ab6e8",
            ),
            Place(
                name="test_bias.json",
                what="9,119 questions",
                url=_v2("data/bias_set/test_bias.json"),
                licence=_V2_LICENCE,
                size=2_464_700,
                sha256="cbf5e8096eaa94271061d37d273a7f2977d2b82e0c69a1194bcebd816aa5455b",
                git_blob="b53e69bf83d061fa90b3c54e5e4c5d87cc5f32c8",
            ),
            Place(
                name="balance_valid.json",
                what="5,346 validation questions, split off by the authors of QA-TIGER",
                url=_github(
                    "AIM-SKKU/QA-TIGER",
                    "f40bd027236ed7ab29ad1e6effad286559cc41f1",
                    "data/annots/music_avqa_v2/balance_valid.json",
                ),
                licence="unstated there; made from files under GPL-3.0",
                size=2_235_904,
                sha256="2b8ad91e181bc76e23d89bc029f04fa0f6c37c87584ebf60e217d3f7e932efbe",
                git_blob="2abbe6bd5fc240a7ddd3e0075fffc68a7dffe848",
            ),
            Place(
                name="additional_videos.csv",
                what="YouTube id, start and length of the videos that v2.0 adds",
                url=_v2("data/MUSIC-AVQA-v2.0_additional_videos.csv"),
                licence=_V2_LICENCE,
                size=26_069,
                sha256="4672f5994308d32c2a2942662be90803176195b96f6176f3d890566f77b9e508",
                git_blob="8aa0670d21252285bd4b7acab624b33e2373bd98",
            ),
            Place(
                name="additional videos",
                what="1,040 videos that v2.0 adds, cut to 60 s (one RAR archive)",
                url="https://www.dropbox.com/s/ejb36sh6gzqwdhn/collect_new_set.rar",
                licence="from YouTube, for research only (README)",
                kind="manual",
                confirmed=False,
                todo="open the link of the README in a browser, unpack the archive (unrar, 7-Zip), "
                "add the videos of MUSIC-AVQA v1 (`get music-avqa`), and " + _PUT,
            ),
        ),
    ),
    "music-avqa-r": DataSet(
        title="MUSIC-AVQA-R: test questions of v1 rephrased, in head and tail",
        reader="music-avqa-r",
        home="https://github.com/reml-group/MUSIC-AVQA-R",
        note="For evaluation only. No licence is stated: do not pass the files on. The copies in "
        "the QA-TIGER repository have other hashes.",
        places=(
            *(
                Place(
                    name=f"avqa-test-{part}.json",
                    what=f"{rows} rephrased questions",
                    url=_r(f"avqa-test-{part}.json"),
                    licence="unstated",
                    git_blob=blob,
                )
                for part, rows, blob in (
                    ("head", "138,153", "387be11979f25e7a90dce5b6e5d8012f43adaefb"),
                    ("tail", "73,419", "19e426a64257efdf6a13d870d2465f39cc54f0aa"),
                    ("headtail", "211,572", "35ab0599d288e54f391bae511ca099a0f73f2467"),
                )
            ),
            _V1_VIDEOS,
        ),
    ),
    "fortisavqa": DataSet(
        title="FortisAVQA: the questions of MUSIC-AVQA-R with another head and tail",
        reader="fortisavqa",
        home="https://github.com/reml-group/fortisavqa",
        note="For evaluation only.",
        places=(
            Place(
                name="questions",
                what="211,572 test questions",
                url="https://huggingface.co/datasets/reml-group/FortisAVQA",
                licence="GPL-3.0 (README)",
                kind="manual",
                confirmed=False,
                todo="open the page (or Baidu, password AVQA: "
                "https://pan.baidu.com/s/1mrLeoCrLn2AbdVxkCQ3hjg), download the question files "
                "and put them into DIR, then run verify on DIR",
            ),
            _V1_VIDEOS,
        ),
    ),
    "avqa": DataSet(
        title="AVQA: questions with choices about VGGSound videos",
        reader="avqa",
        home="https://mn.cs.tsinghua.edu.cn/avqa",
        places=(
            Place(
                name="train_qa.json",
                what="train questions",
                url=_avqa("data/annotation/train_qa.json"),
                licence="unstated",
                git_blob="dcf7ee2555bb4ce861a3e1e08fbda1508818d63c",
            ),
            Place(
                name="val_qa.json",
                what="validation questions",
                url=_avqa("data/annotation/val_qa.json"),
                licence="unstated",
                git_blob="78ef35471495a77ad1921ad54b9dedc12b7eeca0",
            ),
            Place(
                name="videos",
                what="57,015 videos of 10 s out of VGGSound, named YOUTUBEID_START.mp4",
                url="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
                licence="CC BY 4.0 (VGGSound); each video belongs to its owner",
                kind="manual",
                confirmed=False,
                todo="VGGSound is a list of YouTube ids and times: cut the 10 s from YouTube with "
                "a tool of yours, within its terms (many are gone by now), or ask the authors. The "
                "README of AVQA also links Baidu, https://pan.baidu.com/s/1nftHgOAGYSCF6j8MxCjPqA "
                "(password awd7), without saying what lies there; " + _PUT,
            ),
        ),
    ),
    "avinstruct": DataSet(
        title="AVinstruct and the preference pairs of CAT",
        reader="avinstruct",
        home="https://github.com/rikeilong/Bay-CAT",
        note="Its videos are those of MUSIC-AVQA and AVQA: `get music-avqa` and `get avqa`. Its "
        "questions may come from test videos; check the overlap before training.",
        places=(
            *(
                Place(
                    name=path.rpartition("/")[2],
                    what=what,
                    url=_cat(path),
                    licence="Apache-2.0 (LICENSE file; the README calls it the code's)",
                    git_blob=blob,
                )
                for path, what, blob in (
                    (
                        "AVinstruct/avqa_data1.json",
                        "instructions, first part",
                        "ac32212ea286afdcdd0039eb3eff801e5324b20c",
                    ),
                    (
                        "AVinstruct/avqa_data2.json",
                        "instructions, second part",
                        "0550cbce6ba2538f7ec9dd809b4fbb4299b68381",
                    ),
                    (
                        "ADPO_CAT/dpo.json",
                        "preference pairs",
                        "c26bb002ff9b572a0f31a11a5d6fbf2bc3388f4e",
                    ),
                )
            ),
        ),
    ),
    "videoinstruct": DataSet(
        title="VideoInstruct100K: instructions about ActivityNet videos",
        reader="conversations",
        home="https://huggingface.co/datasets/MBZUAI/VideoInstruct-100K",
        places=(
            Place(
                name="VideoInstruct100K.json",
                what="100,000 questions and answers, 42.4 MB",
                url="https://huggingface.co/datasets/MBZUAI/VideoInstruct-100K/resolve/"
                "78f3d23ee0306a077a28f4032f2fb66b0005b575/VideoInstruct100K.json",
                licence="CC BY-SA 4.0",
                sha256="dda32d9946255ffef4aee0deeb62a417ed0a2fea3a6a921a15d6ef74db434143",
            ),
            Place(
                name="videos",
                what="the ActivityNet videos, named v_YOUTUBEID",
                url="https://github.com/mbzuai-oryx/Video-ChatGPT/blob/main/docs/"
                "train_video_chatgpt.md",
                licence="each video belongs to its owner",
                kind="manual",
                todo="step 3 of the page says how to ask ActivityNet for them; " + _PUT,
            ),
        ),
    ),
}
"""Every data set that has a reader and is not made here; Bandstand is made, not fetched."""
