#!/usr/bin/env python3
"""Start the real server, stream a recording live, send it offline, compare, stop the server.

    python scripts/demo.py [RECORDING] [--checkpoint PATH] [--fast]

RECORDING is any file that libsndfile reads; a .txt of the same name beside it is shown as the
reference, with the word error rate. Ends with 0 if there is a transcript and live and offline
agree, with 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jiwer

from asr_bench.manifests import normalise
from asr_client import ClientError, LiveStream, OfflineClient, Transcript
from asr_client.audio import file_packets, paced
from asr_server.errors import ServerError
from asr_server.launcher import TritonServer
from asr_server.settings import ServerSettings, default_checkpoint, default_model_repository

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "samples" / "person_librivox.flac"
LATENCY_MS = 320  # both ways, so that the transcripts are comparable to the letter
PACKET_MS = 80


def stream_live(address: str, recording: Path, fast: bool) -> Transcript:
    """Send the file at the pace of speech and print its words as they become certain."""
    packets = file_packets(recording, PACKET_MS)
    with LiveStream(address, latency_ms=LATENCY_MS) as stream:
        stream.feed(packets if fast else paced(packets))
        for result in stream.results():
            print(result.text, end="", flush=True)
        print()
        return stream.finish()


def show(server: TritonServer, recording: Path, fast: bool) -> bool:
    """Both ways to a transcript. Returns whether they agree and say something."""
    print(f"\nlive, gRPC {server.grpc_address}, {LATENCY_MS} ms chunks:\n  ", end="")
    live = stream_live(server.grpc_address, recording, fast)
    with OfflineClient(server.http_url) as client:
        offline = client.transcribe(recording, latency_ms=LATENCY_MS)
    print(f"\noffline, {server.http_url}:\n  {offline.text}")
    reference = recording.with_suffix(".txt")
    if reference.is_file():
        said = reference.read_text(encoding="utf-8").strip()
        rate = jiwer.wer(normalise(said), normalise(live.text))
        print(f"\nreference:\n  {said}\n\nword error rate {rate:.1%}")
    agree = bool(live.text) and live.text == offline.text
    print(f"\nlive and offline {'agree' if agree else 'DIFFER, or are empty'}")
    print(f"language {live.language}, {live.audio_processed_ms / 1000:.1f} s of audio")
    return agree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", nargs="?", type=Path, default=RECORDING)
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument("--fast", action="store_true", help="do not wait for the pace of speech")
    options = parser.parse_args()
    if not options.recording.is_file():
        parser.error(f"no such recording: {options.recording}")
    settings = ServerSettings(
        model_repository=default_model_repository(),
        checkpoint=options.checkpoint,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
    )
    try:
        started = time.monotonic()
        print(f"starting the server with {options.checkpoint} ...", flush=True)
        with TritonServer(settings) as server:
            print(f"ready after {time.monotonic() - started:.1f} s")
            agree = show(server, options.recording, options.fast)
        print("server stopped")
        print(
            "\nto speak yourself:  .venv/bin/asr serve --gateway   and open http://127.0.0.1:8080"
        )
    except KeyboardInterrupt:
        print("\ninterrupted; server stopped", file=sys.stderr)
        return 130
    except (ClientError, ServerError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
