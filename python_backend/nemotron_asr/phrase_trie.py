"""Which pieces go on with a phrase that is to be favoured, and where that leads.

Phrases are matched by characters, not by pieces, so it does not matter how a tokenizer would cut
them: any piece whose characters lead along a phrase fits, and takes the walk as far as it spells.
Capitals make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from .phrases import Phrase, is_word_char
from .text import WORD_START, is_unspaced

# A piece that goes on with a phrase is favoured more than one that begins it: only where several
# agree is there reason to, and greedy decoding cannot take back what it began in error. The factor
# is that of NeMo's boosting tree for RNN-T, its `depth_scaling`.
INSIDE = 2.0
_APOSTROPHES = str.maketrans("\u2019\u02bc", "''")
_NOT_TEXT = re.compile(r"<[^\s<>]+>")  # tags, bytes, <unk>


def fold(text: str) -> str:
    """Characters as they are compared: capitals, forms and apostrophes make no difference."""
    return unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)


@cache
def parts_words(char: str) -> bool:
    """Spaces, marks, and letters of scripts that are written without spaces."""
    return not is_word_char(char) or is_unspaced(char)


class Characters:
    """A trie: strings by their characters. Node 0 is the root; children lie behind parents."""

    def __init__(self):
        self.children: list[dict[str, int]] = [{}]

    def add(self, chars: str) -> int:
        """The node of a string, made where there is none."""
        node = 0
        for char in chars:
            child = self.children[node].get(char)
            if child is None:
                child = self.children[node][char] = len(self.children)
                self.children.append({})
            node = child
        return node


class PieceTrie(Characters):
    """The pieces of a vocabulary."""

    def __init__(self, pieces: Sequence[str]):
        super().__init__()
        is_text = [not _NOT_TEXT.fullmatch(piece) for piece in pieces]
        self.chars = [  # of each piece; what is not text parts words, as a space does
            fold(piece.replace(WORD_START, " ")) if text else " "
            for piece, text in zip(pieces, is_text, strict=True)
        ]
        self.alphabet = {" "}.union(*self.chars)
        nodes = [self.add(chars) for chars in self.chars]
        self.ids: list[list[int]] = [[] for _ in self.children]  # spelled so
        for id_, node in enumerate(nodes):
            if is_text[id_]:
                self.ids[node].append(id_)
        self.marks = [  # of each node, those that are followed by more
            {c for c, child in children.items() if not is_word_char(c) and self.children[child]}
            for children in self.children
        ]


State = frozenset  # the phrases' nodes that the last characters led to; 0 where one may begin


class PhraseTrie(Characters):
    """Phrases over a vocabulary. A walk begins with `START` and is moved on by `step`.

    A phrase begins where a word does: behind a space, a mark, or a letter of a script without
    spaces; within a piece only behind spaces and marks. A piece that goes on behind a phrase's end
    fits only if the word ends there too.
    """

    START: State = frozenset([0])

    def __init__(self, pieces: PieceTrie, phrases: Iterable[Phrase]):
        super().__init__()
        self._pieces = pieces
        ends = [(self.add(fold(phrase.text)), phrase.weight) for phrase in phrases]
        self._ends = [0.0] * len(self.children)  # weight of the phrase that ends there
        for node, weight in ends:
            self._ends[node] = max(self._ends[node], weight)
        self._depth = [0] * len(self.children)
        for node, children in enumerate(self.children):
            for child in children.values():
                self._depth[child] = self._depth[node] + 1
        self._best = list(self._ends)  # weight of the best phrase that it is part of
        for node in reversed(range(1, len(self.children))):
            for child in self.children[node].values():
                self._best[node] = max(self._best[node], self._best[child])

    def step(self, state: State, id_: int) -> State:
        """Where the walk is after a piece."""
        for char in self._pieces.chars[id_]:
            state = self._along(state, char) | (self.START if parts_words(char) else set())
        return state

    def fits(self, state: State) -> dict[int, float]:
        """The pieces that begin a phrase, go on with one or end it, and how much to favour each.

        That is the weight of the best such phrase, `INSIDE` times where a piece before began it.
        """
        fits: dict[int, float] = {}
        # Node of the pieces, its characters, whether all are marks, the state, the best that ended.
        todo = [(0, 0, True, state, 0.0)]
        while todo:
            at, num_chars, leading, reached, ended = todo.pop()
            if worth := max(ended, self._worth(self._best, reached, num_chars)):
                fits.update(dict.fromkeys(self._pieces.ids[at], worth))
            over = max(ended, self._worth(self._ends, reached, num_chars))
            children = self._pieces.children[at]
            wanted = (children.keys() & self.children[node].keys() for node in reached)
            marks = self._pieces.marks[at] if leading else set()
            for char in children if over else marks.union(*wanted):
                is_leading = leading and not is_word_char(char)
                after = self._along(reached, char) | (self.START if is_leading else set())
                best = over if parts_words(char) else ended
                todo.append((children[char], num_chars + 1, is_leading, after, best))
        return fits

    def _worth(self, weights: list[float], state: State, num_chars: int) -> float:
        """Of the best node that the `num_chars` characters of a piece have led to."""
        if not num_chars:
            return 0.0
        return max(
            (weights[node] * (INSIDE if self._depth[node] > num_chars else 1.0) for node in state),
            default=0.0,
        )

    def _along(self, state: State, char: str) -> State:
        return frozenset(self.children[node].get(char, 0) for node in state) - self.START
