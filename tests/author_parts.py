"""Parts as an author may write them: a process with an option that laws need, and samplers that
claim less than all laws.
"""

from typing import ClassVar

import torch

from platform_core import categorical
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.model import Denoiser
from platform_core.parameterization import PredictsClean
from platform_core.process import Absorbing, Diffusion, Thinned
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


class Neighbours(Diffusion):
    """A token moves to its neighbours only, so that noise is no mixture with a prior.

    q(x_t | x_s) = exp(-log(alpha_t / alpha_s) Q),  Q the generator of a random walk
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)

    def generator(self):
        beside = torch.ones(self.num_states - 1, dtype=torch.float64)
        jumps = beside.diag(1) + beside.diag(-1)
        return jumps - jumps.sum(-1).diag()

    def step(self, kept):
        """q(x_t | x_s), `[*batch, x_s, x_t]`, for kept = alpha_t / alpha_s."""
        values, vectors = torch.linalg.eigh(self.generator())
        powers = kept[..., None] ** -values.clamp_max(0)
        return torch.einsum("ik,...k,jk->...ij", vectors, powers, vectors).clamp_min(0)

    def sample_prior(self, shape, generator):
        return torch.randint(self.num_states, shape, generator=generator)

    def noisy(self, log_x0, alpha):
        return torch.einsum("...i,...ij->...j", log_x0.double().exp(), self.step(alpha))

    def corrupt(self, x0, alpha, generator):
        rows = self.step(alpha.expand(x0.shape))
        chosen = rows.gather(-2, x0[..., None, None].expand(*x0.shape, 1, rows.shape[-1]))
        return categorical.draw(chosen.squeeze(-2).flatten(0, -2), generator).view(x0.shape)

    def changeable(self, x_t):
        return torch.ones_like(x_t, dtype=torch.bool)

    def log_score(self, log_x0, x_t, alpha):
        log_q = self.noisy(log_x0, alpha.expand(x_t.shape)).log().clamp_min(-1e6)
        return (log_q - log_q.gather(-1, x_t[..., None])).to(log_x0.dtype)

    def rates(self, x_t, alpha, slope):
        return -(slope / alpha)[..., None] * self.generator()[x_t]

    def reach(self, x_t, alpha_s, alpha_t):
        rows = self.step((alpha_t / alpha_s).expand(x_t.shape))  # symmetric
        return rows.gather(-2, x_t[..., None, None].expand(*x_t.shape, 1, rows.shape[-1]))[
            ..., 0, :
        ]

    def reverse(self, log_score, x_t, alpha_s, alpha_t):
        steps = self.step((alpha_t / alpha_s).expand(x_t.shape))
        earlier = torch.linalg.solve(steps, log_score.double().exp()[..., None]).squeeze(-1)
        return self.reach(x_t, alpha_s, alpha_t) * earlier.clamp_min(0)

    def posterior(self, log_x0, x_t, alpha_s, alpha_t):
        earlier = self.noisy(log_x0, alpha_s.expand(x_t.shape))
        mass = self.reach(x_t, alpha_s, alpha_t) * earlier
        return mass / mass.sum(-1, keepdim=True)

    def thin(self, x_t, alpha_s, alpha_t, *, generator):
        return Thinned(self.changeable(x_t), alpha_s)

    def draw_open(self, log_x0, x_t, alpha_s, alpha_t, *, generator):
        return categorical.draw(self.posterior(log_x0, x_t, alpha_s, alpha_t), generator)


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
            chances = model.parameterization.log_x0(logits, tokens, alpha, process)
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
    with_small = {"backbone": "small"}
    return [
        Component("blocks", target, "masks in blocks", defaults=with_small),
        Component("neighbours", "author_parts:Neighbours", "a random walk", defaults=with_small),
    ]


@hookimpl
def platform_samplers():
    """The samplers."""
    return [
        Component("greedy", "author_parts:Greedy", "the likeliest token"),
        Component("told", "author_parts:Told", "knows the text"),
        Component("modest", "author_parts:Modest", "claims little"),
    ]
