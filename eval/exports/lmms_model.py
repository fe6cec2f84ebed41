"""The models of avqa-llm for lmms-eval: `--model avqa --model_args model=tiny`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from tqdm import tqdm

from avqa_llm.engine import LocalEngine


class AVQA(lmms):
    """A preset or a model directory of avqa-llm, in this process."""

    is_simple = True

    def __init__(self, model: str = "tiny", **others: Any) -> None:
        """`model`: a preset or a directory. lmms-eval also gives batch sizes and a device.

        Questions about one clip are answered as one batch, whatever the batch size.
        """
        super().__init__()
        unknown = set(others) - {"batch_size", "max_batch_size", "device"}
        if unknown:
            raise ValueError(f"unknown model_args {', '.join(sorted(unknown))}; there is: model")
        self._engine = LocalEngine.load(model)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer requests; each clip is read and encoded once."""
        rows: defaultdict[tuple[str, bool], list[tuple[int, str]]] = defaultdict(list)
        for number, request in enumerate(requests):
            context, _, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            visual = doc_to_visual(doc)
            if len(visual) != 1 or not isinstance(visual[0], str):
                raise ValueError(f"{task}, document {doc_id}: needs the path of one video")
            # Our own tasks: the bare question and the closed answers that the model ranks.
            closed = "benchmark" in doc and not doc["choices"]
            rows[visual[0], not closed].append((number, doc["question"] if closed else context))
        texts = [""] * len(requests)
        with tqdm(total=len(requests), desc="avqa", disable=self.rank != 0) as bar:
            for (path, is_open), asked in rows.items():
                answers = self._engine.answer(
                    self._engine.read(path), [text for _, text in asked], open_ended=is_open
                )
                for (number, _), answer in zip(asked, answers, strict=True):
                    texts[number] = answer.answer
                bar.update(len(asked))
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args[:2], text)
        return texts

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not there: the model ranks its closed answers only."""
        raise NotImplementedError(
            "avqa answers with text: use a task of output_type generate_until"
        )

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not there: each question is answered on its own."""
        raise NotImplementedError("avqa answers each question on its own")
