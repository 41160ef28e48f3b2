"""Parameterizations: how to read the network's output.

The parameterizations of diffusion (`ScoreBased`) give a score, log q_t(y) / q_t(x_t), which is all
that the generic bound and the reverse steps need. Those that predict the clean token
(`PredictsClean`) compute the score through the process.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch.nn import functional

from platform_core.categorical import KeepAll, Truncation
from platform_core.errors import UsageError
from platform_core.process import Diffusion, Masking, Thinned
from platform_core.types import Logits, LogProbs, Nats, Noise, Tokens

ClosedBound = Callable[[Logits, Tokens, Tokens, Noise, Noise], Nats]
"""(logits, x_t, x0, alpha, slope) -> the integrand of the bound, one value per row."""


class Parameterization:
    """A way to read logits."""

    requires: ClassVar[Mapping[str, type]] = {}


class ScoreBased(Parameterization, ABC):
    """Logits that can be read as a score of a diffusion process."""

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion}

    @abstractmethod
    def log_score(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log q_t(y) / q_t(x_t) for every state y."""

    def sharpened_score(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
    ) -> LogProbs:
        """`log_score` after a truncation of the clean law behind it.

        Raises:
            UsageError: this parameterization does not know how to truncate.
        """
        if not isinstance(truncation, KeepAll):
            raise UsageError(
                f"{type(self).__name__} has no clean law to sharpen; leave out the sampler's "
                "options temperature, top_k, top_p and min_p"
            )
        return self.log_score(logits, x_t, alpha, process)

    def closed_bound(self, process: Diffusion) -> ClosedBound | None:
        """The bound's integrand under this process in closed form, if there is a shorter form than
        that of `objective.Nelbo`, which it equals; None if not.
        """
        return None

    @abstractmethod
    def thin(
        self,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        generator: torch.Generator,
    ) -> Thinned:
        """The first half of a reverse step, which needs no logits."""

    @abstractmethod
    def draw_open(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        """The second half of a reverse step: draw the tokens that `thin` left open.

        `alpha_s` is the level that `thin` returned.
        """

    @abstractmethod
    def most_likely(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> Tokens:
        """The most likely clean token, always one of the vocabulary."""


class PredictsClean(ScoreBased):
    """Logits that give a law of the clean token at each position."""

    @abstractmethod
    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """Log-probabilities of the clean token at signal level alpha; a row's sum to 1."""

    def nats(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, process: Diffusion
    ) -> Nats:
        """-log x_theta[x0] of each row; a parameterization may know a way without the whole law."""
        return -self.log_x0(logits, x_t, alpha, process).gather(-1, x0[..., None]).squeeze(-1)

    def log_score(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """The score of the process if the clean token has the predicted law."""
        return process.log_score(self.log_x0(logits, x_t, alpha, process), x_t, alpha)

    def sharpened_score(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
    ) -> LogProbs:
        """The score of the process if the clean token has the truncated predicted law."""
        return process.log_score(truncation(self.log_x0(logits, x_t, alpha, process)), x_t, alpha)

    def thin(
        self,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        generator: torch.Generator,
    ) -> Thinned:
        """Thin as the process does, because the step draws from the posterior of the process."""
        return process.thin(x_t, alpha_s, alpha_t, generator=generator)

    def draw_open(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        """Draw as the process does, from the truncated predicted law."""
        log_x0 = truncation(self.log_x0(logits, x_t, alpha_t, process))
        return process.draw_open(log_x0, x_t, alpha_s, alpha_t, generator=generator)

    def most_likely(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> Tokens:
        """The mode of the predicted law, masks excluded."""
        return self.log_x0(logits, x_t, alpha, process)[..., : process.vocab_size].argmax(-1)


class MaskFree(PredictsClean):
    """A law of the clean token without mass on the mask, for noise of masks only.

    Closed forms that assume a law on the vocabulary alone require this class.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Masking}


class Mean(PredictsClean):
    """The softmax of the logits is the law of the clean token, over all states, a mask included.

    For uniform noise, the best prediction is the law given all *other* positions, p(x_0 | x_t at
    the others), because the posterior adds the evidence of the position itself.

    Source: D3PM, arXiv:2107.03006, section 3.3; DUO, arXiv:2506.10892.
    """

    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log softmax, in float32 or wider."""
        return widen(logits).log_softmax(-1)


def cross_entropy(logits: Logits, tokens: Tokens, num_tokens: int) -> Nats:
    """-log softmax of the first `num_tokens` logits at one token of each row, float32 or wider."""
    first = widen(logits[..., :num_tokens]).flatten(0, -2)
    nats = functional.cross_entropy(first, tokens.flatten(), reduction="none")
    return nats.view(tokens.shape)


def widen(logits: Logits) -> Logits:
    """Logits in float32 or wider, because sums over a vocabulary in bfloat16 lose small
    probabilities.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
