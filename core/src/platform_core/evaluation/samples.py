"""Generation: samples of a model as text, around a prompt if there is one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.composition.options import SampleOptions
from platform_core.data.tokenizer import Tokenizer
from platform_core.draws import derive_generator
from platform_core.errors import UsageError
from platform_core.evaluation.trajectory import Trajectory
from platform_core.guidance import guided
from platform_core.model import Model, Watch
from platform_core.record.progress import shown
from platform_core.runtime.accelerator import own_share
from platform_core.sampler import Prompt, Sampler
from platform_core.types import Inputs, Noise

Onlooker = Callable[[list[int], float], None]
"""Sees the token ids of one text before each call of the network, and their signal level."""


@final
class Recorder:
    """Keep the first sequence of every batch that the network reads, without waiting for a GPU.

    Args:
        onlooker: also shown each of them at once, for which a GPU is waited for.
    """

    def __init__(self, onlooker: Onlooker | None = None) -> None:
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._onlooker = onlooker

    def see(self, inputs: Inputs, alpha: Noise) -> None:
        """Keep a batch of tokens; ignore a distribution, which is no step of a sampler."""
        if isinstance(inputs, Tensor) and not inputs.is_floating_point():
            self._seen.append((inputs[0].clone(), alpha[0].mean()))
            if self._onlooker is not None:
                self._onlooker(inputs[0].tolist(), float(alpha[0].mean()))

    def trajectory(self, sample: Sequence[int], vocab_size: int) -> Trajectory | None:
        """The trajectory to the sample; None if nothing was recorded, or only parts of the text."""
        if not self._seen or any(len(tokens) != len(sample) for tokens, _ in self._seen):
            return None
        tokens = torch.stack([tokens for tokens, _ in self._seen]).tolist()
        alphas = torch.stack([alpha for _, alpha in self._seen]).tolist()
        return Trajectory([*tokens, list(sample)], [*alphas, 1.0], vocab_size)


@dataclass(frozen=True)
class Samples:
    """Generated texts and their cost."""

    texts: list[str]
    tokens: list[list[int]]
    nfe: int
    """Network evaluations spent on a batch, the most of any batch."""
    seconds: float
    nfe_per_text: float
    """Mean network evaluations that a text took part in; below `nfe` where texts end early."""
    trajectory: Trajectory | None = None
    """Trajectory of the first sample, if it was asked for and the sampler has one; only in the main
    process, which draws that sample.
    """


def generate(
    model: Model,
    sampler: Sampler,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
    options: SampleOptions,
    *,
    length: int,
    seed: int,
    labels: Sequence[str] = (),
    watched: bool = False,
    onlooker: Onlooker | None = None,
) -> Samples:
    """Generate `options.number` samples of `length` tokens; equal seeds give equal texts.

    Several processes draw whole batches each, all of them have all samples at the end, and these
    are the samples of one process. So all processes have to call it.

    Args:
        model: model that writes the samples.
        sampler: sampler that draws from the model.
        tokenizer: tokenizer of the prompt and of the texts.
        accelerator: device and precision.
        options: number of samples, prompt, label and guidance.
        length: tokens in each sample.
        seed: seed of every draw.
        labels: names of the labels that the model knows.
        watched: also record the trajectory of the first sample; the samples are the same.
        onlooker: sees that trajectory, which is recorded then, in place of a progress bar.

    Raises:
        UsageError: there is no such label; or the prompt is longer than the samples, has characters
            that the tokenizer lacks, or has blanks that the sampler cannot fill.
    """
    given = prompt_tokens(options, tokenizer, length, sampler)
    recorder = Recorder(onlooker)
    drawn = draw(
        guided(model, labels, options),
        sampler,
        accelerator,
        lambda first, batch: _prompt(given, (batch, length), accelerator.device),
        shape=(options.number, length),
        batch_size=options.batch_size,
        seed=seed,
        watch=recorder.see if watched or onlooker else None,
        show=onlooker is None,
    )
    tokens, texts = drawn.tokens, [tokenizer.decode(row) for row in drawn.tokens]
    trajectory = recorder.trajectory(tokens[0], tokenizer.vocab_size) if tokens else None
    return Samples(texts, tokens, drawn.nfe, drawn.seconds, drawn.nfe_per_text, trajectory)


class Drawn(NamedTuple):
    """Drawn token ids and their cost; fields as of `Samples`."""

    tokens: list[list[int]]
    nfe: int
    nfe_per_text: float
    seconds: float


def draw(
    model: Model,
    sampler: Sampler,
    accelerator: Accelerator,
    prompts: Callable[[int, int], Prompt | None],
    *,
    shape: tuple[int, int],
    batch_size: int,
    seed: int,
    watch: Watch | None = None,
    show: bool = True,
) -> Drawn:
    """Draw texts batch by batch, each with its own generator; several processes divide them.

    Args:
        model: model that writes the texts.
        sampler: sampler that draws from the model.
        accelerator: device and precision.
        prompts: gives the prompt of the batch that begins with a text's number and has so many
            texts, on the accelerator's device; None for no prompt.
        shape: number of texts, and tokens in each.
        batch_size: texts in a batch.
        seed: seed of every draw.
        watch: called before every network call of the first batch.
        show: show a bar if it takes long.
    """
    training, device = model.training, accelerator.device
    writer = model if watch is None else model.watched(watch)
    model.eval()
    start, (number, length) = time.perf_counter(), shape
    # Ids, and behind them the network evaluations of the batch and of the text; the rows of other
    # processes stay 0.
    drawn = torch.zeros(number, length + 2, dtype=torch.long, device=device)
    batches = own_share(range(0, number, batch_size))
    show = show and accelerator.is_main_process
    for first in shown(batches, "sampling", unit="batch", show=show):
        batch = min(batch_size, number - first)
        generator = derive_generator(seed, "sample", first, device=device)
        with torch.no_grad(), accelerator.autocast():
            sample = sampler(writer, (batch, length), generator, prompts(first, batch))
        drawn[first : first + batch, :length] = sample.tokens
        drawn[first : first + batch, length] = sample.nfe
        drawn[first : first + batch, -1] = sample.nfe if sample.each is None else sample.each
        writer = model
    rows = accelerator.reduce(drawn).tolist()
    model.train(training)
    nfe = max((row[length] for row in rows), default=0)
    per_text = sum(row[-1] for row in rows) / max(1, len(rows))
    return Drawn([row[:length] for row in rows], nfe, per_text, time.perf_counter() - start)


def prompt_tokens(
    options: SampleOptions, tokenizer: Tokenizer, length: int, sampler: Sampler
) -> list[int | None]:
    """One entry per given position: its token, or None for a blank to fill in."""
    if options.prompt is not None and options.template is not None:
        raise UsageError("give --sample.prompt or --sample.template, not both")
    given: list[int | None] = []
    if options.prompt is not None:
        given += map(int, tokenizer.encode(options.prompt))
    if options.template is not None:
        for index, part in enumerate(options.template.split(options.blank)):
            given += [None] * min(index, 1) + [int(token) for token in tokenizer.encode(part)]
    if len(given) > length:
        raise UsageError(
            f"the prompt has {len(given)} tokens, but samples have {length}; "
            "shorten it or raise --sample.length"
        )
    number = sum(token is not None for token in given)
    if not sampler.fills_blanks and None in given[:number]:
        raise UsageError(
            "the template has text after a blank, but the sampler only continues a beginning; give "
            "--sample.prompt, or fill blanks with a diffusion process, such as absorbing"
        )
    return given


def _prompt(given: list[int | None], shape: tuple[int, int], device: torch.device) -> Prompt | None:
    if not given:
        return None
    tokens, fixed = torch.zeros(shape[1], dtype=torch.long), torch.zeros(shape[1], dtype=torch.bool)
    for position, token in enumerate(given):
        if token is not None:
            tokens[position], fixed[position] = token, True
    return Prompt(tokens.expand(shape).to(device), fixed.expand(shape).to(device))
