"""The engine with its language model and bridge on another device than the processor.

There is no such device here. Tensors "there" are ordinary ones with a mark: whatever is made of
them has it too, they name the other device as their own, and an operation on a marked tensor
and one without fails, as it does on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from avqa_llm.answer import Answer
from avqa_llm.engine import LocalEngine, Session
from avqa_llm.generation import Decoder, Parts, greedy, rank, read
from avqa_llm.prompt import Turn
from tests.model_parts import QUESTIONS, small_clip, small_llm, small_model

PROCESSOR, ELSEWHERE = torch.device("cpu"), torch.device("cuda", 0)
MARK = "is_elsewhere"
MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
INTO = (Tensor.copy_, Tensor.__setitem__, Tensor.__deepcopy__)
ACROSS = (*MOVES, Tensor.copy_, Tensor.__deepcopy__)
"""What may have tensors of both devices."""
DEVICE_OF = Tensor.device.__get__
CLIP = small_clip(0)
CLIPS = (CLIP, small_clip(1, 5), CLIP.muted())
ROWS = ((0, QUESTIONS[0]), (1, QUESTIONS[0]), (2, QUESTIONS[1]), (0, " ".join(QUESTIONS)))
CHOICES = ("piano", "piano and flute", "no")


class Elsewhere(TorchFunctionMode):
    """Two devices on one processor."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        marked = [tensor for tensor in given if hasattr(tensor, MARK)]
        if func == DEVICE_OF:
            return ELSEWHERE if marked else PROCESSOR
        foreign = [one for one in given if not hasattr(one, MARK) and one.dim()]
        if marked and foreign and func not in ACROSS and not _assigns(func, args):
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
        wanted = [PROCESSOR] if func is Tensor.cpu else []
        wanted += [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
        there = bool(marked)
        if wanted:
            there = wanted[0].type != PROCESSOR.type
        elif func is Tensor.to and isinstance(args[-1], Tensor) and len(args) > 1:
            there = hasattr(args[1], MARK)
        elif func in INTO:
            there = hasattr(args[0], MARK)
        args, kwargs = tree_map(_on_processor, (args, kwargs))
        made = func(*args, **kwargs)
        if func in MOVES and made is args[0] and there != bool(marked):
            made = made.detach().clone()  # a tensor of its own there
        return tree_map(lambda leaf: _placed(leaf, there=there), made)


def _assigns(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a tensor is copied into a slice, which may be on another device."""
    return func is Tensor.__setitem__ and not any(
        isinstance(leaf, Tensor) and leaf.dim() for leaf in tree_leaves(args[1])
    )


def _on_processor(leaf: Any) -> Any:
    return PROCESSOR if isinstance(leaf, torch.device) else leaf


def _placed(leaf: Any, *, there: bool) -> Any:
    if isinstance(leaf, Tensor) and there != hasattr(leaf, MARK):
        if there:
            setattr(leaf, MARK, True)
        else:
            delattr(leaf, MARK)
    return leaf


def move(*parts: nn.Module) -> None:
    for part in parts:
        for tensor in (*part.parameters(), *part.buffers()):
            setattr(tensor, MARK, True)


def everything(engine: LocalEngine) -> list[Answer]:
    """Labels, choices, free text, evidence, a conversation."""
    answers = engine.answer_many(CLIPS, ROWS, evidence=True)
    answers += engine.answer_many(CLIPS, ROWS, choices=[CHOICES, (), CHOICES[:2], ()])
    answers += engine.answer_many(CLIPS, ROWS, open_ended=True)
    session = Session(engine, CLIP)
    answers += [session.ask(question) for question in QUESTIONS[:2]]
    turns = [Turn(question=QUESTIONS[0], answer="two")]
    answers += engine.answer(CLIP, QUESTIONS, history=turns, open_ended=True)
    return [replace(answer, timing_s={}) for answer in answers]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several batches of everything, of which rows leave early."""
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 6)
    monkeypatch.setattr("avqa_llm.engine.CLIPS", 2)
    monkeypatch.setattr("avqa_llm.engine.READ", 1)
    monkeypatch.setattr("avqa_llm.generation.SHRINK", 1.0)
    yield


def test_answers_elsewhere_are_the_same() -> None:
    here, model = LocalEngine(small_model()), small_model()
    model.llm.merge_adapter()
    move(model.llm, model.bridge)  # what encoders make comes back to the processor in any case
    with Elsewhere():
        there = LocalEngine(model)
    assert here.decoder.shares
    assert there.decoder.shares, "sharing a prefix failed there, and nothing said so"
    expected = everything(here)
    with Elsewhere():
        assert everything(there) == expected


def test_rows_that_leave_early() -> None:
    """They stop at different times; their contexts are joined again, and read on."""
    here, llm = Decoder(small_llm("llama")), small_llm("llama")
    torch.manual_seed(5)
    pieces = list(torch.randn(3, 5, here.embed.weight.shape[1]))
    with torch.no_grad():
        stop = greedy(here, *read(here, pieces), stops=set(), limit=2)[0].ids[0][-1]
        expected, contexts = written_and_ranked(here, pieces, stop)
        move(llm)
        with Elsewhere():
            there = Decoder(llm)
            found, _ = written_and_ranked(there, [one.to(ELSEWHERE) for one in pieces], stop)
    assert contexts > 1
    assert found == expected


def written_and_ranked(decoder: Decoder, pieces: list[Tensor], stop: int) -> tuple[Any, int]:
    written, logits, parts = greedy(decoder, *read(decoder, pieces), stops={stop}, limit=4)
    answers = [[[3], [4, 5], [6, 7, 8]]] * len(pieces)
    scores = rank(decoder, Parts.of(parts.whole()), logits, answers)
    return (written.ids, scores.tolist()), len(parts.contexts)


def test_the_stand_in_minds_devices() -> None:
    numbers = torch.arange(3)
    with Elsewhere():
        there = torch.arange(3, device=ELSEWHERE)
        assert there.device == (there + 1).device == numbers.to(there.device).device == ELSEWHERE
        assert numbers.device == there.cpu().device == PROCESSOR
        assert (there * torch.tensor(2)).tolist() == [0, 2, 4]
        for mixed in (lambda: there + numbers, lambda: there[numbers], lambda: numbers[there]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
