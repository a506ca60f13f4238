"""Hundreds of random steps on the real server: each stream says what its audio says."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest

from asr_client import wire
from asr_server.launcher import TritonServer
from engine_client import as_int16
from nemotron_asr.text import Word
from server.conftest import settings_for
from server.raw import RawStream
from stream_machine import NUM_SLOTS, StreamMachine, steps

pytestmark = pytest.mark.server

FIRST_ID = 1  # 0 is no id for Triton
TRITON_KNOWS_NO_SUCH = "must specify the START flag"


class ServedClient:
    """Drives a server over one gRPC stream as `engine_client.Client` drives an engine."""

    now = 0.0

    def __init__(self, raw: RawStream):
        self._raw = raw
        self._asked: list[int] = []  # ids, in the order of the answers to come
        self.updates: dict[int, list] = defaultdict(list)

    def send(self, id_, audio=(), start=False, end=False, **parameters) -> None:
        request = wire.build_request(
            id_ + FIRST_ID, as_int16(audio), start=start, end=end, options=parameters,
            with_result=True,
        )  # fmt: skip
        self._raw.put(request)
        self._asked.append(id_)

    def settle(self) -> None:
        for id_ in self._asked:
            self.updates[id_].append(_update(next(self._raw.answers)))
        self._asked.clear()

    def ask(self, id_, *args, **kwargs):
        self.send(id_, *args, **kwargs)
        self.settle()
        return self.updates[id_][-1]


def _update(response) -> SimpleNamespace:
    """An answer as the engine's `Update` has it."""
    message = response.error_message
    if message:
        error = f"NOT_FOUND: {message}" if TRITON_KNOWS_NO_SUCH in message else message
        return SimpleNamespace(text="", words=[], ended=[], is_final=False, error=error)
    answer = wire.parse_response(response)
    result = answer.result
    return SimpleNamespace(
        text=answer.text,
        words=[Word(**word) for word in result["words"]],
        ended=[SimpleNamespace(**s) for s in result.get("segments", ()) if s["is_final"]],
        is_final=result["is_final"],
        server=result.get("server"),
        error=None,
    )


class ServerMachine(StreamMachine):
    def teardown(self):
        """Leave no stream behind for the next run; an id that began in vain is Triton's still."""
        for id_ in getattr(self, "client", ServedClient(None)).updates:
            self.client.ask(id_, end=True)


@pytest.fixture
def raw(checkpoints):
    settings = settings_for(checkpoints("tiny"), slots=NUM_SLOTS, idle_timeout_s=120.0)
    with TritonServer(settings) as server, RawStream(server.grpc_address) as stream:
        yield stream


def test_whatever_clients_do_each_stream_says_what_its_audio_says(recognizer, raw):
    def connect(_machine):
        return ServedClient(raw)

    steps(ServerMachine, examples=20, each=30, recognizer=recognizer, connect=connect)
