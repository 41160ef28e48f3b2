"""Detokenizers: they turn published corpora of separated tokens into ordinary text.

Each is a list of replacements, applied in their order to one document. Tokens that a detokenizer
leaves separated (a stop at the end of a wikitext line, contractions with n't) are separated in the
published figures too, so they are kept that way. Named by the entries of `corpora/`; used by
`corpus`.

Source: the preparation of the zero-shot corpora of MDLM, arXiv:2406.07524, and SEDD,
arXiv:2310.16834.
"""

import re
from collections.abc import Callable, Iterable, Mapping

Detokenizer = Callable[[str], str]


def replacing(*rules: tuple[str, str]) -> Detokenizer:
    """A function that applies these patterns and replacements, one after another."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def apply(text: str) -> str:
        for pattern, replacement in compiled:
            text = pattern.sub(replacement, text)
        return text

    return apply


def _tight_after(marks: Iterable[str]) -> list[tuple[str, str]]:
    """Rules that remove the space before each mark, in this order, as one may follow another."""
    return [(re.escape(f" {mark} "), f"{mark} ") for mark in marks]


wikitext = replacing(
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (r" @\.@ ", "."),
    *_tight_after(":;.!?,"),
    (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)
"""WikiText: spaces around punctuation, @-@ within numbers and words, and headings."""

ptb = replacing(
    (" 's", "'s"),
    ("s ' ", "s' "),
    (" n't", "n't"),
    (" \n ", "\n"),
    (r"\\/", "/"),
    ("(?<= )N(?= )", "1"),
    (r"\$ 1", "$1"),
    ("# 1", "#1"),
    ("<unk>", "?"),
)
"""Penn Treebank: contractions, and N for numbers, which becomes 1."""

lm1b = replacing(
    ("(https?) : / / ", r"\1://"),
    (r" '(\w+)", r"'\1"),
    (r" (\w+) \. ", r" \1. "),
    (r" (\w+) \.$", r" \1."),
    *_tight_after("?"),
    (r" \?$", "?"),
    *_tight_after("!"),
    (" !$", "!"),
    *_tight_after(",:;"),
    (" / ", "/"),
    (r'" ([^"]+) "', r'"\1"'),
    (r"' ([^']+) '", r"'\1'"),
    (r"\( ([^()]+) \)", r"(\1)"),
    (r"\[ ([^\[\]]+) \]", r"[\1]"),
    (r"\$ ", "$"),
    ("\N{POUND SIGN} ", "\N{POUND SIGN}"),
)
"""One Billion Words: spaces around punctuation, quotations, brackets and currencies."""

_straight = replacing(("[\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}]", '"'))


def lambada(text: str) -> str:
    """LAMBADA: straight quotation marks, and each document on a line of its own."""
    return "\n" + _straight(text).strip()


def scientific_papers(text: str) -> str:
    """arXiv and PubMed: the rules of WikiText, then those of One Billion Words."""
    return lm1b(wikitext(text))


DETOKENIZERS: Mapping[str, Detokenizer] = {
    "wikitext": wikitext,
    "ptb": ptb,
    "lm1b": lm1b,
    "lambada": lambada,
    "scientific-papers": scientific_papers,
}
