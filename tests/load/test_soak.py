"""The small version of soak.py: what 2000 short sessions leave."""

from __future__ import annotations

import pytest

from asr_server import TritonServer
from load.soak import IDLE_TIMEOUT_S, Sample, measure, soak, wait_until_free
from server.conftest import settings_for
from server.test_metrics import total

pytestmark = pytest.mark.server


def test_2000_short_sessions_leave_nothing(checkpoints, recognizer):
    samples: list[Sample] = []
    settings = settings_for(checkpoints("tiny"), idle_timeout_s=IDLE_TIMEOUT_S)
    with TritonServer(settings) as server:
        warm = soak(server, recognizer, 500, samples.append, every=500)
        outcomes = soak(server, recognizer, 2000, samples.append, every=500)
        wait_until_free(server)
        samples.append(measure(server, 2500))
        started = total(server, "asr_streams_started_total")
        assert started == total(server, "asr_streams_ended_total")
        whole = warm + outcomes
        assert started == whole["ended"] + whole["abandoned"] + whole["killed"]
        assert total(server, "asr_streams_ended_total", reason="end") == whole["ended"]
    assert min(outcomes[kind] for kind in ("ended", "abandoned", "killed", "refused")) > 20
    first, last = samples[0], samples[-1]
    told = "\n".join(map(str, samples))
    assert last.model_mib - first.model_mib < 24, told
    assert last.server_mib - first.server_mib < 64, told  # remembers streams that nobody ended
    assert last.shm_mib - first.shm_mib < 4.5, told  # one step of growth
