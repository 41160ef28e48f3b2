"""Parts as an author may write them: a process with an option that laws need, and samplers that
claim less than all laws.
"""

from typing import ClassVar

import torch

from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.model import Denoiser
from platform_core.parameterization import PredictsClean
from platform_core.process import Absorbing
from platform_core.sampler import Ancestral, Sample, Sampler


class Blocks(Absorbing):
    """Masks, for texts of whole blocks only.

    Args:
        block_size: tokens in a block.
    """

    def __init__(self, vocab_size: int, block_size: int = 4) -> None:
        super().__init__(vocab_size)
        self.block_size = block_size

    def corrupt(self, x0, alpha, generator):
        if x0.shape[-1] % self.block_size:
            raise ValueError(f"{x0.shape[-1]} tokens are no blocks of {self.block_size}")
        return super().corrupt(x0, alpha, generator)


class Greedy(Sampler):
    """Temperature 0: the likeliest token at the position where it is likeliest, one at a time."""

    requires: ClassVar = {"process": Absorbing, "parameterization": PredictsClean}
    unclaimed: ClassVar = {
        "draws-the-data": "it searches for one likely text",
        "conditions-on-a-prompt": "it searches for one likely text",
        "same-seed-same-sample": "no draw is random",
        "texts-are-independent": "no draw is random",
    }

    @torch.no_grad()
    def __call__(self, model, shape, generator, prompt=None):
        process, denoiser = model.process, Denoiser(model)
        tokens = process.sample_prior(shape, generator)
        if prompt is not None:
            tokens = torch.where(prompt.fixed, prompt.tokens, tokens)
        alpha = torch.full((len(tokens), 1), 0.5, dtype=torch.float64)
        while (masked := process.changeable(tokens)).any():
            logits = model.backbone.decoder(denoiser.encode(tokens, alpha))
            chances = model.parameterization.log_x0(logits, tokens, process)
            best, found = chances[..., : process.vocab_size].max(-1)
            first = best.masked_fill(~masked, -torch.inf).argmax(-1, keepdim=True)
            chosen = masked & (torch.arange(shape[1]) == first)
            tokens = torch.where(chosen, found, tokens)
        return Sample(tokens, denoiser.calls)


class Modest(Greedy):
    """It does not claim to fill prompts, but does; its other laws it claims."""

    unclaimed: ClassVar = {"keeps-the-prompt": "prompts are not its business"}


class Told(Ancestral):
    """It takes all that is known of the text, and draws no text of another length.

    Args:
        steps: number of steps.
    """

    def __init__(self, length, pad_id, tokenizer, label_names, vocab_size, steps: int = 4) -> None:
        super().__init__(steps)
        self.length, self.pad_id, self.tokenizer = length, pad_id, tokenizer
        self.label_names, self.vocab_size = label_names, vocab_size
        if tokenizer is not None and tokenizer.vocab_size != vocab_size:
            raise ValueError("its tokenizer is another one")

    def __call__(self, model, shape, generator, prompt=None):
        if shape[1] > self.length:
            raise ValueError(f"a text of {shape[1]} tokens is longer than {self.length}")
        if shape[1] == 3:
            int("a defect")
        return super().__call__(model, shape, generator, prompt)


@hookimpl
def platform_processes():
    """The process."""
    target = "author_parts:Blocks"
    return [Component("blocks", target, "masks in blocks", defaults={"backbone": "small"})]


@hookimpl
def platform_samplers():
    """The samplers."""
    return [
        Component("greedy", "author_parts:Greedy", "the likeliest token"),
        Component("told", "author_parts:Told", "knows the text"),
        Component("modest", "author_parts:Modest", "claims little"),
    ]
