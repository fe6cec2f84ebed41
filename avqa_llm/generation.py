"""Greedy decoding over prompts with soft tokens, and ranking of closed answers.

Prompts of one batch are padded on the left; a batch shares one key-value cache, which later
questions about the same clips go on from.

Legend: B rows, L tokens, E width of the language model, V vocabulary, A answers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from avqa_llm.prefix import ATTENTION, OwnLayer, Prefix, Prefixes

HOPELESS = 9.0
"""An answer that is sure to be e^9 (8000) times less likely than another is not read to its end."""
RANKED = 64
"""Answers that are read as one batch."""
Watch = Callable[[list[int], list[int], list[float], Tensor], Sequence[int]]
"""Is told of rows, their new tokens, log-probabilities of these and the logits (rows, V) that they
were chosen from; says which rows are to write no more."""
SHRINK = 0.75
"""When less than this share of a batch is still being written, the other rows leave it."""


@dataclass
class Context:
    """What a language model has read so far, for a batch of rows."""

    cache: Any
    there_BL: Tensor
    """Whether something was read there; False for padding."""
    lengths_B: Tensor
    """Tokens read in each row, without padding: the next position."""
    shares: bool = False
    """Whether rows that are chosen from this one share what it has read."""
    prefixes: Prefixes | None = None
    """What was read before the tokens in the cache, and is shared."""
    _split: tuple[int, list[Prefix]] | None = None
    """What `branch` made of the rows, when they were so long."""

    def branch(self, index: Tensor) -> Context:
        """Rows that go on from chosen ones, in any order and number. The original stays as it is.

        What was read so far is not copied for each of them, if the model can do without.
        """
        if self.prefixes or not self.shares:
            return self.rows(index)
        length = self.there_BL.shape[1]
        if self._split is None or self._split[0] != length:  # it may have been read on meanwhile
            self._split = (length, [self._row(n) for n in range(len(self.lengths_B))])
        own = [OwnLayer(length) for _ in self.cache.layers]
        return self._of(index, own, Prefixes(self._split[1], index, length))

    def _row(self, n: int) -> Prefix:
        columns = self.there_BL[n].nonzero()[:, 0]
        owned = [layer.own() for layer in self.cache.layers]
        layers = [(k[n : n + 1, :, columns], v[n : n + 1, :, columns]) for k, v in owned]
        return Prefix(layers, columns)

    def alone(self, n: int) -> Context:
        """A copy of one row without padding and spare room."""
        prefix = self._row(n)
        length = len(prefix.columns_P)
        columns = torch.arange(length, device=self.there_BL.device)
        return Context(
            cache=Cache(layers=[OwnLayer.of(*layer) for layer in prefix.layers]),
            there_BL=torch.ones_like(columns, dtype=torch.bool)[None],
            lengths_B=self.lengths_B[n : n + 1].clone(),
            shares=self.shares,
            _split=(length, [Prefix(prefix.layers, columns)]),
        )

    def rows(self, index: Tensor) -> Context:
        """A copy of chosen rows, in any order and number; what they share is shared still."""
        own = [layer.rows(index) for layer in self.cache.layers]
        return self._of(index, own, self.prefixes.rows(index) if self.prefixes else None)

    def _of(self, index: Tensor, own: list[OwnLayer], prefixes: Prefixes | None) -> Context:
        return Context(
            cache=Cache(layers=own),
            there_BL=self.there_BL[index],
            lengths_B=self.lengths_B[index],
            shares=self.shares,
            prefixes=prefixes,
        )


@dataclass(frozen=True)
class Parts:
    """A batch whose rows have stopped at different times: each is in one of some contexts."""

    contexts: Sequence[Context]
    context_B: Tensor
    """Which context each row is in."""
    row_B: Tensor
    """Which row of it."""

    @classmethod
    def of(cls, context: Context) -> Parts:
        """All rows in one context."""
        lengths_B = context.lengths_B
        rows = torch.arange(len(lengths_B), device=lengths_B.device)
        return cls([context], torch.zeros_like(rows), rows)

    def with_rows(self, index: Tensor, context: Context) -> Parts:
        """The same, but that chosen rows are now those of another context, in order."""
        context_B, row_B = self.context_B.clone(), self.row_B.clone()
        context_B[index] = len(self.contexts)
        row_B[index] = torch.arange(len(index), device=index.device)
        return Parts([*self.contexts, context], context_B, row_B)

    def pick(self, index: Tensor) -> tuple[Context, Tensor]:
        """A copy of chosen rows in an order of its own, and that order of `index`."""
        context_B, row_B = self.context_B[index], self.row_B[index]
        chosen = [row_B[context_B == n] for n in range(len(self.contexts))]
        picked = [c.rows(rows) for c, rows in zip(self.contexts, chosen, strict=True) if len(rows)]
        return joined(picked), context_B.argsort(stable=True)

    def whole(self) -> Context:
        """All rows as one context."""
        if len(self.contexts) == 1:
            return self.contexts[0]
        context, order = self.pick(torch.arange(len(self.row_B), device=self.row_B.device))
        return context.rows(order.argsort())


def joined(contexts: Sequence[Context]) -> Context:
    """The rows of some contexts one after the other, padded on the right."""
    if len(contexts) == 1:
        return contexts[0]
    same = zip(*(context.cache.layers for context in contexts), strict=True)
    prefixes = [context.prefixes for context in contexts if context.prefixes]
    longest = max(context.there_BL.shape[1] for context in contexts)
    missing = [longest - context.there_BL.shape[1] for context in contexts]
    there = [
        torch.nn.functional.pad(context.there_BL, (0, count))
        for context, count in zip(contexts, missing, strict=True)
    ]
    return Context(
        cache=Cache(layers=[OwnLayer.joined(layers) for layers in same]),
        there_BL=torch.cat(there),
        lengths_B=torch.cat([context.lengths_B for context in contexts]),
        shares=contexts[0].shares,
        prefixes=prefixes[0].joined(prefixes[1:]) if prefixes else None,
    )


def apart(context: Context) -> list[Context]:
    """Each row as a context of its own, without padding and spare room: to be kept."""
    return [context.alone(n) for n in range(len(context.lengths_B))]


def together(contexts: Sequence[Context]) -> Context:
    """Contexts that `apart` gave as one, to branch from and for nothing else.

    Nothing is copied if the model can do without.
    """
    if len(contexts) == 1 or not all(context.shares for context in contexts):
        return joined(contexts)
    longest = max(context.there_BL.shape[1] for context in contexts)
    pad = torch.nn.functional.pad
    there = [pad(c.there_BL, (0, longest - c.there_BL.shape[1])) for c in contexts]
    prefixes = [prefix for c in contexts if c._split for prefix in c._split[1]]
    return Context(
        cache=contexts[0].cache,  # asked for the number of its layers only
        there_BL=torch.cat(there),
        lengths_B=torch.cat([context.lengths_B for context in contexts]),
        shares=True,
        _split=(longest, prefixes),
    )


class Decoder:
    """A causal language model for reading and writing, without gradients.

    Weights are those of the model that is given; LoRA has to be merged into them.
    """

    def __init__(self, llm: Any) -> None:
        self.llm = _plain(llm)
        self.embed = self.llm.get_input_embeddings()
        self.shares = self._can_share()

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        place: torch.device = self.embed.weight.device
        return place

    def start(self, rows: int) -> Context:
        """Nothing read yet."""
        return Context(
            cache=Cache(layer_class_to_replicate=OwnLayer),
            there_BL=torch.zeros(rows, 0, dtype=torch.bool, device=self.device),
            lengths_B=torch.zeros(rows, dtype=torch.long, device=self.device),
            shares=self.shares,
        )

    def feed(self, context: Context, embeds_BLE: Tensor, there_BL: Tensor, keep: int = 1) -> Tensor:
        """Let the model read on; `context` grows. Logits (B, `keep`, V) after the last tokens."""
        positions = (context.lengths_B[:, None] + there_BL.cumsum(1) - 1).clamp(min=0)
        context.there_BL = torch.cat([context.there_BL, there_BL], dim=1)
        context.lengths_B = context.lengths_B + there_BL.sum(1)
        shared = {"prefixes": context.prefixes} if context.prefixes else {}
        out = self.llm(
            inputs_embeds=embeds_BLE,
            attention_mask=context.there_BL,
            position_ids=positions,
            past_key_values=context.cache,
            use_cache=True,
            logits_to_keep=keep,
            **shared,
        )
        logits: Tensor = out.logits.float()
        return logits

    def _can_share(self) -> bool:
        """Try it: a model that attends in a way of its own refuses or gives other logits."""
        ids = torch.arange(5, device=self.device) % self.embed.weight.shape[0]
        words = self.embed(ids)
        with torch.no_grad():
            expected = self.llm(inputs_embeds=words[None]).logits[0, -1].float()
            before = self.llm.config._attn_implementation
            try:
                self.llm.set_attn_implementation(ATTENTION)
                self.shares = True
                context, _ = read(self, [words[1:3], words[:3]])
                again = torch.tensor([0, 1, 1], device=self.device)
                _, logits = read(self, [words[3:]] * 3, context.branch(again))
                if torch.allclose(logits[2], expected, rtol=1e-3, atol=1e-3):
                    return True
            except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
                pass  # it is not built for attention of others
            self.llm.set_attn_implementation(before)
        return False


def read(
    decoder: Decoder, pieces: Sequence[Tensor], context: Context | None = None
) -> tuple[Context, Tensor]:
    """Let the model read one piece (L_i, E) a row, after what it has read before.

    Returns:
        The grown context (`context` itself, changed) and the logits (B, V) after each piece.
    """
    context = context or decoder.start(len(pieces))
    return context, decoder.feed(context, *_left_padded(pieces))[:, -1]


def _left_padded(pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pieces (L_i, E) as one batch (B, L, E), and which of it is there (B, L)."""
    longest = max(len(piece) for piece in pieces)
    batch = pieces[0].new_zeros(len(pieces), longest, pieces[0].shape[1])
    there = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for n, piece in enumerate(pieces):
        batch[n, longest - len(piece) :] = piece
        there[n, longest - len(piece) :] = True
    return batch, there.to(batch.device)


