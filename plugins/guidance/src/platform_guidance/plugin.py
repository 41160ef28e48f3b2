"""Parts of this package: samplers that prefer some texts to others, and rewards that say which."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

REWARD = {"reward": ("reward", "entropy")}


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Samplers that take a reward."""
    return [
        Component(
            "best-of",
            "platform_guidance.sampler:BestOf",
            "the best of several texts of another sampler, by a reward (--sampler.reward)",
            around="ancestral",
            takes=REWARD,
        ),
        Component(
            "particles",
            "platform_guidance.particles:Particles",
            "Feynman-Kac steering of another sampler's steps, by a reward (--sampler.reward)",
            around="ancestral",
            takes=REWARD,
        ),
        Component(
            "d-cbg",
            "platform_guidance.sampler:ClassifierGuided",
            "ancestral steps guided by a classifier or another graded reward (--sampler.reward)",
            takes=REWARD,
        ),
    ]


@hookimpl
def platform_rewards() -> Iterable[Component]:
    """Rewards from a trained run, and from the text alone."""
    return [
        Component(
            "likelihood",
            "platform_guidance.runs:Likelihood",
            "log-likelihood of the text under another run",
        ),
        Component(
            "label",
            "platform_guidance.runs:Label",
            "log-probability of a label given the text, by a run that was trained with labels",
        ),
        Component(
            "matches",
            "platform_guidance.rewards:Matches",
            "how often a regular expression matches in the text",
        ),
        Component(
            "entropy",
            "platform_guidance.rewards:Entropy",
            "entropy of the text's own tokens, low where a text repeats itself",
        ),
    ]
