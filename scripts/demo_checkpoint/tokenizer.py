"""The demo's tokenizer, in the layout of the published one.

Ids: 0 `<unk>`, then the language tags and the pieces, blank last. tokenizer.json gives blank's id
to `<pad>` and adds `<blank>` behind it, as the published file does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from grammar import is_held_out
from texts import HELD_OUT_SOURCES
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

TAGS = [  # of the languages that the published model transcribes or can be adapted to
    "<ar-AR>", "<bg-BG>", "<cs-CZ>", "<da-DK>", "<de-DE>", "<el-GR>", "<en-GB>", "<en-US>",
    "<es-ES>", "<es-US>", "<et-EE>", "<fi-FI>", "<fr-CA>", "<fr-FR>", "<he-IL>", "<hi-IN>",
    "<hr-HR>", "<hu-HU>", "<it-IT>", "<ja-JP>", "<ko-KR>", "<lt-LT>", "<lv-LV>", "<mt-MT>",
    "<nb-NO>", "<nl-NL>", "<nn-NO>", "<pl-PL>", "<pt-BR>", "<pt-PT>", "<ro-RO>", "<ru-RU>",
    "<sk-SK>", "<sl-SI>", "<sv-SE>", "<th-TH>", "<tr-TR>", "<uk-UA>", "<vi-VN>", "<zh-CN>",
]  # fmt: skip
NUM_PIECES = 2048  # with <unk> and the tags
# Characters of text by language: English has the most speech, so it gets the most pieces.
CHARACTERS = {"en": 5_000_000, "es": 600_000, "fr": 600_000, "de": 600_000, "it": 600_000,
              "ru": 600_000, "nl": 450_000, "cs": 450_000}  # fmt: skip
NUM_FINE = 512  # pieces of a second, finer cut, which a layer within the encoder learns to hear
MIN_CHARACTER_COUNT = 20  # rarer ones become <unk>


def training_texts(folder: Path) -> Iterator[str]:
    """Sentences of `folder`/texts that are not held out, up to CHARACTERS of each language."""
    for language, room in CHARACTERS.items():
        rows = [r.split("\t") for r in (folder / f"texts/{language}.tsv").read_text().splitlines()]
        random.Random(0).shuffle(rows)
        for source, text in rows:
            if source in HELD_OUT_SOURCES or is_held_out(text):
                continue
            room -= len(text)
            if room < 0:
                break
            yield text


def make_tokenizer(folder: Path) -> Tokenizer:
    """Train BPE on the texts; blank's id is NUM_PIECES."""
    texts = list(training_texts(folder))
    counts: dict[str, int] = {}
    for text in texts:
        for char in text:
            counts[char] = counts.get(char, 0) + 1
    alphabet = sum(count >= MIN_CHARACTER_COUNT for count in counts.values())
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    metaspace = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)
    # Learn no piece that joins a word to a mark; what was learned then needs no such split.
    marks = pre_tokenizers.Split(Regex("[.,?!'-]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, marks])
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PIECES,
        special_tokens=["<unk>", *TAGS],
        limit_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = metaspace
    assert tokenizer.get_vocab_size() == NUM_PIECES
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<blank>")])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as `transformers` wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": TAGS,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "processor_class": "Nemotron3_5AsrProcessor",
        "tokenizer_class": "ParakeetTokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def fine_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The same with the first NUM_FINE pieces alone: BPE learns short ones first."""
    made = json.loads(tokenizer.to_str())
    vocab = {piece: i for piece, i in made["model"]["vocab"].items() if i < NUM_FINE}
    made["model"]["vocab"] = vocab
    merges = made["model"]["merges"]
    made["model"]["merges"] = [pair for pair in merges if "".join(pair) in vocab]
    made["added_tokens"] = [token for token in made["added_tokens"] if token["id"] < NUM_FINE]
    return Tokenizer.from_str(json.dumps(made))


def load_tokenizer(folder: Path) -> Tokenizer:
    """What `save_tokenizer` wrote."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
