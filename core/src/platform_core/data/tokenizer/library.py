"""Tokenizers with tokens of several characters, read from JSON of the `tokenizers` library.

The library only encodes byte-level text. Decoding and counting characters use the bytes of each
token, so both are exact even where a token holds a part of a character.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby, tee
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from platform_core.data.tokenizer.base import (
    LEFT_OVER,
    Encoded,
    Ids,
    Tokenizer,
    Unknown,
    adding_up,
)
from platform_core.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

BATCH_CHARACTERS = 1 << 22
"""Characters that are encoded together; the library needs about 100 bytes for each meanwhile."""

PIECE_CHARACTERS = 1 << 16
"""Longer texts are cut where a cut changes no token, for threads and for memory."""

_CUT = re.compile(r"(?<=[!-~])[ \n]")


class LibraryTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, without the special tokens that the library adds.

    A special token that is spelt out in the text is text like any other.

    Args:
        model: the library's JSON.
        begin: the token that begins documents.
        end: the token that ends documents.
        pad: the token that fills up sequences.
        size: number of ids for which a network has rows, if that is more than the tokens.

    Raises:
        ValueError: the library cannot read the model, one of the tokens is not in it, or there are
            more tokens than `size`.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        model: Mapping[str, Any],
        *,
        begin: str,
        end: str,
        pad: str,
        size: int | None = None,
    ) -> None:
        self.model, self.begin, self.end, self.pad = model, begin, end, pad
        ids = self.library.get_vocab(with_added_tokens=True)
        if lacking := sorted({begin, end, pad} - ids.keys()):
            raise ValueError(f"the vocabulary lacks the token {lacking[0]}")
        self.num_tokens = max(ids.values()) + 1
        self._size = self.num_tokens if size is None else size
        if self._size < self.num_tokens:
            raise ValueError(f"the vocabulary has {self.num_tokens} tokens, more than {size}")
        self._bos_id, self._eos_id, self._pad_id = ids[begin], ids[end], ids[pad]

    @cached_property
    def library(self) -> "Library":
        library = read_library(self.model)
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        return library

    @property
    def vocab_size(self) -> int:
        """Number of ids, including ids without a token."""
        return self._size

    @property
    def pad_id(self) -> int:
        return self._pad_id

    @property
    def bos_id(self) -> int:
        return self._bos_id

    @property
    def eos_id(self) -> int:
        return self._eos_id

    @property
    def special(self) -> Mapping[str, int]:
        """Ids by name of the beginning, the end and the library's other special tokens."""
        added = self.library.get_added_tokens_decoder().items()
        kept = {token.content: i for i, token in added if token.special}
        return {**kept, self.begin: self.bos_id, self.end: self.eos_id}

    @final
    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Ids of each text, encoded by the library in batches."""
        pieces = ((n, piece) for n, text in enumerate(texts) for piece in self._cut(text))
        for _, of_text in groupby(self._encode(pieces), key=itemgetter(0)):
            yield np.concatenate([ids for _, ids in of_text])

    @abstractmethod
    def _cut(self, text: str) -> Iterator[str]:
        """At least one piece of the text; the pieces together have the tokens of the whole text."""

    def _encode(self, pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Ids]]:
        ids_type = np.min_scalar_type(self.vocab_size - 1)
        for batch in _batches(pieces):
            texts = [text for _, text in batch]
            encoded = self.library.encode_batch_fast(texts, add_special_tokens=False)
            for (number, _), found in zip(batch, encoded, strict=True):
                yield number, np.array(found.ids, dtype=ids_type)

    @final
    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Readable text of ids, with special tokens by name; pure padding is left out."""
        padding = {self.pad_id} - {self.bos_id, self.eos_id}
        kept = (int(i) for i in ids if i not in padding)
        runs = groupby(kept, lambda i: i < self.num_tokens)
        return "".join(
            self._read(list(run)) if known else LEFT_OVER * len(list(run)) for known, run in runs
        )

    @abstractmethod
    def _read(self, ids: list[int]) -> str:
        """The text of ids that all have a token."""

    @final
    def with_unknown(self, unknown: Unknown) -> "Self":
        """This tokenizer, which reads any text.

        Raises:
            UsageError: unknown characters are to be replaced.
        """
        if unknown != "error":
            raise UsageError(
                f"--data.unknown {unknown} is for characters and text8; this tokenizer reads any "
                "text, so leave it out"
            )
        return self

    @final
    def to_dict(self) -> dict[str, Any]:
        """Plain values: the library's JSON, the special tokens, and the size if it is larger."""
        special = {"begin": self.begin, "end": self.end, "pad": self.pad}
        size = {"size": self.vocab_size} if self.vocab_size > self.num_tokens else {}
        return {"kind": self.kind, **special, **size, "model": self.model}

    @final
    def with_size(self, size: int) -> "Self":
        """The same tokens with `size` ids; ids after the last token have none."""
        special = {"begin": self.begin, "end": self.end, "pad": self.pad}
        return type(self)(self.model, **special, size=size)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Self":
        special = {name: values[name] for name in ("begin", "end", "pad")}
        return cls(values["model"], **special, size=values.get("size"))


