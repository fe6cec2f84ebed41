"""Training: `python -m bench.training`, our instruction stage against a plain Trainer loop.

The same questions about the same Bandstand clips, the same model (the embedded one), precision and
optimizer, one run. Ours: features computed once, the questions of a clip in one sequence. Plain, as
one would write it with transformers: a question a row, padded to the longest, every row with its
clip's tokens of its own. The plain loop is timed twice: with our features, and with the frozen
encoders in the loop. First it is checked that both give the same loss on the same questions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avqa_llm.devices import prepare_training
from avqa_llm.model import AVQAModel
from avqa_llm.presets import find_model
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from avqa_llm.training.bandstand import Shard, read_shard, shard_paths
from avqa_llm.training.connect import ConnectConfig, Extras, choose_weights, connect_losses
from avqa_llm.training.connect import train_connect as train
from avqa_llm.training.features import Features, encode_arrays, load_features
from avqa_llm.training.layout import make_batch
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.packing import IGNORE
from avqa_llm.training.rows import ClipRow, read_rows
from instruct_data.bandstand.write import SetConfig, write_set

CLIPS, QUESTIONS, BATCH = 64, 8, 6
"""Of the set; of a clip and step, and clips a step, in ours."""
ROWS = QUESTIONS * BATCH
"""A step, in the plain loop."""


class Plain(nn.Module):
    """One question a row, padded; the loss is that of any language model."""

    def __init__(self, model: AVQAModel, rows: list[ClipRow], features: Features) -> None:
        super().__init__()
        self.bridge, self.llm = model.bridge, model.llm
        self._kept = (model, rows, features)
        self.shards: list[Shard] | None = None
        """Rendered clips: then the encoders run in the loop."""

    def forward(self, clip: Tensor, question: Tensor) -> dict[str, Tensor]:
        """Numbers of clips and of their questions (B,) to the loss."""
        model, rows, features = self._kept
        chosen, asked = clip.tolist(), question.tolist()
        if self.shards:
            features = self._encoded(chosen, features)
            sound, picture, seconds_B = features.batch(range(len(chosen)))
        else:
            sound, picture, seconds_B = features.batch(chosen)
        keys = model.bridge(sound, picture, seconds_B)
        prompt, shape = model.prompt, model.config.bridge
        whole, clues = int(seconds_B[0]), 2 * shape.clues
        texts, learned, words = [], [], []
        for row, number in zip((rows[n] for n in chosen), asked, strict=True):
            one = row.questions[number]
            head = prompt.clip(
                shape.sound_per_second * whole, shape.picture_per_second * whole, clues
            )
            head += prompt.record(row.record) + prompt.question(one.question, clues)
            answer = prompt.answer(one.steps, one.answer)
            texts.append(head + answer)
            learned.append(len(answer))
            words += [prompt.events, prompt.text(one.question.replace("_", " "))]
        soft, exists, _ = model.clues(keys, words)
        longest = max(map(len, texts))
        ids = torch.full((len(texts), longest), model.filling)
        labels, there = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
        for n, (text, count) in enumerate(zip(texts, learned, strict=True)):
            ids[n, : len(text)], there[n, : len(text)] = torch.tensor(text), 1
            labels[n, len(text) - count : len(text)] = torch.tensor(text[-count:])
        pairs = soft.unflatten(0, (-1, 2)).flatten(1, 2), exists.view(len(texts), -1)
        placed = {
            SOUND: (keys.sound_BQE, keys.sound_there_BQ),
            PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
            CLUE: pairs,
        }
        embeds = model.place(ids, placed)
        out = self.llm(inputs_embeds=embeds, attention_mask=there, labels=labels)
        return {"loss": out.loss}

    @torch.no_grad()
    def _encoded(self, clips: list[int], like: Features) -> Features:
        """What the encoders make of rendered clips, here and now."""
        (model, _, _), shard = self._kept, (self.shards or [])[0]
        grids = model.picture.grid_PRQD(shard.pairs_NPCHW[clips].flatten(0, 1))
        mel = shard.mel_NCMF()[clips].float()
        heard = model.sound.model(pixel_values=mel).last_hidden_state[:, 1:]
        picture = grids.unflatten(0, (len(clips), -1)).flatten(1, 3)
        return replace(like, sound_NTD=heard, picture_NTD=picture)


class Questions(torch.utils.data.Dataset):
    """All questions of all clips."""

    def __init__(self, rows: list[ClipRow]) -> None:
        self.all = [(n, k) for n, row in enumerate(rows) for k in range(len(row.questions))]

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, number: int) -> dict[str, int]:
        clip, question = self.all[number]
        return {"clip": clip, "question": question}


def ours(rows: list[ClipRow], features: Features, steps: int, folder: Path) -> float:
    """Questions a second of the instruction stage."""
    model = fresh()
    loop = LoopConfig(
        steps=steps, batch=BATCH, lr=1e-4, log_every=2, save_every_s=1e9, precision="fp32"
    )
    config = ConnectConfig(
        *(), rows="", questions=QUESTIONS, pair=0.0, drop=0.0, missing=0.0, grounding=0.0, loop=loop
    )  # fmt: skip
    train("ours", model, rows, features, config, folder=folder, resume=False)
    times = [json.loads(line)["time"] for line in (folder / "metrics.jsonl").open()]
    return (len(times) - 1) * 2 * BATCH * QUESTIONS / (times[-1] - times[0])


def plain(rows: list[ClipRow], features: Features, steps: int, shards: list[Shard] | None) -> float:
    """Questions a second of the plain loop."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    stage = Plain(fresh(), rows, features)
    stage.shards = shards
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=ROWS,
            learning_rate=1e-4,
            use_cpu=True,
            remove_unused_columns=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=stage, args=arguments, train_dataset=Questions(rows), callbacks=[Clock()]
        ).train()
    return (len(times) - 3) * ROWS / (times[-1] - times[2])


