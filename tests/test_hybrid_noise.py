"""GIDD's noise with the parts of other families: what goes with it, and psi-samplers."""

from functools import partial

import torch

from platform_core.categorical import KeepAll
from platform_core.composition import compatibility
from platform_core.registry.loading import find_plugins
from platform_core.sampler import Walk
from platform_core.testing.toy import chi_square, double, exact_model, one_token_law
from platform_duo.sampler import psi_step
from platform_gidd.process import Gidd


def test_it_goes_with_what_needs_no_other_noise():
    found = compatibility.matrix(plugins := find_plugins(), "process")["gidd"]
    assert found == {
        "schedule": plugins.names("schedule"),
        "parameterization": ["mean", "score", "vocabulary"],
        "backbone": ["dit", "hf"],
        "objective": ["block-nelbo", "discrete-nelbo", "hybrid-nelbo", "nelbo"],
        "sampler": [
            "analytic",
            "ancestral",
            "best-of",
            "blocks",
            "d-cbg",
            "euler",
            "particles",
            "psi",
            "self-correction",
            "semi-autoregressive",
        ],
    }


def test_what_is_noised_again_has_the_noise_of_its_level():
    """Psi-samplers draw clean text and noise it: by n_s, which is not the prior that they began in.

    Any noise level after a step of kappa = 0 has the marginal of the data.
    """
    law, number, process = one_token_law(), 20_000, Gidd(3, 0.4)
    generator = torch.Generator().manual_seed(0)
    built = exact_model(law, partial(Gidd, p_uniform=0.4))
    walk = Walk.begin(built, KeepAll(), shape=(number, 1), generator=generator, prompt=None)
    s, t, kappa = (torch.full((1, 1), value).double() for value in (0.5, 0.0, 0.0))
    x_s = psi_step(walk, walk.noise, s, t, kappa)
    marginal = 0.5 * torch.cat((law.probs, double(0))) + process.noise(torch.arange(4), s[0])
    assert chi_square(x_s, marginal) > 0.01
