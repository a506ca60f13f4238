"""The demo's tokenizer, in the layout of the published one.

Ids: 0 `<unk>`, then the language tags and the pieces, blank last. tokenizer.json gives blank's id
to `<pad>` and adds `<blank>` behind it, as the published file does.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from grammar import Grammar
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

TAGS = [
    "<cs-CZ>", "<de-DE>", "<en-GB>", "<en-US>", "<es-ES>", "<es-US>", "<fr-FR>", "<it-IT>",
    "<nl-NL>", "<pt-BR>", "<ru-RU>",
]  # fmt: skip
NUM_PIECES = 511  # with <unk> and the tags; nearly every word of the grammar is one piece


def make_tokenizer(num_sentences: int = 30_000) -> Tokenizer:
    """Train BPE on the grammar's text; blank's id is NUM_PIECES."""
    grammar = Grammar(random.Random(0))
    texts = [grammar.sentence() for _ in range(num_sentences)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    metaspace = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)
    # Learn no piece that joins a word to a mark; what was learned then needs no such split.
    marks = pre_tokenizers.Split(Regex("[.,?']"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, marks])
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PIECES, special_tokens=["<unk>", *TAGS], show_progress=False
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
