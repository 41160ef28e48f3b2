"""Parts of this package: samplers, the objective and the evaluation of orders of unmasking."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Samplers that choose masks by what the network says of them."""
    return [
        Component(
            "ordered",
            "platform_orders.sampler:Ordered",
            "masks in the order of confidence, margin, entropy, place or chance",
        ),
        Component(
            "maskgit",
            "platform_orders.sampler:MaskGit",
            "draws a token at every mask, keeps the likeliest of them",
        ),
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The exact likelihood of an order."""
    return [
        Component(
            "ordered-likelihood",
            "platform_orders.objective:OrderedLikelihood",
            "the bound in training; the exact likelihood of an order of unmasking in evaluation",
        )
    ]


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """The exact likelihood of a trained network under an order."""
    return [
        Component("ordered", "platform_orders.evaluation:Ordered", "exact likelihood of an order")
    ]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """Numbers of the exact likelihood under an order."""
    from platform_orders.metrics import METRICS

    return METRICS
