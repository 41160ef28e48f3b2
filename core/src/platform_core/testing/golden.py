"""Reference values that other code computed, stored beside the tests that compare with them.

    GOLDEN = Golden(Path(__file__).parent / "golden")

    def test_the_loss_is_the_reference_s():
        case = GOLDEN.tensors("d.loss")
        loss = ours(case["logits"], case["x0"])
        torch.testing.assert_close(loss, case["output/nll"], **GOLDEN.tolerance("d.loss"))

The folder has a `cases.json`, whose list `cases` gives for each case its `id`, the safetensors
`file` with its tensors, `suggested_rtol` and `suggested_atol`, and any notes of the author. The
tensors of a case are named `<id>/<param|input|output>/<name>`.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


class Golden:
    """The golden cases of one folder.

    Args:
        folder: the folder with `cases.json` and the files that it names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = json.loads((folder / "cases.json").read_text())["cases"]
        self.cases: dict[str, dict[str, Any]] = {case["id"]: case for case in listed}

    def tensors(self, case: str) -> dict[str, Tensor]:
        """The tensors of a case: inputs and parameters by name, outputs by `output/<name>`.

        Raises:
            KeyError: there is no such case.
        """
        prefix = f"{case}/"
        stored = load_file(self.folder / self.cases[case]["file"])
        return {
            name.removeprefix(prefix).removeprefix("input/").removeprefix("param/"): tensor
            for name, tensor in stored.items()
            if name.startswith(prefix)
        }

    def tolerance(self, case: str) -> dict[str, float]:
        """`rtol` and `atol` of a case's stored values, for `torch.testing.assert_close`."""
        about = self.cases[case]
        return {"rtol": about["suggested_rtol"], "atol": about["suggested_atol"]}