@dataclass(frozen=True)
class Written:
    """What the rows of a batch wrote."""

    ids: list[list[int]]
    """Tokens of each row, without the stop."""
    chances: list[list[float]]
    """Log-probability of each of them, and of the stop where one came."""


def greedy(
    decoder: Decoder,
    context: Context,
    logits_BV: Tensor,
    *,
    stops: set[int],
    limit: int,
    watch: Watch | None = None,
) -> tuple[Written, Tensor, Parts]:
    """Write on greedily until a stop token, which is read too. `context` is used up.

    `watch` is told of every token that is not a stop, and may end rows.

    Returns:
        What each row wrote, the logits (B, V) after the stop (after `limit` tokens, where none
        came), and the contexts there.
    """
    written = Written([[] for _ in logits_BV], [[] for _ in logits_BV])
    final = logits_BV.clone()
    device = logits_BV.device
    ends = torch.tensor(sorted(stops), dtype=torch.long, device=device)
    here = torch.arange(len(logits_BV), device=device)  # numbers of the rows in the batch
    open_ = torch.ones_like(here, dtype=torch.bool)
    place = torch.stack([torch.zeros_like(here), here])  # context and row in it
    contexts = [context]
    for _ in range(limit):
        tokens, reads = logits_BV.argmax(-1), open_
        open_ = goes = reads & ~torch.isin(tokens, ends)
        likely = logits_BV.amax(-1) - logits_BV.logsumexp(-1)
        if watch is not None:
            open_ = open_ & ~_ended(watch, here, open_, (tokens, likely, logits_BV))
        rows = (part[reads].tolist() for part in (here, tokens, likely, goes))
        for n, token, chance, goes_on in zip(*rows, strict=True):
            written.chances[n].append(chance)
            if goes_on:
                written.ids[n].append(token)
        logits_BV = decoder.feed(context, decoder.embed(tokens)[:, None], reads[:, None])[:, -1]
        final[here[reads]] = logits_BV[reads]
        if not open_.any():
            break
        if open_.sum() < SHRINK * len(open_):
            stay = open_.nonzero()[:, 0]
            contexts.append(context.rows(stay))
            context, here, logits_BV = contexts[-1], here[stay], logits_BV[stay]
            place[0, here] = len(contexts) - 1
            place[1, here] = torch.arange(len(here), device=device)
            open_ = open_[stay]
    return written, final, Parts(contexts, place[0], place[1])


