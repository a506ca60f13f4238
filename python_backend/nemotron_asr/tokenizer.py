"""The pieces of a checkpoint's vocabulary, from tokenizer.json or a SentencePiece model."""

from __future__ import annotations

from pathlib import Path

from .errors import CheckpointError


def pieces_from_tokenizer_json(path: Path, num_pieces: int) -> list[str]:
    """The first `num_pieces` pieces of a Hugging Face tokenizer.json, by id.

    Added tokens that repeat blank's id, such as `<pad>`, stand behind them and are left out.
    Raises CheckpointError naming the first id without a piece.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{path}: not a tokenizer.json: {error}") from error
    by_id = {id_: piece for piece, id_ in tokenizer.get_vocab(with_added_tokens=True).items()}
    missing = next((i for i in range(num_pieces) if i not in by_id), None)
    if missing is not None:
        raise CheckpointError(
            f"{path}: no piece for id {missing}; config.json wants ids 0 to {num_pieces - 1}"
        )
    return [by_id[i] for i in range(num_pieces)]


def pieces_from_sentencepiece(path: Path, num_pieces: int, where: str) -> list[str]:
    """All pieces of a SentencePiece model, which must be `num_pieces`."""
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{where}: not a SentencePiece model: {error}") from error
    if len(model) != num_pieces:
        raise CheckpointError(
            f"{where}: {len(model)} pieces, but the joint network has {num_pieces} besides blank"
        )
    return [model.id_to_piece(i) for i in range(num_pieces)]
