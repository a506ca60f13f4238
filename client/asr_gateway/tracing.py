"""OpenTelemetry: a span for each session and file, which Triton's spans become part of.

On where OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names a collector and the extra
`traces` is installed; the other OTEL_ variables hold too. A span tells of times and sizes, never of
what was said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "asr-gateway"


class NoTracing:
    """Where there is no collector."""

    @contextmanager
    def within(self, headers: Mapping[str, str]) -> Iterator[None]:
        """What is begun in here belongs to the trace that a request's headers tell of."""
        yield

    @contextmanager
    def span(self, name: str, **attributes: str | float) -> Iterator[dict]:
        """A span around something.  Yields a dictionary for attributes known at its end."""
        yield {}

    def headers(self) -> dict[str, str]:
        """What tells another server of the span around this."""
        return {}

    def close(self) -> None:
        """Send what was not sent yet."""


class Tracing(NoTracing):
    """Spans to an OTLP collector over HTTP, in batches, from a thread."""

    def __init__(self):
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._propagate, self._trace = propagate, trace
        name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("asr_gateway")

    @contextmanager
    def within(self, headers: Mapping[str, str]) -> Iterator[None]:
        from opentelemetry import context

        token = context.attach(self._propagate.extract(headers))
        try:
            yield
        finally:
            context.detach(token)

    @contextmanager
    def span(self, name: str, **attributes: str | float) -> Iterator[dict]:
        at_end: dict = {}
        with self._tracer.start_as_current_span(name, attributes=attributes) as span:
            try:
                yield at_end
            finally:
                span.set_attributes(at_end)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier)
        return carrier

    def close(self) -> None:
        self._provider.shutdown()


def make_tracing() -> NoTracing:
    """As the environment says.  Raises ValueError where the packages for it are missing."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return NoTracing()
    try:
        return Tracing()
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed: pip install -e ".[traces]"') from None