@final
class ByteLevelTokenizer(LibraryTokenizer):
    """Tokenizer whose tokens are strings of UTF-8 bytes, so that it encodes any text without loss.

    Bytes that form no whole character, as sampling may leave them, are decoded as U+FFFD.
    Source: GPT-2, Radford et al. 2019; the library writes bytes as `byte_characters`.
    """

    kind = "byte-level"

    @property
    def unknown_id(self) -> None:
        """None, because bytes can express any text."""

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token; special tokens are spelt out."""
        of = {character: byte for byte, character in enumerate(byte_characters())}
        pieces = [b""] * self.vocab_size
        for token, i in self.library.get_vocab(with_added_tokens=False).items():
            pieces[i] = (
                bytes(of[character] for character in token) if of.keys() >= set(token) else b""
            )
        for i, added in self.library.get_added_tokens_decoder().items():
            pieces[i] = added.content.encode()
        return pieces

    @cached_property
    def _characters(self) -> "np.ndarray[Any, np.dtype[np.uint32]]":
        """Number of characters that begin in each token; 0 for special tokens."""
        special = {
            i for i, token in self.library.get_added_tokens_decoder().items() if token.special
        }
        begun = (
            0 if i in special else sum(byte & 0xC0 != 0x80 for byte in piece)
            for i, piece in enumerate(self.pieces)
        )
        return np.fromiter(begun, np.uint32, self.vocab_size)

    def count_characters(self, ids: Ids) -> int:
        """Number of bytes that begin a character: exact for a text, and additive over its parts."""
        return int(self._characters[ids].sum(dtype=np.int64))

    def encode_counted(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Ids of each text with the characters that begin in each token."""
        read, encoded = tee(texts)
        for text, ids in zip(read, self.encode_all(encoded), strict=True):
            yield Encoded(ids, adding_up(self._characters[ids], len(text)))

    def _cut(self, text: str) -> Iterator[str]:
        """Cut before spaces, where no word of GPT-2 goes on; do not cut for other models."""
        start = 0
        while self._has_words_of_gpt2:
            found = _CUT.search(text, start + PIECE_CHARACTERS)
            if found is None:
                break
            yield text[start : found.start()]
            start = found.start()
        yield text[start:]

    @cached_property
    def _has_words_of_gpt2(self) -> bool:
        words = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        given = self.model.get("pre_tokenizer") or {}
        return self.model.get("normalizer") is None and words.items() <= given.items()

    def _read(self, ids: list[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", errors="replace")


@final
class SubwordTokenizer(LibraryTokenizer):
    """Any other tokenizer, such as WordPiece or SentencePiece; decoding may change the text."""

    kind = "subword"

    @property
    def unknown_id(self) -> int | None:
        """The unknown token of the library's model, which gives its name or its id."""
        said = self.model["model"]
        if said.get("unk_token") is not None:
            return self.library.token_to_id(said["unk_token"])
        number: int | None = said.get("unk_id")
        return number

    def encode_counted(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Ids of each text with the characters of the text up to the end of each token."""
        ids_type = np.min_scalar_type(self.vocab_size - 1)
        for batch in _batches(enumerate(texts)):
            read = [text for _, text in batch]
            encoded = self.library.encode_batch(read, add_special_tokens=False)
            for text, found in zip(read, encoded, strict=True):
                # Blanks before a word count to the word, and tokens may share a character.
                ends = np.array([0, *(end for _, end in found.offsets)])
                counts = np.diff(np.maximum.accumulate(ends))
                yield Encoded(np.array(found.ids, dtype=ids_type), adding_up(counts, len(text)))

    def count_characters(self, ids: Ids) -> int:
        """Number of characters of the decoded text, special tokens left out."""
        return len(self.library.decode(ids.tolist(), skip_special_tokens=True))

    def _cut(self, text: str) -> Iterator[str]:
        yield text

    def _read(self, ids: list[int]) -> str:
        return str(self.library.decode(ids, skip_special_tokens=False))


def read_library(model: Mapping[str, Any]) -> "Library":
    """The tokenizer of the tokenizers library that its JSON describes.

    Raises:
        ValueError: the library cannot read the JSON.
    """
    from tokenizers import Tokenizer as Library

    try:
        return Library.from_str(json.dumps(model))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # The library raises nothing narrower, and may panic.
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"the tokenizers library cannot read the model: {said}") from error


def byte_characters() -> str:
    """The character that stands for each byte in byte-level vocabularies, byte 0 first.

    Printable bytes stand for themselves.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def tokenizer_of(model: Mapping[str, Any], *, begin: str, end: str, pad: str) -> LibraryTokenizer:
    """A tokenizer of the kind that the library's JSON describes."""
    byte_level = (model.get("decoder") or {}).get("type") == "ByteLevel"
    kind = ByteLevelTokenizer if byte_level else SubwordTokenizer
    return kind(model, begin=begin, end=end, pad=pad)


def _batches(pieces: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for number, text in pieces:
        _require_utf8(text)
        batch.append((number, text))
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _require_utf8(text: str) -> None:
    """Refuse lone surrogates, which a command line may hold but UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the text has U+{ord(text[error.start]):04X} at character {error.start}, which "
            "UTF-8 cannot encode; correct it"
        ) from error