def fresh() -> AVQAModel:
    """The embedded model, ready to learn."""
    model = AVQAModel.from_pretrained(find_model("tiny"), trained=True)
    choose_weights(model, bridge=True, lora=True)
    return model


def same_loss(rows: list[ClipRow], features: Features) -> tuple[float, float]:
    """The loss of ours and of the plain loop on all questions of two clips."""
    model = fresh().eval()
    few = [replace(row, questions=row.questions[:QUESTIONS]) for row in rows[:2]]
    config = ConnectConfig(
        *(), rows="", questions=QUESTIONS, pair=0.0, drop=0.0, missing=0.0, grounding=0.0,
        loop=LoopConfig(steps=1, batch=2, lr=0.0),
    )  # fmt: skip
    with torch.no_grad():
        batch = make_batch(model, few, features, [0, 1], config, np.random.default_rng(0))
        packed = connect_losses(model, model.trunk, batch, config, Extras.of(model, config))
        pairs = torch.tensor(
            [(n, k) for n, row in enumerate(few) for k in range(len(row.questions))]
        )
        alone = Plain(model, few, features)(pairs[:, 0], pairs[:, 1])
    return float(packed["tokens"]), float(alone["loss"])


def main() -> None:
    """Time all three and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=24)
    args = parser.parse_args()
    prepare_training(patches=False)
    model = fresh()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder / "set", SetConfig(clips=CLIPS, seed=5, media="arrays"))
        encode_arrays(folder / "set", folder / "features", model.picture, model.sound)
        gap = model.config.picture.pair_gap_s
        features = load_features(folder / "features", seconds=10.0, pair_gap_s=gap)
        # Records are only read: the plain loop has no place for a second thing to learn.
        rows = [replace(row, written=True) for row in read_rows(folder / "set/instruct.jsonl")]
        known = [n for n, row in enumerate(rows) if len(row.questions) >= QUESTIONS]
        rows, features = [rows[n] for n in known], features.chosen(known)
        one, other = same_loss(rows, features)
        print(f"loss on the same questions: ours {one:.5f}, plain {other:.5f}")
        assert abs(one - other) < 1e-3, "the two loops do not learn the same"
        fast = ours(rows, features, args.steps, folder)
        slow = plain(rows, features, args.steps, None)
        shards = [read_shard(path, 0) for path in shard_paths(folder / "set")]
        slowest = plain(rows, features.chosen(range(len(rows))), max(6, args.steps // 3), shards)
    print(f"ours, cached and packed: {fast:.1f} questions/s")
    print(
        f"plain, cached features:  {slow:.1f} questions/s, ours is {fast / slow:.2f} times as fast"
    )
    print(f"plain, encoders in loop: {slowest:.1f} questions/s, ours is {fast / slowest:.2f} times")


if __name__ == "__main__":
    main()
