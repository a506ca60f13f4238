"""Drives an engine by hand: packets in, answers collected, no thread and no clock."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from nemotron_asr.engine import Request, StreamingEngine, Update
from reference import speech_like


class Client:
    """Drives an engine by hand and collects what each stream was told."""

    def __init__(self, engine: StreamingEngine):
        self.engine = engine
        self.now = 0.0
        self.updates: dict[object, list[Update]] = defaultdict(list)

    def send(self, id_, audio=(), start=False, end=False, **parameters) -> None:
        audio = as_int16(audio)
        reply = self.updates[id_].append
        self.engine.submit(Request(id_, audio, start, end, parameters, reply))

    def settle(self) -> None:
        while self.engine.step(self.now):
            pass

    def ask(self, id_, *args, **kwargs) -> Update:
        self.send(id_, *args, **kwargs)
        self.settle()
        return self.updates[id_][-1]

    def text(self, id_) -> str:
        return "".join(update.text for update in self.updates[id_])

    def words(self, id_) -> list:
        return [word for update in self.updates[id_] for word in update.words]


def as_int16(audio) -> np.ndarray:
    return np.asarray(audio, dtype=np.int16)


def pcm(num_samples: int, seed: int = 0) -> np.ndarray:
    return (speech_like(num_samples, seed) * 32767).astype(np.int16)


def packets(audio: np.ndarray, rng: random.Random, largest: int):
    at = 0
    while at < len(audio):
        n = rng.randint(1, largest)
        yield audio[at : at + n]
        at += n
