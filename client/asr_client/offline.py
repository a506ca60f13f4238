"""Transcription of whole files over HTTP."""

from __future__ import annotations

import json
import queue
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import httpx

from .address import http_base, is_loopback
from .errors import ClientError, InvalidArgument, ServerError, ServerUnavailable, error_from_message
from .results import Transcript, transcript_from_json
from .wire import iter_bytes_tensor, unusual

DEFAULT_URL = "http://127.0.0.1:8000"
PATH = "/v2/models/asr_offline/infer"
DEFAULT_TIMEOUT_S = 600.0
_CONNECT_TIMEOUT_S = 10.0
_HEADER_LENGTH = "Inference-Header-Content-Length"  # bytes of JSON before the binary part


class OfflineClient:
    """Sends audio files as they are and returns their transcripts. May be shared by threads.

    url: the server's HTTP endpoint.  timeout_s: the longest that a file may take, queue included.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout_s: float = DEFAULT_TIMEOUT_S):
        self.url = http_base(url)
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_loopback(self.url),
        )

    def transcribe(
        self,
        audio: str | Path | bytes,
        *,
        language: str = "auto",
        latency_ms: int = 1120,
        channel: int | str = "mix",
        punctuation: bool = True,
        capitals: bool = True,
        profanity: str = "keep",
        languages: Sequence[str] | str = "",
        phrases: Sequence[str] | str = "",
        boost: float = 1.0,
        endpoint_ms: int = 0,
    ) -> Transcript:
        """Transcribe one file: its path, or its bytes (WAV, FLAC, OGG, MP3, M4A, WebM, any rate).

        latency_ms: how far the model looks ahead; more is more accurate.
        channel: "mix", or the number of the one to hear, from 0.
        punctuation, capitals: False for a text without.  profanity: "mask" for asterisks.
        languages: with language auto, those that alone may be detected.
        phrases: words and phrases to expect, a list or "Quilter; Rocky Ithaca^2", the second
        counting twice.  boost: how much they are favoured.
        endpoint_ms: a pause this long parts two of the transcript's `segments`; 0: it has none.
        Raises InvalidArgument (file, option), ServerUnavailable or ServerError.
        """
        data = audio if isinstance(audio, bytes) else _read(audio)
        options = {"language": language, "latency_ms": latency_ms}
        options |= unusual(
            channel=channel, punctuation=punctuation, capitals=capitals, profanity=profanity,
            endpoint_ms=endpoint_ms, languages=languages, phrases=phrases, boost=boost,
        )  # fmt: skip
        begin, headers = request_around(data, options)
        return read_answer(self._post(begin + data, headers))

    def transcribe_many(
        self,
        paths: Iterable[str | Path],
        *,
        concurrency: int = 4,
        **options: str | int | bool,
    ) -> Iterator[tuple[str | Path, Transcript | ClientError]]:
        """Transcribe files, `concurrency` at a time, with the options of `transcribe`.

        Yields (path, Transcript or error) as they finish. Abandoning it starts no further file.
        """
        waiting, finished = queue.SimpleQueue(), queue.SimpleQueue()
        paths = list(paths)
        for path in paths:
            waiting.put(path)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set() and not waiting.empty():
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    outcome = self.transcribe(path, **options)
                except ClientError as error:
                    outcome = error
                except Exception as error:  # no file may be left without an outcome
                    outcome = ClientError(repr(error))
                finished.put((path, outcome))

        # Daemons, so that Ctrl-C does not wait for a long file.
        for _ in range(min(concurrency, len(paths))):
            threading.Thread(target=work, name="asr-offline", daemon=True).start()
        try:
            for _ in paths:
                yield finished.get()
        finally:
            stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> OfflineClient:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._http.post(PATH, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise no_answer(error, self.url, self._timeout_s) from error


def _read(path: str | Path) -> bytes:
    if not isinstance(path, (str, PathLike)):
        kind = type(path).__name__
        raise InvalidArgument(f"INVALID_ARGUMENT: a file as {kind}; valid: its path, or its bytes")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"INVALID_ARGUMENT: cannot read {path}: {error.strerror or error}"
        ) from error


def request_around(data: bytes, options: dict) -> tuple[bytes, dict[str, str]]:
    """What goes before a file in the body of a request, AUDIO BYTES [1, 1], and the HTTP headers.

    Raises InvalidArgument for an empty file.
    """
    if not data:
        raise InvalidArgument("INVALID_ARGUMENT: the audio file is empty")
    length = struct.pack("<I", len(data))
    audio = {"name": "AUDIO", "shape": [1, 1], "datatype": "BYTES"}
    header = {
        "inputs": [{**audio, "parameters": {"binary_data_size": len(length) + len(data)}}],
        "outputs": [{"name": "RESULT", "parameters": {"binary_data": True}}],
        "parameters": options,
    }
    header = json.dumps(header).encode()
    return header + length, {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(header) + len(length) + len(data)),
        _HEADER_LENGTH: str(len(header)),
    }


def read_answer(response: httpx.Response) -> Transcript:
    """Raises the ClientError that it is."""
    if response.status_code != httpx.codes.OK:
        raise error_from_message(_error_text(response))
    return transcript_from_json(json.loads(_output(response, "RESULT")))


def no_answer(error: httpx.HTTPError, url: str, timeout_s: float) -> ServerUnavailable:
    """What a request without an answer means."""
    if isinstance(error, httpx.ConnectError):
        return ServerUnavailable(f"cannot connect to {url}: {error}")
    if isinstance(error, httpx.TimeoutException):
        return ServerUnavailable(f"no answer from {url} for {timeout_s:g} s")
    return ServerUnavailable(f"lost the connection to {url}: {error}")


def _output(response: httpx.Response, name: str) -> str:
    """The one element of a BYTES output, out of JSON followed by the binary outputs in order."""
    length = int(response.headers.get(_HEADER_LENGTH, len(response.content)))
    offset = length
    for output in json.loads(response.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        if output["name"] == name:
            return next(iter_bytes_tensor(response.content[offset : offset + size])).decode()
        offset += size
    raise ServerError(f"INTERNAL: no {name} in the answer")


def _error_text(response: httpx.Response) -> str:
    try:
        if isinstance(error := response.json()["error"], str):
            return error
        reason = "this is not Triton's HTTP port (8000), but a gateway's?"
    except (ValueError, KeyError, TypeError):
        reason = response.text[:200]
    return f"HTTP {response.status_code} from {response.url}: {reason}"
