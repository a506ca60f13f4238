"""Transcription of whole files over HTTP for asyncio: `OfflineClient`, for servers of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx

from .address import http_base, is_loopback
from .offline import DEFAULT_TIMEOUT_S, PATH, no_answer, read_answer, request_around
from .results import Transcript
from .wire import unusual

_LARGE = 1 << 16  # bytes of an answer that others should not wait for
_PIECE = 1 << 20  # bytes of a file that are handed over at a time: others get their turn


class AsyncOfflineClient:
    """Sends audio files as they are and returns their transcripts, many at a time.

    url: the server's HTTP endpoint.  timeout_s: the longest that a file may take, queue included.
    """

    def __init__(self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S):
        self.url = http_base(url)
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_loopback(self.url),
        )

    async def transcribe(
        self,
        data: bytes,
        *,
        language: str = "auto",
        latency_ms: int = 1120,
        headers: Mapping[str, str] | None = None,
        **options,
    ) -> Transcript:
        """Transcribe one file, with the options of `OfflineClient.transcribe`.

        headers: sent with the request beside its own.
        Raises InvalidArgument (file, option), ServerUnavailable or ServerError.
        """
        parameters = {"language": language, "latency_ms": latency_ms, **unusual(**options)}
        begin, needed = request_around(data, parameters)
        whole = {**(headers or {}), **needed}
        try:
            response = await self._http.post(PATH, content=_pieces(begin, data), headers=whole)
        except httpx.HTTPError as error:
            raise no_answer(error, self.url, self._timeout_s) from error
        if len(response.content) < _LARGE:
            return read_answer(response)
        return await asyncio.to_thread(read_answer, response)

    async def is_ready(self) -> bool:
        """Whether the server says that every model is ready."""
        try:
            response = await self._http.get("/v2/health/ready", timeout=2.0)
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def _pieces(begin: bytes, data: bytes) -> AsyncIterator[bytes]:
    yield begin
    view = memoryview(data)
    for at in range(0, len(data), _PIECE):
        yield bytes(view[at : at + _PIECE])
