"""Ask a server to do its work: Triton's health endpoints are green even if a model is dead."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import httpx

AT_CAPACITY = "UNAVAILABLE: at capacity"  # a full server is alive
PROBE_MODEL = "asr_streaming"


@dataclass(frozen=True)
class Probe:
    """Opens and ends a live stream of no audio: real inferences through the sequence batcher.

    timeout_s: per request. A model whose process is dead does not refuse, it never answers.
    """

    http_url: str
    metrics_url: str
    model: str = PROBE_MODEL
    timeout_s: float = 10.0

    def __call__(self) -> str | None:
        """None if the model answers, or was seen to answer others meanwhile; else what is wrong."""
        with httpx.Client(timeout=self.timeout_s, trust_env=False) as client:
            successes = self._num_successes(client)
            try:
                return self._stream_of_no_audio(client)
            except httpx.TimeoutException:
                # so many streams wait for a place that ours did not get one: busy, not dead
                if successes is not None and self._num_successes(client) != successes:
                    return None
                return f"no answer from {self.model} within {self.timeout_s:g} s"
            except httpx.HTTPError as error:
                return f"no answer from {self.model}: {error}"

    def _stream_of_no_audio(self, client: httpx.Client) -> str | None:
        sequence_id = random.getrandbits(63) or 1  # 0 is "no sequence"
        started = self._infer(client, sequence_id, start=True, end=False)
        # also after a refused start: it holds one of Triton's candidate places until END
        ended = self._infer(client, sequence_id, start=False, end=True)
        if started is not None and AT_CAPACITY in started:
            return None
        return started or ended

    def _infer(self, client: httpx.Client, sequence_id: int, start: bool, end: bool) -> str | None:
        """None, or the error that the server answered."""
        body = {
            "inputs": [{"name": "AUDIO", "shape": [1, 0], "datatype": "INT16", "data": []}],
            "outputs": [{"name": "TEXT"}],
            "parameters": {
                "sequence_id": sequence_id,
                "sequence_start": start,
                "sequence_end": end,
            },
        }
        response = client.post(f"{self.http_url}/v2/models/{self.model}/infer", json=body)
        if response.status_code == httpx.codes.OK:
            return None
        try:
            return str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            return f"status {response.status_code} {response.text[:200]}"

    def _num_successes(self, client: httpx.Client) -> int | None:
        """How many requests the model has answered, None if the metrics do not tell."""
        try:
            text = client.get(self.metrics_url).text
        except httpx.HTTPError:
            return None
        pattern = (
            rf'^nv_inference_request_success{{[^}}]*model="{re.escape(self.model)}"[^}}]*}} (\d+)'
        )
        counts = re.findall(pattern, text, re.M)
        return sum(map(int, counts)) if counts else None
