"""A stream that lives for long: minutes of it on the real server, and counters far beyond hours."""

from __future__ import annotations

import pytest

from load.soak import Moment, long_stream
from nemotron_asr import load_checkpoint
from nemotron_asr.chunks import Chunk
from nemotron_asr.config import TOKEN_FRAME_SAMPLES
from server.conftest import pcm

YEAR = 365 * 24 * 3600 * 16_000 // TOKEN_FRAME_SAMPLES  # frames


@pytest.mark.server
def test_minutes_of_one_stream_leave_nothing(demo_server, demo_checkpoint):
    """`tests/load/soak.py --hours 8` is the long version."""
    moments: list[Moment] = []
    recognizer = load_checkpoint(demo_checkpoint)
    found = long_stream(demo_server, recognizer, 0.15, moments.append, every_s=60)
    assert found[-1].end_ms > 0.13 * 3_600_000
    first, last = moments[1].held, moments[-1].held
    told = "\n".join(map(str, moments))
    assert last.model_mib - first.model_mib < 16, told
    assert last.server_mib - first.server_mib < 16, told
    assert last.shm_mib == first.shm_mib, told
    assert max(moment.kept_s for moment in moments) < 300, told  # max_replay_s


@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_a_year_into_a_segment_frames_are_what_they_were_in_its_first_minutes(
    recognizer, lookahead
):
    """No counter of samples, mel or encoder frames is too small: a year is 2^39 samples."""
    samples, num_frames = pcm(40 * TOKEN_FRAME_SAMPLES, seed=1), lookahead + 1

    def tokens(frames_before: int) -> list[tuple]:
        encoder, prediction = recognizer.fresh_encoder(1, 14), recognizer.fresh_prediction(1)
        start = (frames_before - 4) * TOKEN_FRAME_SAMPLES
        length = start + len(samples)
        found = []
        for frame in range(frames_before, frames_before + 28, num_frames):
            ends = length if frame + num_frames >= frames_before + 28 else None
            row = Chunk(samples, start, frame, ends, prompt_id=0)
            new = recognizer.step([row], num_frames, lookahead, encoder, prediction)[0]
            found += [(token.id, token.frame - frames_before) for token in new]
        return found

    expected = tokens(1000)
    assert len(expected) > 5
    assert tokens(YEAR) == expected
