"""What the gateway adds: live streams straight to Triton and through the WebSocket, in turns."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import psutil
import uvloop
from websockets.asyncio.client import connect

from asr_client.aio import AsyncLiveStream, open_channel
from asr_gateway.run import bind
from asr_server import ServerSettings, TritonServer
from nemotron_asr.config import SAMPLE_RATE

from .report import ROOT, TextTable, make_report, say

METHOD = """A stand-in model (a word for each chunk, made of its samples; tests/server/client) on
the real server, so that the model is no limit. Streams speak at real-time pace, begin evenly over
START_S, and send a packet when its last sample has been spoken; lag: from the moment that the last
sample of a chunk was spoken to its word at the client, of all chunks. Straight: asyncio's client of
gRPC in the generator; gateway: the same streams through `/v1/stream`, in turns with the former in
one run. The gateway has one core of its own, where there are several; generator and server have
the rest. CPU time of the gateway's one process, from /proc."""
STAND_IN = ROOT / "tests" / "server" / "client" / "stand_in"
START_S = 2.0
READY_S = 60.0
STRAIGHT, GATEWAY = "straight", "gateway"


@dataclass(frozen=True)
class Speech:
    """What the streams of a turn do."""

    way: str
    url: str
    num_streams: int
    latency_ms: int
    packet_ms: int
    duration_s: float


def run(
    streams: Sequence[int] = (50, 100, 200),
    *,
    packet_ms: int = 100,
    latency_ms: int = 320,
    duration_s: float = 20.0,
    turns: int = 3,
) -> dict:
    """The report: a row for each number of streams and each way."""
    settings = ServerSettings(
        model_repository=STAND_IN, device="cpu", slots=max(streams) + 8, idle_timeout_s=60,
        http_port=0, grpc_port=0, metrics_port=0,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with (
        TritonServer(settings) as server,
        gateway_of(server) as (process, port),
        ProcessPoolExecutor(1, context) as generator,
    ):
        urls = {STRAIGHT: server.grpc_address, GATEWAY: f"ws://127.0.0.1:{port}/v1/stream"}
        _part_cores(process, server.pid)
        rows = []
        for num_streams in streams:
            lags, cores = {STRAIGHT: [], GATEWAY: []}, []
            for _ in range(turns):
                for way, url in urls.items():
                    before, began_s = sum(process.cpu_times()[:2]), time.monotonic()
                    speech = Speech(way, url, num_streams, latency_ms, packet_ms, duration_s)
                    lags[way] += generator.submit(speak, speech).result()
                    if way == GATEWAY:
                        used_s = sum(process.cpu_times()[:2]) - before
                        cores.append(used_s / (time.monotonic() - began_s))
            for way in urls:
                rows.append({"streams": num_streams, "way": way, **_quantiles(lags[way])})
            rows[-1] |= {
                "cores": round(min(cores), 3),
                "rss_mb": process.memory_info().rss // 10**6,
            }
            say(f"{rows[-2]}\n{rows[-1]}")
    used = {"packet_ms": packet_ms, "latency_ms": latency_ms, "duration_s": duration_s,
            "turns": turns}  # fmt: skip
    return make_report("gateway", used, rows, METHOD)


def _quantiles(lags_s: list[float]) -> dict:
    found = np.quantile(lags_s, [0.5, 0.95, 0.99]) * 1000
    names = ("lag_p50_ms", "lag_p95_ms", "lag_p99_ms")
    return {"chunks": len(lags_s), **dict(zip(names, found.round(1).tolist(), strict=True))}


@contextmanager
def gateway_of(server: TritonServer) -> Iterator[tuple[psutil.Process, int]]:
    """A gateway before this server: its process and port."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
    command = [
        sys.executable, "-m", "asr_client.cli", "gateway", "--grpc-url", server.grpc_address,
        "--http-url", server.http_url, "--port", str(port), "--no-riva", "--log-level", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        give_up_s = time.monotonic() + READY_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError("the gateway did not start")
            time.sleep(0.1)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


def _part_cores(gateway: psutil.Process, server_pid: int) -> None:
    """The gateway's core is its own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return
    gateway.cpu_affinity(cores[:1])
    server = psutil.Process(server_pid)
    for process in (psutil.Process(), server, *server.children(recursive=True)):
        process.cpu_affinity(cores[1:])


def speak(speech: Speech) -> list[float]:
    """All streams of a turn.  Returns lags in seconds."""
    return uvloop.run(_speak(speech))


async def _speak(speech: Speech) -> list[float]:
    rng = np.random.default_rng(0)
    audio = rng.integers(-300, 300, int(SAMPLE_RATE * speech.duration_s)).astype(np.int16)
    one = _straight if speech.way == STRAIGHT else _through_gateway
    channels = [open_channel(speech.url) for _ in range(4)] if speech.way == STRAIGHT else [None]
    lags: list[float] = []
    await asyncio.gather(
        *(
            one(speech, audio, i, lags, channels[i % len(channels)])
            for i in range(speech.num_streams)
        )
    )
    for channel in filter(None, channels):
        await channel.close()
    return lags


async def _packets(speech: Speech, audio: np.ndarray, start_s: float):
    """Packets, each when its last sample has been spoken."""
    size = SAMPLE_RATE * speech.packet_ms // 1000
    for at in range(0, len(audio) - size + 1, size):
        await asyncio.sleep(max(0.0, start_s + (at + size) / SAMPLE_RATE - time.monotonic()))
        yield audio[at : at + size]


def _lag(start_s: float, processed_ms: int, packet_ms: int) -> float:
    """From when the packet that completed the chunk was spoken."""
    due_s = -(-processed_ms // packet_ms) * packet_ms / 1000
    return time.monotonic() - start_s - due_s


async def _straight(speech: Speech, audio: np.ndarray, i: int, lags: list, channel) -> None:
    await asyncio.sleep(START_S * i / speech.num_streams)
    async with AsyncLiveStream(
        speech.url, channel=channel, words=True, latency_ms=speech.latency_ms
    ) as stream:
        start_s = time.monotonic()

        async def read() -> None:
            async for result in stream.results():
                if not result.is_final:
                    lags.append(_lag(start_s, result.audio_processed_ms, speech.packet_ms))

        reading = asyncio.create_task(read())
        async for packet in _packets(speech, audio, start_s):
            await stream.send(packet)
        stream.end()
        await reading


async def _through_gateway(speech: Speech, audio: np.ndarray, i: int, lags: list, _) -> None:
    await asyncio.sleep(START_S * i / speech.num_streams)
    async with connect(f"{speech.url}?latency_ms={speech.latency_ms}", compression=None) as socket:
        await socket.recv()
        start_s = time.monotonic()

        async def read() -> None:
            async for message in socket:
                result = json.loads(message)
                if result["type"] == "result" and not result.get("is_final"):
                    lags.append(_lag(start_s, result["audio_processed_ms"], speech.packet_ms))

        reading = asyncio.create_task(read())
        async for packet in _packets(speech, audio, start_s):
            await socket.send(packet.tobytes())
        await socket.send('{"type": "end"}')
        await reading


def table(report: dict) -> TextTable:
    columns = ["streams", "way", "chunks", "lag p50 ms", "p95", "p99", "gateway cores", "RSS MB"]
    keys = ("streams", "way", "chunks", "lag_p50_ms", "lag_p95_ms", "lag_p99_ms", "cores", "rss_mb")
    rows = [[row.get(key, "") for key in keys] for row in report["rows"]]
    return TextTable("Live streams straight to the server and through the gateway", columns, rows)
