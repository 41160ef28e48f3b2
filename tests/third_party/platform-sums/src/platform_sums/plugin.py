"""What the package brings: a corpus, an evaluation and its metrics, and a reward."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_corpora() -> Iterable[Component]:
    """One corpus."""
    return [Component("sums", "platform_sums.corpus:open_sums", "sums of two whole numbers")]


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """One evaluation."""
    return [Component("right-sums", "platform_sums.evaluation:RightSums", "samples that add up")]


@hookimpl
def platform_rewards() -> Iterable[Component]:
    """One reward."""
    return [Component("right-sum", "platform_sums.reward:RightSum", "1 for text that adds up")]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """Its numbers."""
    from platform_sums.metrics import METRICS

    return METRICS
