"""How much a stream takes while nothing is answered."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asr_client.audio import MODEL_FORMAT
from asr_client.patience import Patience
from asr_client.replay import AUDIO, SILENCE
from asr_client.session import StreamSession
from unit.test_client_session import response

SECOND = np.zeros(MODEL_FORMAT.num_samples(1000), np.int16)
SAMPLE = SECOND[:1]
KINDS = {
    "keep-alives": [(SILENCE, {})],
    "finalize": [(SILENCE, {"finalize": True})],
    "languages": [(SILENCE, {"language": name}) for name in ("de-DE", "fr-FR")],
    "samples and finalize": [(SAMPLE, {}), (SILENCE, {"finalize": True})],
    "samples and keep-alives": [(SAMPLE, {}), (SILENCE, {})],
}


def stream() -> tuple[StreamSession, Patience]:
    """A stream whose START is answered, and which may keep 300 s of audio."""
    session = StreamSession({}, details=True, progress=False, replay=True, merge=True)
    patience = Patience(
        "url", session, max_in_flight=64, max_backlog=300 * len(SECOND), timeout_s=1, reconnect_s=9
    )
    list(session.requests())
    session.accept(response("", server={}))
    return session, patience


def taken(session: StreamSession, patience: Patience, packets) -> int:
    """How many of them before there is no more room."""
    for count, (pcm, options) in enumerate(itertools.cycle(packets)):
        if not patience.has_room() or count == 20_000:
            return count
        session.put(AUDIO, pcm, **options)
        list(session.requests())


@pytest.mark.parametrize("kind", KINDS)
def test_packets_without_an_answer_are_bounded(kind):
    session, patience = stream()
    assert taken(session, patience, KINDS[kind]) <= 65
    patience.on_loss(0)
    session.restart()
    assert 60 < taken(session, patience, KINDS[kind]) <= 6001
    assert len(list(session.tape)) <= 6002


def test_audio_is_kept_up_to_its_limit_while_a_server_is_away():
    session, patience = stream()
    patience.on_loss(0)
    session.restart()
    in_20_ms = np.split(SECOND, 50)
    assert taken(session, patience, [(part, {}) for part in in_20_ms]) == 300 * 50
    assert session.tape.backlog == 300 * len(SECOND)
