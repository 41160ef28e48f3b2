"""Measure with a text classifier whether guidance moves samples towards their label.

    python experiments/sotu/guidance.py RUN --labels 19th 21st --weights 0 1 3

The classifier is naive Bayes on counts of character n-grams of the training text, smoothed by 1,
with equal prior probabilities. It is trained on equally many sequences of each label, as many as
the rarest label has: otherwise unseen n-grams, of which an undertrained model writes many, would
favour the label with the least text. Its accuracy on validation sequences is printed first. Then,
for each label and guidance weight: the share of samples that is classified as the label, the mean
posterior of the label (too certain, because n-grams overlap), and the entropy of single characters
in bits, which falls when samples lose variety.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from platform_core.composition.compose import compose_saved
from platform_core.data.sequences import Data, load_data
from platform_core.data.tokenizer import load_tokenizer
from platform_core.errors import UsageError
from platform_core.evaluation.samples import generate
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime


class NaiveBayes:
    """log p(text | label) = sum over n-grams of log (count in the label + 1) / (total + kinds)."""

    def __init__(self, texts: Sequence[str], labels: Sequence[int], *, number: int, n: int) -> None:
        self.n = n
        counts = [Counter[str]() for _ in range(number)]
        for text, label in zip(texts, labels, strict=True):
            counts[label].update(self.grams(text))
        kinds = len(set().union(*counts))
        self.log_probs: dict[str, npt.NDArray[np.float64]] = {}
        totals = np.array([count.total() for count in counts]) + kinds
        self.unseen = -np.log(totals)
        for gram in set().union(*counts):
            found = np.array([count[gram] for count in counts])
            self.log_probs[gram] = np.log(found + 1) - np.log(totals)

    def grams(self, text: str) -> Iterable[str]:
        """All n-grams of the characters of a text."""
        return (text[start : start + self.n] for start in range(len(text) - self.n + 1))

    def posterior(self, text: str) -> npt.NDArray[np.float64]:
        """Posterior probability of each label, given a text."""
        scores = sum(
            (self.log_probs.get(g, self.unseen) for g in self.grams(text)), 0 * self.unseen
        )
        mass = np.exp(scores - scores.max())
        return np.asarray(mass / mass.sum())


def labelled_texts(data: Data, split: str) -> tuple[list[str], list[int]]:
    """The counted text of each sequence, and its label."""
    sequences = data.split(split)
    batch = sequences.batch(range(len(sequences)))
    assert batch.labels is not None, "the run has labels"
    texts = [
        data.tokenizer.decode(row[kept].tolist())
        for row, kept in zip(batch.x0, batch.mask, strict=True)
    ]
    return texts, batch.labels.tolist()


def balanced(texts: Sequence[str], labels: Sequence[int]) -> tuple[list[str], list[int]]:
    """Equally many texts of each label, as many as the rarest has, evenly spread over its texts."""
    by_label: dict[int, list[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        by_label.setdefault(label, []).append(text)
    number = min(map(len, by_label.values()))
    kept = [
        (of[place * len(of) // number], label)
        for label, of in by_label.items()
        for place in range(number)
    ]
    return [text for text, _ in kept], [label for _, label in kept]


def entropy(texts: Sequence[str]) -> float:
    """Entropy of single characters, in bits."""
    counts = np.array(list(Counter("".join(texts)).values()), dtype=float)
    law = counts / counts.sum()
    return float(-(law * np.log2(law)).sum())


def main() -> None:
    """Print the accuracy of the classifier and the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="directory of a run with data.label")
    parser.add_argument("--labels", nargs="+", help="labels to write text of; all by default")
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 1.0, 3.0])
    parser.add_argument("--number", type=int, default=64, help="samples of each label and weight")
    parser.add_argument("--steps", type=int, default=128, help="steps of the sampler")
    parser.add_argument("--n", type=int, default=3, help="characters in an n-gram")
    asked = parser.parse_args()

    directory = RunDirectory.existing(asked.run)
    names = directory.label_names()
    if not names:
        raise UsageError(f"{asked.run} has no labels; train one with --data.label")
    accelerator = runtime.start("auto")
    tokenizer = load_tokenizer(directory.tokenizer)
    plugins = load_plugins()

    def composed(label: str, weight: float) -> tuple:
        words = [f"--sample.label={label}", f"--sample.guidance={weight}"]
        words += [f"--sample.number={asked.number}", f"--sampler.steps={asked.steps}"]
        return compose_saved(directory.config, words, plugins, prog="guidance.py", environ={})[0]

    first = composed(names[0], 1.0)
    data = load_data(first.data, tokenizer, names)
    classifier = NaiveBayes(*balanced(*labelled_texts(data, "train")), number=len(names), n=asked.n)
    texts, truth = labelled_texts(data, "validation")
    found = np.array([classifier.posterior(text).argmax() for text in texts])
    for number in sorted(set(truth)):
        right = found[np.array(truth) == number] == number
        print(f"validation text of {names[number]}: {right.mean():.3f} of {len(right)} recognised")
    print(f"{'label':>20} {'weight':>6} {'nfe':>5} {'share':>6} {'posterior':>9} {'entropy':>7}")
    built = TrainedRun(directory, first, accelerator).built
    for label in asked.labels or names:
        for weight in asked.weights:
            composition = composed(label, weight)
            samples = generate(
                built.model,
                built.sampler,
                tokenizer,
                accelerator,
                composition.sample,
                length=composition.data.length,
                seed=composition.seed,
                labels=names,
            )
            place = names.index(label)
            laws = np.array([classifier.posterior(text) for text in samples.texts])
            share = (laws.argmax(-1) == place).mean()
            print(
                f"{label:>20} {weight:6.2f} {samples.nfe:5d} {share:6.3f} "
                f"{laws[:, place].mean():9.3f} {entropy(samples.texts):7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
