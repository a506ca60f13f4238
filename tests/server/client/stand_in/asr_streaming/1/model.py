"""A stand-in recogniser: the word of a chunk is `w<its sum>`, a chunk is latency_ms of audio.

Some languages are switches: "slow" keeps each packet for a second, "broken" fails on audio,
"crash" ends the process.
"""

import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils

LANGUAGES = ("auto", "en-US", "de-DE", "slow", "broken", "crash")
LATENCIES_MS = (80, 160, 320, 560, 1120)
SAMPLES_PER_MS = 16


class Stream:
    def __init__(self, options):
        self.language = options.get("language", "auto")
        self.chunk_ms = int(options.get("latency_ms", 320))
        self.rest = np.zeros(0, np.int16)
        self.words = 0
        self.active_s = time.monotonic()

    def push(self, samples, end):
        self.rest = np.concatenate([self.rest, samples])
        chunk, words = self.chunk_ms * SAMPLES_PER_MS, []
        while len(self.rest) >= chunk or (end and len(self.rest)):
            part, self.rest = self.rest[:chunk], self.rest[chunk:]
            start_ms = self.words * self.chunk_ms
            words.append(
                {
                    "text": f"w{int(part.astype(np.int64).sum())}",
                    "start_ms": start_ms,
                    "end_ms": start_ms + len(part) // SAMPLES_PER_MS,
                    "confidence": 0.5,
                }
            )
            self.words += 1
        return words


class TritonPythonModel:
    def initialize(self, args):
        self.slots = int(os.environ.get("ASR_SLOTS", 64))
        self.idle_timeout_s = float(os.environ.get("ASR_IDLE_TIMEOUT_S", 30))
        self.streams = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        try:
            return self.step(request)
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def step(self, request):
        start, end = (self.flag(request, name) for name in ("START", "END"))
        samples = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy().reshape(-1)
        key = request.correlation_id()
        if start:
            self.streams[key] = self.admit(json.loads(request.parameters() or "{}"))
        stream = self.streams.get(key)
        if stream is not None:
            stream.active_s = time.monotonic()
        if stream is None:
            raise ValueError(f"NOT_FOUND: no stream {key}")
        if len(samples):
            self.misbehave(stream.language)
        before = stream.words
        words = stream.push(samples, end)
        text = "".join((" " if before + i else "") + w["text"] for i, w in enumerate(words))
        result = {
            "text": text,
            "is_final": end,
            "segment": 0,
            "words": words,
            "language": "en-US" if stream.words else None,
            "audio_processed_ms": stream.words * stream.chunk_ms,
            "missing_samples": stream.chunk_ms * SAMPLES_PER_MS - len(stream.rest),
        }
        if start:
            result["server"] = {
                "model": "stand-in",
                "latencies_ms": LATENCIES_MS,
                "languages": LANGUAGES,
                "sample_rates": [16000],
                "slots": self.slots,
                "idle_timeout_s": self.idle_timeout_s,
            }
        if end:
            del self.streams[key]
        outputs = {"TEXT": text, "RESULT": json.dumps(result)}
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.array([[outputs[name].encode()]], dtype=object))
                for name in sorted(request.requested_output_names())
            ]
        )

    def admit(self, options):
        idle_since_s = time.monotonic() - self.idle_timeout_s
        self.streams = {k: s for k, s in self.streams.items() if s.active_s > idle_since_s}
        if options.get("language", "auto") not in LANGUAGES:
            raise ValueError(
                f"INVALID_ARGUMENT: language {options['language']!r} is not supported; "
                f"valid: {', '.join(LANGUAGES)}"
            )
        if int(options.get("latency_ms", 320)) not in LATENCIES_MS:
            raise ValueError("INVALID_ARGUMENT: latency_ms is not supported; valid: 80, 160, ...")
        if len(self.streams) >= self.slots:
            raise ValueError(f"UNAVAILABLE: at capacity ({len(self.streams)}/{self.slots})")
        return Stream(options)

    def misbehave(self, language):
        if language == "slow":
            time.sleep(1)
        if language == "broken":
            raise ValueError("INTERNAL: broken on purpose")
        if language == "crash":
            os._exit(1)

    def flag(self, request, name):
        return bool(pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0])
