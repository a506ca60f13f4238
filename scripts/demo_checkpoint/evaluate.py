"""Word error rates and language tags on the evaluation sets."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import jiwer
import torch
from data import Sentence, plain_batch
from tokenizers import Tokenizer
from trainee import BLANK, Trainee

from nemotron_asr.decoding import greedy_decode
from nemotron_asr.features import LogMel

TAG = re.compile(r"<([a-z]{2})-[A-Z]{2}>")
ROWS = 32  # sentences decoded at once


class Heard(NamedTuple):
    reference: str
    text: str
    language: str  # of the reference
    tag: str | None  # the language heard last, as in `en`


def normalise(text: str) -> str:
    """Lower case without tags and marks."""
    text = TAG.sub(" ", text).lower()
    return " ".join("".join(c if c.isalpha() or c == "'" else " " for c in text).split())


@torch.no_grad()
def transcribe(
    model: Trainee,
    sentences: list[Sentence],
    lookahead: int,
    tokenizer: Tokenizer,
    ctc: bool = False,
    auto: bool = True,
) -> list[Heard]:
    """Greedy texts, of the CTC head or of the RNN-T."""
    front_end, device = LogMel(model.net.config.features), model.ctc_head.weight.device
    decoding = deepcopy(model.net)  # the layers for inference replace those that learn
    decoding.decoder.prepare("float32")
    decoding.joint.prepare("float32")
    sentences = sorted(sentences, key=lambda s: len(s.samples))
    heard = []
    for i in range(0, len(sentences), ROWS):
        part = sentences[i : i + ROWS]
        batch = replace(plain_batch(front_end, part, auto), lookahead=lookahead).to(device)
        f, _, lens = model.joint_input(batch)
        if ctc:
            best = model.ctc_log_probs(f).argmax(-1)
            rows = [
                row[:n].unique_consecutive().tolist() for row, n in zip(best, lens, strict=True)
            ]
            rows = [[i for i in row if i != BLANK] for row in rows]
        else:
            fresh = decoding.decoder.fresh(len(lens))
            tokens = greedy_decode(decoding, f, lens.tolist(), [0] * len(lens), fresh)
            rows = [[token.id for token in row] for row in tokens]
        for sentence, row in zip(part, rows, strict=True):
            text = tokenizer.decode(row, skip_special_tokens=False)
            tags = TAG.findall(text)
            heard.append(Heard(sentence.text, text, sentence.language[:2], (tags or [None])[-1]))
    return heard


def word_error_rate(heard: list[Heard]) -> float:
    """In percent."""
    rate = jiwer.wer([normalise(h.reference) for h in heard], [normalise(h.text) for h in heard])
    return round(100 * rate, 2)


def language_rate(heard: list[Heard]) -> float:
    """Percent whose last tag is the language spoken."""
    return round(100 * sum(h.tag == h.language for h in heard) / len(heard), 1)


def sample(sentences: list[Sentence], limit: int) -> list[Sentence]:
    """Every n-th, so that there are at most `limit`."""
    return sentences[:: max(1, -(-len(sentences) // limit))]


def by_language(sets: dict[str, list[Sentence]]) -> dict[str, list[Sentence]]:
    """The sets, those of several languages split by language; small ones left out."""
    split: dict[str, list[Sentence]] = {}
    for name, sentences in sets.items():
        for language in sorted({s.language[:2] for s in sentences}):
            key = name if language == "en" else f"{name.removesuffix('_' + language)}_{language}"
            split[key] = [s for s in sentences if s.language[:2] == language]
    return {name: sentences for name, sentences in split.items() if len(sentences) >= 8}
