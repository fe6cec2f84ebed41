"""The figures that a service keeps for `/metrics`: their names, and what they count.

Names that end in `_now` are gauges; all others only grow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

COUNTERS: dict[str, str] = {
    "answers": "Answers that were given.",
    "answers_failed": "Requests that ended in an error.",
    "answers_cancelled": "Requests whose asker went away.",
    "answers_refused": "Requests refused because too much was waiting.",
    "prompt_tokens": "Tokens of prompts, soft tokens included.",
    "completion_tokens": "Tokens that were written.",
    "sound_tokens": "Sound tokens that entered prompts.",
    "picture_tokens": "Picture tokens that entered prompts.",
    "answers_without_sound": "Answers to which no sound token contributed.",
    "clips_decoded": "Media files that were decoded.",
    "clips_encoded": "Clips that the encoders were run on.",
    "encode_batches": "Batches in which clips were encoded.",
    "feature_hits": "Clips whose features were in memory or on disk.",
    "feature_misses": "Clips whose features had to be computed.",
    "reading_hits": "Questions about a clip that the model had read before.",
    "reading_misses": "Questions for which the clip had to be read first.",
    "reading_joins": "Questions that waited for a reading that another one had begun.",
    "digest_batches": "Batches in which clips were read.",
    "ask_batches": "Batches in which questions were answered.",
    "questions_batched": "Questions that were answered in those batches.",
    "readings_evicted": "Readings that left memory to make room.",
    "adapters_added": "Adapters added at run time.",
    "adapters_removed": "Adapters removed at run time.",
    "engine_restarts": "Times that vLLM was started again.",
    "in_flight_now": "Requests being answered.",
    "waiting_now": "Jobs that wait for a worker.",
    "readings_now": "Readings in memory.",
    "reading_bytes_now": "Bytes of these readings.",
    "models_now": "Models that are served.",
}


class Counts:
    """Counters that several threads may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter({name: 0 for name in COUNTERS})

    def add(self, name: str, by: int = 1) -> None:
        """Raise a counter. Raises KeyError for a name that is not in `COUNTERS`."""
        COUNTERS[name]
        with self._lock:
            self._values[name] += by

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Count what becomes of the answer inside: given, cancelled or failed."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.add("answers_cancelled")
            raise
        except BaseException:
            self.add("answers_failed")
            raise
        self.add("answers")

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def all(self, **gauges: float) -> dict[str, float]:
        """Every figure, the gauges with the values that are given."""
        with self._lock:
            return {**{name: float(n) for name, n in self._values.items()}, **gauges}
