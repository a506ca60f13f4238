"""A cheap load generator: live streams at real-time pace, one gRPC stream each.

Streams begin staggered evenly over a chunk. A packet is due when its last sample has been spoken,
and what it causes is measured from then on, also where this generator was late in sending it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from asr_client.wire import MODEL, build_request, new_sequence_id
from nemotron_asr.chunks import samples_needed
from nemotron_asr.config import SAMPLE_RATE, TOKEN_FRAME_MS

from .speech import speech_pcm

_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for every stream
    ("grpc.enable_http_proxy", 0),
]
SPOKEN_S = 60.0  # of recordings, repeated; streams begin at different places of it
OPEN_TIMEOUT_S = 120.0
START_DELAY_S = 0.5  # from "everyone is connected" to the first stream's first sample
DRAIN_S = 60.0  # how long answers may take after the last packet, before they count as missing


@dataclass(frozen=True)
class LoadSpec:
    """What the streams do."""

    target: str  # host:port
    num_streams: int
    latency_ms: int = 320
    packet_ms: int = 320  # pace of the packets, and the audio in one
    duration_s: float = 20.0
    language: str = "auto"
    silent: bool = False  # packets of 0 samples, at the same pace
    end_pause_s: float = 0.0  # from the last packet to END
    hopeless_lag_s: float = 1e9  # a chunk so late ends the run: every stream sends END
    first_stream: int = 0  # where these lie among all streams of the run
    all_streams: int = 0  # 0: these are all

    @property
    def num_packets(self) -> int:
        return int(self.duration_s * 1000 // self.packet_ms)

    @property
    def packet_samples(self) -> int:
        return 0 if self.silent else SAMPLE_RATE * self.packet_ms // 1000


@dataclass
class LoadResult:
    """What the streams saw. Lags are in seconds from when the last sample of a packet was due."""

    chunk_lags_s: list[float] = field(default_factory=list)  # of packets that completed a chunk
    final_lags_s: list[float] = field(default_factory=list)
    send_lags_s: list[float] = field(default_factory=list)  # how late packets were sent
    num_packets: int = 0
    missing: int = 0  # chunks and finals without an answer
    text_chars: int = 0
    errors: list[str] = field(default_factory=list)
    generator_cpu_s: float = 0.0

    def add(self, other: LoadResult) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def completing_packets(spec: LoadSpec) -> list[bool]:
    """For each packet whether a chunk is complete with it."""
    frames = spec.latency_ms // TOKEN_FRAME_MS
    done, flags = 0, []
    for index in range(spec.num_packets):
        heard = (index + 1) * spec.packet_samples
        before = done
        while samples_needed((done + 1) * frames) <= heard:
            done += 1
        flags.append(done > before)
    return flags


def run_load(
    spec: LoadSpec,
    num_processes: int = 1,
    at: Sequence[tuple[float, Callable[[], None]]] = (),
) -> LoadResult:
    """Run the streams, in processes of their own.

    at: what to do meanwhile: (seconds after the first stream's start, function) in order of time.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    for share in split(spec, num_processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(share, theirs), daemon=True)
        process.start()
        workers.append((process, ours))
    try:
        for process, pipe in workers:
            _expect(process, pipe, OPEN_TIMEOUT_S)
        start_s = time.monotonic() + START_DELAY_S
        for _, pipe in workers:
            pipe.send(start_s)
        for after_s, act in at:
            time.sleep(max(0.0, start_s + after_s - time.monotonic()))
            act()
        total = LoadResult()
        for process, pipe in workers:
            patience_s = spec.duration_s + spec.end_pause_s + DRAIN_S + 60
            total.add(_expect(process, pipe, patience_s))
        return total
    finally:
        for process, _ in workers:
            process.join(5)
            process.kill()


def split(spec: LoadSpec, parts: int) -> list[LoadSpec]:
    """The streams in shares of like size, each knowing its place among all."""
    bounds = [spec.num_streams * i // parts for i in range(parts + 1)]
    return [
        replace(spec, num_streams=stop - start, first_stream=start, all_streams=spec.num_streams)
        for start, stop in itertools.pairwise(bounds)
        if stop > start
    ]


def _expect(process, pipe, timeout_s: float):
    if not pipe.poll(timeout_s):
        raise TimeoutError(f"a load generator said nothing for {timeout_s:g} s")
    try:
        message = pipe.recv()
    except EOFError:
        raise RuntimeError(f"a load generator died (exit code {process.exitcode})") from None
    if isinstance(message, Exception):
        raise message
    return message


def _worker(spec: LoadSpec, pipe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    try:
        pipe.send(asyncio.run(_run_streams(spec, pipe)))
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


async def _run_streams(spec: LoadSpec, pipe) -> LoadResult:
    payloads = _payloads(spec)
    streams = [_Stream(spec, payloads, spec.first_stream + i) for i in range(spec.num_streams)]
    for first in range(0, len(streams), 32):  # a listen queue is short
        await asyncio.gather(*(stream.open() for stream in streams[first : first + 32]))
    gc.collect()
    gc.disable()  # nothing is left to the collector here, and it would stop the clock for all
    pipe.send("ready")
    start_s = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    began_s = time.process_time()
    hopeless = asyncio.Event()
    await asyncio.gather(*(stream.run(start_s, hopeless) for stream in streams))
    total = LoadResult(generator_cpu_s=time.process_time() - began_s)
    for stream in streams:
        total.add(stream.result)
    return total


def _payloads(spec: LoadSpec) -> list[bytes]:
    """The audio of packets as the bytes of a request that has nothing else.

    Serialised messages are merged by joining them, so that all streams share these.
    """
    step = spec.packet_samples
    pcm = speech_pcm(SPOKEN_S)
    starts = range(0, len(pcm) - step + 1, step) if step else [0]
    payloads = []
    for start in starts:
        whole = build_request(1, pcm[start : start + step])
        only = service_pb2.ModelInferRequest(
            inputs=whole.inputs, raw_input_contents=whole.raw_input_contents
        )
        payloads.append(only.SerializeToString())
    return payloads


class _Stream:
    def __init__(self, spec: LoadSpec, payloads: list[bytes], index: int):
        self.result = LoadResult()
        self._spec = spec
        self._payloads = payloads
        self._index = index
        self._all = spec.all_streams or spec.num_streams
        self._id = new_sequence_id()
        self._waiting: deque[float] = deque()  # when packets without an answer were due
        self._end_due_s = 0.0

    async def open(self) -> None:
        """Connect and START, without audio."""
        self._channel = grpc.aio.insecure_channel(self._spec.target, options=_CHANNEL)
        self._call = self._channel.stream_stream(_METHOD)()  # bytes in, bytes out
        options = {"language": self._spec.language, "latency_ms": self._spec.latency_ms}
        first = build_request(self._id, np.zeros(0, np.int16), start=True, options=options)
        await self._call.write(first.SerializeToString())
        await asyncio.wait_for(self._read(), OPEN_TIMEOUT_S)

    async def run(self, start_s: float, hopeless: asyncio.Event) -> None:
        """Speak, END, and read every answer."""
        spec, completing = self._spec, completing_packets(self._spec)
        begin_s = start_s + self._index * spec.latency_ms / 1000 / self._all
        due_s = [begin_s + (i + 1) * spec.packet_ms / 1000 for i in range(spec.num_packets)]
        sender = asyncio.create_task(self._send(due_s, hopeless))
        try:
            await self._read_answers(completing, due_s[-1] + spec.end_pause_s + DRAIN_S, hopeless)
        except Exception as error:
            self.result.missing += not self.result.final_lags_s
            self.result.errors.append(f"{type(error).__name__}: {error}")
        finally:
            self.result.missing += sum(completing) - len(self.result.chunk_lags_s)
            sender.cancel()
            self._call.cancel()
            await self._channel.close()

    async def _send(self, due_s: list[float], hopeless: asyncio.Event) -> None:
        request = build_request(self._id, np.zeros(0, np.int16))
        prefix = service_pb2.ModelInferRequest(
            model_name=MODEL, parameters=request.parameters, outputs=request.outputs
        ).SerializeToString()
        payloads, count = self._payloads, len(self._payloads)
        offset = self._index * count // self._all
        for i, due in enumerate(due_s):
            delay_s = due - time.monotonic()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            if self._waiting and time.monotonic() - self._waiting[0] > self._spec.hopeless_lag_s:
                hopeless.set()
            if hopeless.is_set():
                break
            self.result.send_lags_s.append(time.monotonic() - due)
            self._waiting.append(due)
            await self._call.write(prefix + payloads[(offset + i) % count])
        await asyncio.sleep(self._spec.end_pause_s)
        self._end_due_s = due + self._spec.end_pause_s
        end = build_request(self._id, np.zeros(0, np.int16), end=True)
        await self._call.write(end.SerializeToString())

    async def _read_answers(
        self, completing: list[bool], give_up_s: float, hopeless: asyncio.Event
    ) -> None:
        """Answers come in the order of the packets; the one after the last packet's is END's."""
        result = self.result
        while True:
            await asyncio.wait_for(self._read(), give_up_s - time.monotonic())
            now_s = time.monotonic()
            if not self._waiting:
                result.final_lags_s.append(now_s - self._end_due_s)
                return
            lag_s = now_s - self._waiting.popleft()
            if completing[result.num_packets]:
                result.chunk_lags_s.append(lag_s)
            result.num_packets += 1
            if lag_s > self._spec.hopeless_lag_s:
                hopeless.set()

    async def _read(self) -> None:
        data = await self._call.read()
        if data is grpc.aio.EOF:
            raise ConnectionError("the server closed the stream")
        answer = service_pb2.ModelStreamInferResponse.FromString(data)
        if answer.error_message:
            raise RuntimeError(answer.error_message)
        self.result.text_chars += len(answer.infer_response.raw_output_contents[0]) - 4