def _ended(watch: Watch, here: Tensor, goes: Tensor, new: Sequence[Tensor]) -> Tensor:
    """Which rows of the batch (B,) are to write no more."""
    rows = here[goes]
    tokens, likely, logits = (part[goes] for part in new)
    told = watch(rows.tolist(), tokens.tolist(), likely.tolist(), logits) if len(rows) else ()
    return torch.isin(here, torch.tensor(list(told), dtype=torch.long, device=here.device))


def rank(
    decoder: Decoder, parts: Parts, logits_BV: Tensor, answers: Sequence[Sequence[list[int]]]
) -> Tensor:
    """Log-likelihood (B, A) of answers (token ids) as the next words; each row has its own list.

    The first tokens' likelihoods are at hand. Answers that cannot come near the best one of a
    single token are not read to their end. Rows with fewer than A answers have -inf there.
    """
    first = logits_BV.log_softmax(-1)
    most = max(len(row) for row in answers)
    padded = [[*row, *[[]] * (most - len(row))] for row in answers]
    firsts = [[ids[0] if ids else 0 for ids in row] for row in padded]
    heads = torch.tensor(firsts, device=first.device)
    lengths = torch.tensor([[len(ids) for ids in row] for row in padded], device=first.device)
    scores = first.gather(1, heads).masked_fill(lengths == 0, -torch.inf)
    best = scores.masked_fill(lengths > 1, -torch.inf).amax(1, keepdim=True)
    wanted = ((lengths > 1) & (scores > best - HOPELESS)).nonzero()
    for some in wanted.split(RANKED) if len(wanted) else ():
        context, order = parts.pick(some[:, 0])
        rows, columns = some[order].T
        texts = [answers[b][a] for b, a in some[order].tolist()]
        scores[rows, columns] += _rest(decoder, context, texts)
    return scores


def _rest(decoder: Decoder, context: Context, texts: Sequence[list[int]]) -> Tensor:
    """Log-likelihood (N,) of all tokens but the first of each text, which `context` goes on to."""
    read_in = torch.tensor([i for ids in texts for i in ids[:-1]], device=decoder.device)
    pieces = decoder.embed(read_in).split([len(ids) - 1 for ids in texts])
    embeds, there = _left_padded(pieces)
    nexts = torch.zeros(there.shape, dtype=torch.long)
    for row, ids in zip(nexts, texts, strict=True):
        row[-len(ids) + 1 :] = torch.tensor(ids[1:])
    likely = decoder.feed(context, embeds, there, keep=there.shape[1]).log_softmax(-1)
    nexts = nexts.to(likely.device)
    return (likely.gather(2, nexts[..., None])[..., 0] * there).sum(1)


def _plain(llm: Any) -> Any:
    """The causal language model inside peft without the LoRA layers, which are merged."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    # Not a weight is copied: what is known to the second argument stays the same object.
    plain = copy.deepcopy(inner, {id(weight): weight for weight in inner.parameters()})
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer) and module.merged:
            plain.set_submodule(name, module.get_base_layer())
    return plain.eval()
