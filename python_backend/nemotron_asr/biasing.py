"""What one stream's decoding is drawn to, phrases, and what it is kept from, languages' tags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from .phrase_trie import PhraseTrie, State

CACHED_STATES = 256  # of a list; each may have thousands of pieces, and speech needs few of them


class Boost:
    """A list of phrases and how much they are favoured; shared by streams that asked for the same.

    boost: what the logit of a piece that begins a phrase is raised by, in nats.
    """

    def __init__(self, trie: PhraseTrie, boost: float, device: torch.device):
        self.trie = trie
        self._boost, self._device = boost, device
        self.bonus = lru_cache(CACHED_STATES)(self._bonus)

    def _bonus(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        fits = self.trie.fits(state)
        bonus = torch.tensor(list(fits.values()), dtype=torch.float32, device=self._device)
        return _ids(list(fits), self._device), self._boost * bonus


class Bias:
    """One stream's walk along its phrases, and the tags that it may emit.

    Begins afresh with each utterance. Belongs to one stream: decoding moves it on.
    """

    def __init__(
        self,
        boost: Boost | None = None,
        tags: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        """tags: those that the stream may emit and the others, from `split_tags`."""
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


def split_tags(
    languages: Sequence[str], tags: dict[int, str], prompts: dict[str, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The tags of these languages, and all others: (n,) int64 ids. None where there is no other.

    tags: the language of each piece that is a tag, by id.  prompts: language -> prompt id; names
    with the same one are the same language.
    """
    same = {prompts[language] for language in languages}
    allowed = [id_ for id_, tag in tags.items() if tag in languages or prompts.get(tag) in same]
    others = [id_ for id_ in tags if id_ not in allowed]
    return (_ids(allowed, device), _ids(others, device)) if others else None


def _ids(values: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
