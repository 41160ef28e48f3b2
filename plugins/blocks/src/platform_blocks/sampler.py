"""The sampler of block diffusion: block after block, each by another sampler.

    x^b ~ sampler( . | x^1, ..., x^(b-1) )      b = 1, 2, ...

The other sampler sees a network of one block: `Block`, which knows the blocks that are finished.
With a key-value cache these cost nothing more, so a step costs the positions of a block instead of
those of the text.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import nn

from platform_core.backbone import Backbone, Reader, Sighted, reader
from platform_core.model import Denoiser, Model
from platform_core.objective import Objective
from platform_core.process import Diffusion
from platform_core.sampler import Counts, Prompt, Sample, Sampler
from platform_core.types import Hidden, Inputs, Noise, Selected, Tokens, tensor


@final
class Blocks(Sampler):
    """Writes block after block by another sampler, also texts longer than those of training.

    Args:
        inner: the sampler of each block.
        block_size: tokens of a block; by default as in training (objective block-nelbo), else 16.
        window: tokens that the network sees at most, the block included; by default as many as
            sequences of training have. Where a text is longer, the earliest blocks are forgotten,
            half a window at a time.
        cached: keep keys and values of finished blocks, where the backbone can; without, every call
            reads the window again, to the same effect.
        stop: stop at the first block that holds the end of a document; what follows is padding.
        objective: what trained the network.
        length: tokens in a sequence of training.
        pad_id: the id of padding.

    A prompt conditions exactly what follows it; it must be the beginning of the text. Reading a
    finished block counts as a network evaluation, like a step.
    Source: BD3-LM, arXiv:2503.09573.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "backbone": Sighted}
    fills_blanks = False

    def __init__(
        self,
        inner: Sampler,
        length: int,
        block_size: int | None = None,
        window: int | None = None,
        cached: bool = True,
        stop: bool = False,
        objective: Objective | None = None,
        pad_id: int | None = None,
        tokenizer: object = None,
    ) -> None:
        trained = getattr(objective, "block_size", 16)
        self.inner, self.cached = inner, cached
        self.block_size = trained if block_size is None else block_size
        if self.block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block has at least 1 token")
        self.window = max(length, self.block_size) if window is None else window
        if self.window < self.block_size:
            raise ValueError(
                f"window is {window}, but a block of {self.block_size} tokens has to fit in it"
            )
        self.pad_id = pad_id
        self.end_id: int | None = getattr(tokenizer, "eos_id", None) if stop else None

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Draw text, one block after another."""
        text = Writing(self, model, shape, generator)
        for start in range(0, shape[1], self.block_size):
            end = min(start + self.block_size, shape[1])
            given = None
            if prompt is not None:
                given = Prompt(prompt.tokens[:, start:end], prompt.fixed[:, start:end])
            text.write(end - start, given)
            if self.end_id is not None and text.ended(self.end_id).all():
                break
        return text.finished(self.end_id, self.pad_id)


class Writing:
    """A batch of texts whose blocks are being written.

    Args:
        sampler: the options.
        model: the model of whole texts.
        shape: `(batch, length)` of the finished texts.
        generator: of every draw.
    """

    def __init__(
        self, sampler: Blocks, model: Model, shape: tuple[int, int], generator: torch.Generator
    ) -> None:
        self.sampler, self.model, self.generator = sampler, model, generator
        self.denoiser = Denoiser(model)
        self.tokens = self._unwritten(shape)
        self.length = 0
        self.calls = 0
        self.each: Counts | None = None
        self.reader = self._reader()
        self.first = self.read = 0
        """The first token of the window, and the end of what the reader has read of it."""

    def write(self, number: int, prompt: Prompt | None) -> None:
        """Write the next block, of `number` tokens."""
        start, end = self.length, self.length + number
        self.length = end
        if prompt is not None and bool(prompt.fixed.all()):
            self.tokens[:, start:end] = prompt.tokens
            return
        self._catch_up(start, number)
        model = self.model.with_backbone(Block(self.model.backbone, self.reader))
        if self.model.watch is not None:
            model = model.watched(functools.partial(self._show, start))
        drawn = self.sampler.inner(model, (len(self.tokens), number), self.generator, prompt)
        self.tokens[:, start:end] = drawn.tokens
        self._count(drawn.nfe, drawn.each)

    def ended(self, end_id: int) -> Selected:
        """Which texts hold the end of a document, `[batch]`."""
        return (self.tokens[:, : self.length] == end_id).any(-1)

    def finished(self, end_id: int | None, pad_id: int | None) -> Sample:
        """The texts, with padding behind the end of a document where one stops there."""
        if end_id is not None and pad_id is not None:
            self.tokens[:, self.length :] = pad_id
            is_end = self.tokens == end_id
            behind = is_end.cumsum(-1) - is_end.long() > 0
            self.tokens.masked_fill_(behind, pad_id)
        return Sample(self.tokens, self.calls, self.each)

    def _catch_up(self, start: int, number: int) -> None:
        """Let the network read the finished blocks in front of `start`, as far as they fit."""
        size, window = self.sampler.block_size, self.sampler.window
        # The window moves by half its blocks at a time, so that it is read again only rarely.
        half = max(size, window // 2 // size * size)
        first = max(0, -(-(start + number - window) // half) * half)
        if first > self.first:
            self.reader, self.first, self.read = self._reader(), first, first
        while self.read < start:
            tokens = self.tokens[:, self.read : self.read + size]
            level = torch.ones(len(tokens), 1, dtype=torch.float64, device=tokens.device)
            self.reader.read(tokens, self.denoiser.sigma(level))
            self.read += tokens.shape[1]
            self._count(self.model.backbone.evaluations, None)

    def _count(self, calls: int, each: Counts | None) -> None:
        """Add network evaluations of the batch, and of each text where they are known."""
        if each is not None and self.each is None:
            self.each = torch.full_like(each, self.calls)
        self.calls += calls
        if self.each is not None:
            self.each = self.each + (calls if each is None else each)

    def _show(self, start: int, inputs: Inputs, alpha: Noise) -> None:
        """Show who watches the model the whole text, with the block that is being written."""
        assert self.model.watch is not None, "see write"
        whole, block = self.tokens.clone(), tensor(inputs)
        whole[:, start : start + block.shape[1]] = block
        self.model.watch(whole, alpha)

    def _unwritten(self, shape: tuple[int, int]) -> Tokens:
        """Pure noise, which is only shown."""
        seeded = torch.Generator(self.generator.device).manual_seed(0)
        return self.denoiser.process.sample_prior(shape, seeded)

    def _reader(self) -> Reader:
        return reader(self.model.backbone, self.sampler.window, cached=self.sampler.cached)


class Block(Backbone):
    """The network of one block, which sees the block and what a reader has read.

    Args:
        backbone: the network of whole texts.
        reader: has read the blocks before this one.
    """

    def __init__(self, backbone: Backbone, reader: Reader) -> None:
        super().__init__()
        self.backbone, self.reader = backbone, reader
        self.evaluations = backbone.evaluations

    @property
    def decoder(self) -> nn.Module:
        return self.backbone.decoder

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of the block's noisy tokens."""
        return self.reader.look(tensor(inputs), sigma)
