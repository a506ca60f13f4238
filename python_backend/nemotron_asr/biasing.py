"""What one stream's decoding is drawn to, phrases, and what it is kept from, languages' tags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from weakref import WeakValueDictionary

import torch

from .errors import invalid
from .options import Options
from .phrase_trie import PhraseTrie, PieceTrie, State, fold
from .phrases import parse_phrases
from .text import tag_language

LISTS_KEPT = 16  # of phrases, ready for the next stream with the same; those of streams also are
CACHED_STATES = 256  # of a list; each may have thousands of pieces, and speech needs few of them


class Boost:
    """A list of phrases and how much they are favoured; shared by streams that asked for the same.

    boost: what the logit of a piece that begins a phrase is raised by, in nats.
    """

    def __init__(self, trie: PhraseTrie, boost: float, device: torch.device):
        self.trie = trie
        self.bonus = lru_cache(CACHED_STATES)(partial(_bonus, trie, boost, device))


def _bonus(
    trie: PhraseTrie, boost: float, device: torch.device, state: State
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `Bias.bonus`."""
    fits = trie.fits(state)
    worths = torch.tensor(list(fits.values()), dtype=torch.float32, device=device)
    return _ids(list(fits), device), boost * worths


class Bias:
    """One stream's walk along its phrases, and the tags that it may emit.

    Begins afresh with each utterance. Belongs to one stream: decoding moves it on.
    """

    def __init__(
        self,
        boost: Boost | None = None,
        tags: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        """tags: those that the stream may emit and the others, (n,) int64 ids each."""
        self.tags = tags
        self._boost = boost
        self._state = PhraseTrie.START

    def push(self, id_: int) -> None:
        """The stream has emitted a piece."""
        if self._boost is not None:
            self._state = self._boost.trie.step(self._state, id_)

    def bonus(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Pieces that go on with a phrase or begin one, (n,) int64 ids, each once, and what their
        logits are raised by, (n,) float32. None where there are no phrases.
        """
        return None if self._boost is None else self._boost.bonus(self._state)


class Biases:
    """Makes the biases of streams over a vocabulary.

    prompts: language -> prompt id; names with the same one are the same language.
    """

    def __init__(self, pieces: Sequence[str], prompts: dict[str, int], device: torch.device):
        self._pieces, self._prompts, self._device = pieces, prompts, device
        self._boost = lru_cache(LISTS_KEPT)(self._shared_boost)
        self._live: WeakValueDictionary[tuple[str, float], Boost] = WeakValueDictionary()

    def warm_up(self) -> None:
        """Make the vocabulary ready, which takes half a second, before a stream waits for it."""
        _ = self._vocabulary, self.tags

    @cached_property
    def _vocabulary(self) -> PieceTrie:
        return PieceTrie(self._pieces)

    @cached_property
    def tags(self) -> dict[int, str]:
        """The languages of the pieces that are tags, by id."""
        tags = {id_: tag_language(piece) for id_, piece in enumerate(self._pieces)}
        return {id_: language for id_, language in tags.items() if language is not None}

    def of(self, options: Options, held: bool) -> Bias | None:
        """That of an utterance with these options; None where it is drawn to nothing.

        held: whether it is held to `languages`.
        Raises AsrError INVALID_ARGUMENT for a phrase with letters that no piece has.
        """
        boost = tags = None
        if options.phrases and options.boost:
            boost = self._boost(options.phrases, options.boost)
        if options.languages and held:
            tags = self._split_tags(options.languages.split(","))
        return Bias(boost, tags) if boost or tags else None

    def _shared_boost(self, phrases: str, boost: float) -> Boost:
        """That of streams that live, where one has the same."""
        shared = self._live.get((phrases, boost))
        if shared is None:
            shared = self._live[phrases, boost] = self._make_boost(phrases, boost)
        return shared

    def _make_boost(self, phrases: str, boost: float) -> Boost:
        parsed = parse_phrases(phrases)
        for phrase in parsed:
            chars = fold(phrase.text)
            if not self._vocabulary.alphabet.issuperset(chars):
                unknown = sorted(set(chars) - self._vocabulary.alphabet)
                raise invalid(
                    f"phrases: {phrase.text!r} has {unknown[0]!r}, which no piece of this model's "
                    "vocabulary has; valid: phrases that the model can write"
                )
        return Boost(PhraseTrie(self._vocabulary, parsed), boost, self._device)

    def _split_tags(self, languages: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Their tags and all others; None where there is no other."""
        same = {self._prompts[language] for language in languages}
        allowed = [
            id_
            for id_, tag in self.tags.items()
            if tag in languages or self._prompts.get(tag) in same
        ]
        others = [id_ for id_ in self.tags if id_ not in allowed]
        return (_ids(allowed, self._device), _ids(others, self._device)) if others else None


def _ids(values: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
