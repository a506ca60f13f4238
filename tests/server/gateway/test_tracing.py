"""Traces of OpenTelemetry: a client's, the gateway's and Triton's spans are one trace."""

from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asr_server import TritonServer
from server.conftest import pcm, settings_for
from server.gateway.conftest import start_gateway, stop

pytestmark = pytest.mark.server
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An OTLP collector on loopback; spans: name, trace id, span id, parent id, attributes."""

    def __init__(self):
        self.spans: list[tuple[str, str, str, str, dict]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body, self.headers.get("Content-Type", ""))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: bytes, content_type: str) -> None:
        if "json" in content_type:
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for s in scope["spans"]:
                        ids = (s["traceId"], s["spanId"], s.get("parentSpanId", ""))
                        self.spans.append((s["name"], *ids, {}))
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for s in scope.spans:
                    ids = (s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex())
                    self.spans.append((s.name, *ids, {a.key: a.value for a in s.attributes}))


@pytest.fixture
def collector():
    running = Collector()
    yield running
    running.server.shutdown()


def test_a_session_is_one_trace_through_gateway_and_triton(checkpoints, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    traced = settings_for(checkpoints("tiny"), trace_url=f"{collector.url}/v1/traces")
    with TritonServer(traced) as server:
        gateway = start_gateway(server)
        headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
        with gateway.socket("/v1/stream", additional_headers=headers) as socket:
            socket.send("{}")
            socket.recv()
            socket.send(pcm(20_000, seed=1).tobytes())
            socket.send('{"type": "end"}')
            text = "".join(json.loads(message).get("text", "") for message in socket)
        stop(gateway)
        give_up_s = time.monotonic() + 30
        while not any("asr_streaming" in s[0] for s in ours(collector)):
            assert time.monotonic() < give_up_s, collector.spans
            time.sleep(0.2)
    by_name = {span[0]: span for span in ours(collector)}
    session = by_name["live session"]
    assert session[3] == SPAN_ID
    assert session[4]["door"].string_value == "websocket"
    assert session[4]["audio_s"].double_value == pytest.approx(1.25)
    assert {span[3] for span in ours(collector) if span[0] == "InferRequest"} == {session[2]}
    assert text
    assert text.strip() not in str(collector.spans)


def ours(collector: Collector) -> list[tuple]:
    return [span for span in collector.spans if span[1] == TRACE_ID]
