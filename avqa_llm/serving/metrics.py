"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from avqa_llm.serving.contract import Done
from avqa_llm.serving.counters import COUNTERS

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


class Metrics:
    """All figures of one gateway; those of its service are read when they are asked for."""

    def __init__(self, counters: Callable[[], Mapping[str, float]]) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter(
            "avqa_requests", "Requests.", ["method", "route", "status"], registry=own
        )
        self.seconds = Histogram(
            "avqa_request_seconds",
            "From arrival to end.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.first = Histogram(
            "avqa_first_event_seconds",
            "From arrival until the prompt of an answer stands.",
            buckets=_SECONDS,
            registry=own,
        )
        self.refused = Counter("avqa_refused", "Refusals.", ["code"], registry=own)
        self.tokens = Counter("avqa_tokens", "Tokens.", ["kind"], registry=own)
        self.uploaded = Counter("avqa_uploads", "Uploads that were kept.", registry=own)
        self.uploaded_bytes = Counter("avqa_upload_bytes", "Their bytes.", registry=own)
        self.stored = Gauge("avqa_stored_bytes_now", "Bytes of all uploads.", registry=own)
        self._registry.register(_OfService(counters))

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is wanted."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has ended. `route`: its template, so that ids make no series."""
        method = method if method in _METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def answered(self, done: Done, prompt_tokens: int) -> None:
        """An answer has ended."""
        self.tokens.labels("prompt").inc(prompt_tokens)
        self.tokens.labels("completion").inc(done.completion_tokens)
        if done.answer.consumed is not None:
            self.tokens.labels("sound").inc(done.answer.consumed.sound_tokens)
            self.tokens.labels("picture").inc(done.answer.consumed.picture_tokens)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class _OfService(Collector):
    def __init__(self, counters: Callable[[], Mapping[str, float]]) -> None:
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        for name, value in sorted(self._counters().items()):
            kind = GaugeMetricFamily if name.endswith("_now") else CounterMetricFamily
            yield kind(f"avqa_service_{name}", COUNTERS.get(name, name), value=value)
