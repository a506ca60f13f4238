"""The process beside the server: begun, begun anew, stopped. Time is an argument."""

from __future__ import annotations

from asr_server.companion import Companion


def test_a_command_that_cannot_be_started_is_tried_again():
    said: list[str] = []
    companion = Companion(["/nowhere/at/all"], said.append)
    companion.keep_up(now=0.0)
    assert "cannot be started" in said[0]
    assert companion.pid is None
    assert not companion.is_running()
    companion.keep_up(now=0.5)  # not yet
    assert len(said) == 1
    companion.keep_up(now=1.0)
    companion.keep_up(now=2.0)
    companion.keep_up(now=3.0)
    assert [line.rpartition("again in ")[2] for line in said] == ["1 s", "2 s", "4 s"]
    companion.tell_to_stop()
    companion.stop()
