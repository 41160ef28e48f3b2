"""The choice of the optimizer: the names that `--train.optimizer` takes."""

from platform_core.errors import UsageError, did_you_mean
from platform_core.registry.parts import Plugins

OF_TORCH = {
    kind.lower(): kind
    for kind in ("Adadelta", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")
}
"""Name -> class of torch.optim that works on any parameter, without a closure."""


def require_optimizer(name: str, plugins: Plugins) -> None:
    """Refuses a name that no optimizer has.

    Raises:
        UsageError: neither a plugin nor torch.optim has an optimizer of that name.
    """
    possible = [*plugins.names("optimizer"), *OF_TORCH]
    if name not in possible:
        raise UsageError(
            f"train.optimizer is {name}; expected one of {', '.join(possible)}"
            f"{did_you_mean(name, possible)}"
        )
