"""Greedy decoding over prompts with soft tokens, and ranking of closed answers.

Prompts of one batch are padded on the left; a batch shares one key-value cache, which later
questions about the same clips go on from.

Legend: B rows, L tokens, E width of the language model, V vocabulary, A answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Context:
    """What a language model has read so far, for a batch of rows."""

    cache: Any
    there_BL: Tensor
    """1 for what was read, 0 for padding."""
    lengths_B: Tensor
    """Tokens read in each row, without padding: the next position."""

    def rows(self, index: Tensor) -> Context:
        """The same for chosen rows, in any order and number. The original stays as it is."""
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(index)
        return Context(cache=cache, there_BL=self.there_BL[index], lengths_B=self.lengths_B[index])


def read(
    llm: Any, embeds: Sequence[Tensor], context: Context | None = None
) -> tuple[Context, Tensor]:
    """Let the model read one piece (L_i, E) a row, after what it has read before.

    Returns:
        The grown context (`context` itself, changed) and the logits (B, V) after each piece.
    """
    from transformers import DynamicCache

    longest = max(len(piece) for piece in embeds)
    batch = embeds[0].new_zeros(len(embeds), longest, embeds[0].shape[1])
    there = torch.zeros(len(embeds), longest, dtype=torch.long)
    for n, piece in enumerate(embeds):
        batch[n, longest - len(piece) :] = piece
        there[n, longest - len(piece) :] = 1
    if context is None:
        lengths = torch.zeros(len(embeds), dtype=torch.long)
        context = Context(cache=DynamicCache(), there_BL=there[:, :0], lengths_B=lengths)
    positions = (context.lengths_B[:, None] + there.cumsum(1) - 1).clamp(min=0)
    mask = torch.cat([context.there_BL, there], dim=1)
    hidden = _trunk(llm)(
        inputs_embeds=batch,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=context.cache,
        use_cache=True,
    ).last_hidden_state
    context.there_BL = mask
    context.lengths_B = context.lengths_B + there.sum(1)
    return context, _head(llm)(hidden[:, -1]).float()


def greedy(
    llm: Any, context: Context, logits_BV: Tensor, *, stops: set[int], limit: int
) -> tuple[list[list[int]], Tensor]:
    """Write on greedily until a stop token, which is read too.

    Returns:
        The tokens of each row without the stop, and the logits (B, V) after the stop
        (after `limit` tokens, where none came).
    """
    embed = llm.get_input_embeddings()
    rows = len(logits_BV)
    written: list[list[int]] = [[] for _ in range(rows)]
    open_ = torch.ones(rows, dtype=torch.bool)
    final = logits_BV.clone()
    for _ in range(limit):
        tokens = logits_BV.argmax(-1)
        pieces = []
        was_open = open_.clone()
        for n, token in enumerate(tokens.tolist()):
            pieces.append(embed(tokens[n : n + 1]) if was_open[n] else embed.weight[:0])
            if was_open[n] and token in stops:
                open_[n] = False
            elif was_open[n]:
                written[n].append(token)
        context, logits_BV = read(llm, pieces, context)
        final = torch.where(was_open[:, None], logits_BV, final)
        if not open_.any():
            break
    return written, final


def rank(llm: Any, context: Context, logits_BV: Tensor, answers: Sequence[list[int]]) -> Tensor:
    """Log-likelihood (B, A) of each answer (token ids) as the next words.

    The first tokens' likelihoods are at hand; answers whose first token alone is already
    hopeless next to the best (under e^-12) are not read further.
    """
    first = logits_BV.log_softmax(-1)
    scores = torch.stack([first[:, ids[0]] for ids in answers], dim=1)
    if all(len(ids) == 1 for ids in answers):
        return scores
    hopeful = scores > scores.max(1, keepdim=True).values - 12
    wanted = [
        (b, a)
        for b in range(len(scores))
        for a, ids in enumerate(answers)
        if len(ids) > 1 and hopeful[b, a]
    ]
    if not wanted:
        return scores
    embed = llm.get_input_embeddings()
    branch = context.rows(torch.tensor([b for b, _ in wanted]))
    longest = max(len(answers[a]) for _, a in wanted) - 1
    logits: Tensor = first
    extra = torch.zeros(len(wanted))
    for at in range(longest):
        pieces = [embed(torch.tensor(answers[a][at : at + 1], dtype=torch.long)) for _, a in wanted]
        branch, logits = read(llm, pieces, branch)
        likely = logits.log_softmax(-1)
        for n, (_, a) in enumerate(wanted):
            if at + 1 < len(answers[a]):
                extra[n] = extra[n] + likely[n, answers[a][at + 1]]
    for n, (b, a) in enumerate(wanted):
        scores[b, a] = scores[b, a] + extra[n]
    return scores


def _trunk(llm: Any) -> Any:
    inner = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    return inner.model


def _head(llm: Any) -> Any:
    inner = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    return inner.lm_head
