"""`platform vocabulary RUN`: the words of a run's samples beside those of its training text."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from platform_core.cli.parser import Parser, positive
from platform_words.tokenizer import words_of

if TYPE_CHECKING:
    from platform_core.data.tokenizer import Tokenizer


def main(argv: Sequence[str]) -> int:
    """Prints the most frequent words, and those that the training text lacks.

    Raises:
        UsageError: the words of the command line are wrong, or there is no such run.
    """
    parser = Parser(prog="platform vocabulary", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--number", type=positive, default=8, help="samples (%(default)s)")
    parser.add_argument("--top", type=positive, default=10, help="words (%(default)s)")
    parser.add_argument("--json", action="store_true", help="all words, for programs")
    asked = parser.parse_args(argv)

    # Not at the top: torch, which `--help` does not need.
    from platform_core.data.corpus import open_corpus
    from platform_core.evaluation.trained import TrainedRun

    run = TrainedRun.open(asked.run)
    text = Counter[str]()
    for document in open_corpus(run.composition.data).documents("train"):
        text.update(words_of(document))
    samples = run.sample(asked.number)
    written = Counter[str]()
    for tokens in samples.tokens:
        written.update(word for part in parts(tokens, run.tokenizer) for word in words_of(part))
    print(as_json(written, text) if asked.json else table(written, text, asked.top))
    return 0


def parts(tokens: Iterable[int], tokenizer: "Tokenizer") -> list[str]:
    """The texts between the marks of a sample."""
    marks = {tokenizer.pad_id, *tokenizer.special.values()}
    stretches = groupby(tokens, key=lambda token: token in marks)
    return [tokenizer.decode(stretch) for mark, stretch in stretches if not mark]


def table(written: Counter[str], text: Counter[str], top: int) -> str:
    """For a person to read."""
    lacking = [word for word, _ in written.most_common() if word not in text]
    wide = max([4, *(len(word) for word, _ in written.most_common(top))])
    lines = [f"{'word':{wide}}  in samples  in training text"]
    for word, number in written.most_common(top):
        lines.append(f"{word:{wide}}  {number:>10,}  {text[word]:>16,}")
    shown = ": " + ", ".join(lacking[:top]) if lacking else ""
    more = f" and {len(lacking) - top} more" if len(lacking) > top else ""
    lines.append(
        f"{written.total():,} words, {len(written):,} different; the training text lacks "
        f"{len(lacking):,} of these{shown}{more}"
    )
    return "\n".join(lines)


def as_json(written: Counter[str], text: Counter[str]) -> str:
    """How often samples and training text have each word of the samples."""
    return json.dumps({word: [number, text[word]] for word, number in written.most_common()})
