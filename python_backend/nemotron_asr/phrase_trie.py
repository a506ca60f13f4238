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
    """A trie: strings by their characters. Node 0 is the root.

    The nodes that a string adds are numbered on, so only those that branch need a dictionary.
    """

    def __init__(self):
        self._next = [""]  # the character behind each node, in the string that added it
        self._branches: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._next)

    def children(self, node: int) -> dict[str, int]:
        branches = self._branches.get(node)
        if branches is not None:
            return branches
        char = self._next[node]
        return {char: node + 1} if char else {}

    def add(self, chars: str) -> int:
        """The node of a string, made where there is none."""
        node = 0
        for i, char in enumerate(chars):
            children = self.children(node)
            if char not in children:
                self._branches.setdefault(node, children)[char] = len(self)
                self._next += [*chars[i + 1 :], ""]
                return len(self) - 1
            node = children[char]
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
        self.ids: list[list[int]] = [[] for _ in range(len(self))]  # spelled so
        for id_, node in enumerate(nodes):
            if is_text[id_]:
                self.ids[node].append(id_)
        self.word_starts: list[int] = []  # nodes behind marks alone
        todo = [0]
        while todo:
            children = self.children(todo.pop())
            todo += (marks := [children[char] for char in children if not is_word_char(char)])
            self.word_starts += marks

    def below(self, node: int) -> list[int]:
        """Ids of the pieces that begin with a node's characters."""
        ids, todo = [], [node]
        while todo:
            node = todo.pop()
            ids += self.ids[node]
            todo += self.children(node).values()
        return ids


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
        self._ends: dict[int, float] = {}  # weight of the phrase that ends at a node
        self._best = [0.0]  # of each node, weight of the best phrase that it is part of
        for phrase in sorted(phrases, key=lambda phrase: -phrase.weight):
            node = self.add(fold(phrase.text))
            self._ends.setdefault(node, phrase.weight)
            self._best += [phrase.weight] * (len(self) - len(self._best))
        self._behind_marks: dict[int, float] = {}  # what begins a phrase within a piece
        for at in pieces.word_starts:
            self._follow(self._behind_marks, at, 0, 1.0)
        self._anew = dict(self._behind_marks)  # where a phrase may begin with the piece, too
        self._follow(self._anew, 0, 0, 1.0)

    def step(self, state: State, id_: int) -> State:
        """Where the walk is after a piece."""
        for char in self._pieces.chars[id_]:
            state = self._along(state, char) | (self.START if parts_words(char) else set())
        return state

    def fits(self, state: State) -> dict[int, float]:
        """The pieces that begin a phrase, go on with one or end it, and how much to favour each.

        That is the weight of the best such phrase, `INSIDE` times where a piece before began it.
        """
        fits = dict(self._anew if 0 in state else self._behind_marks)
        for node in state - self.START:
            self._follow(fits, 0, node, INSIDE)
        return fits

    def _follow(self, fits: dict[int, float], at: int, node: int, factor: float) -> None:
        """Add to `fits` the pieces that lead along phrases.

        at: the node of the pieces from where on they do.  node: that of the phrases.
        """
        pieces, todo = self._pieces, [(at, node)]
        while todo:
            at, node = todo.pop()
            ways, wanted = pieces.children(at), self.children(node)
            few, many = (ways, wanted) if len(ways) < len(wanted) else (wanted, ways)
            for char in filter(many.__contains__, few):  # in order, unlike a set
                at, node = ways[char], wanted[char]
                _raise(fits, pieces.ids[at], factor * self._best[node])
                if weight := self._ends.get(node):
                    for char, behind in pieces.children(at).items():
                        if parts_words(char):
                            _raise(fits, pieces.below(behind), factor * weight)
                todo.append((at, node))

    def _along(self, state: State, char: str) -> State:
        return frozenset(self.children(node).get(char, 0) for node in state) - self.START


def _raise(fits: dict[int, float], ids: Iterable[int], worth: float) -> None:
    for id_ in ids:
        fits[id_] = max(worth, fits.get(id_, 0.0))
