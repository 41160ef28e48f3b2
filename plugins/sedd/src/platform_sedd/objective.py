"""SEDD's objective under masks: score entropy in closed form.

    f_t = -alpha' / (1 - alpha) ( sum(w) - 1 - log w[x_0] )  at masks, 0 elsewhere

with w of `parameterization.Score`. If sum(w) = 1, f_t is MDLM's weighted cross-entropy; otherwise
the term sum(w) - 1 - log sum(w) >= 0 is added. Tests check that f_t equals
`platform_core.objective.Nelbo`.
"""

from collections.abc import Mapping
from typing import ClassVar, final

from platform_core.objective import DiffusionObjective
from platform_core.process import Absorbing
from platform_core.types import Logits, Nats, Noise, Tokens
from platform_sedd.parameterization import Score, masked_entropy


@final
class ScoreEntropy(DiffusionObjective):
    """The bound under masks for a network that predicts scores; `nelbo` covers all other cases.

    SEDD writes it as sigma' ( sum_y s[y] - k log s[x_0] + k (log k - 1) ) at a mask, with
    k = alpha / (1 - alpha) and s = k w; the terms in log k cancel.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. Without it, the
            rare times close to 0 give gradients of unbounded variance. The exact bound ignores it.

    Source: SEDD, arXiv:2310.16834, section 3 (denoising score entropy).
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": Score}

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """The closed form, which needs one sum over the vocabulary."""
        process = self.denoiser.process
        assert isinstance(process, Absorbing), "see requires"
        return masked_entropy(logits, x_t, x0, alpha, slope, process=process)
