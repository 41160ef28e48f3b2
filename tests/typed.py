"""Types commands one after another in a folder: `python tests/typed.py FOLDER < COMMANDS`.

COMMANDS is a line of JSON for each, its words after `platform`. For each it prints a line of JSON:
the exit code, and what the command said. Processes fork from this one (`fuzz`).
"""

import json
import os
import sys
import time
from pathlib import Path

import fuzz


def main() -> int:
    """Types them all, also after one that fails."""
    folder = Path(sys.argv[1])
    out, errors = folder.parent / "out", folder.parent / "errors"
    fuzz.import_everything()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            fuzz.become(json.loads(line), folder, out, errors)
        code, _ = fuzz.wait(child, time.monotonic() + 300)
        print(json.dumps([code, out.read_text(), errors.read_text()]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
