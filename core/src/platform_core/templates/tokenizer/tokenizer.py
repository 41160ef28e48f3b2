"""The tokenizer: text as token ids, and back.

`PieceTokenizer` makes the vocabulary of the pieces that `cut` finds in a corpus, after the tokens
for padding, the beginning and the end of a document, and unknown pieces. Derive from
`platform_core.data.tokenizer.base.Tokenizer` if tokens are not pieces of text.
"""

import re
from collections.abc import Sequence
from typing import final

from platform_core.data.tokenizer.pieces import PieceTokenizer


@final
class NewPart(PieceTokenizer):
    """One token for each word, space or other sign of the corpus."""

    kind = "new-part"

    @classmethod
    def cut(cls, text: str) -> Sequence[str]:
        return re.findall(r"\w+|\W", text)
