"""Training of byte-level BPE: 256 bytes, then pairs of tokens, the most frequent first."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.data.tokenizer.library import ByteLevelTokenizer, byte_characters
from platform_core.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library
    from tokenizers.models import BPE

END = "<|endoftext|>"
"""Token that begins and ends documents and fills up sequences, as in GPT-2."""

SMALLEST = 256 + 1

LARGEST = 10**7
"""The library makes room for all tokens before it has found any; no vocabulary has so many."""


def train_byte_pairs(texts: Iterable[str], size: int) -> ByteLevelTokenizer:
    """A vocabulary of at most `size` tokens: `END`, 256 bytes, and pairs seen more than once.

    Deterministic: the same texts give the same vocabulary. Source: Sennrich et al. 2016,
    arXiv:1508.07909, on the bytes of GPT-2's words.

    Raises:
        UsageError: the size has no room for the bytes, or is more than a vocabulary can have.
    """
    if size < SMALLEST:
        raise UsageError(
            f"--size is {size}; 256 bytes and {END} alone are {SMALLEST} tokens, so give at least "
            "that"
        )
    if size > LARGEST:
        raise UsageError(f"--size is {size}; a vocabulary has at most {LARGEST} tokens here")
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    library = _byte_level(BPE())
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=list(byte_characters()),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return _finished(library)


def byte_pairs_of_files(vocabulary: str, merges: str) -> ByteLevelTokenizer:
    """The tokenizer of GPT-2's two files, `vocab.json` and `merges.txt`.

    Raises:
        ValueError: the files are not of that form, or lack `END`.
    """
    from tokenizers.models import BPE

    try:
        model = BPE.from_file(vocabulary, merges)
    except Exception as error:  # The library raises nothing narrower.
        raise ValueError(f"the tokenizers library cannot read these files: {error}") from error
    library = _byte_level(model)
    if library.token_to_id(END) is None:
        raise ValueError(f"the vocabulary lacks the token {END}")
    library.add_special_tokens([END])
    return _finished(library)


def _byte_level(model: "BPE") -> "Library":
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, pre_tokenizers

    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    return library


def _finished(library: "Library") -> ByteLevelTokenizer:
    return ByteLevelTokenizer(json.loads(library.to_str()), begin=END, end=END, pad=END)
