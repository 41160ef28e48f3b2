"""Make tasks with one right answer: prompts and answers, as JSON lines in two splits.

    python experiments/pairs/make.py data/sums --task sums
    platform run --config experiments/pairs/sums.yaml --data.path data/sums

    sums    20311230=        22123011             the sum of all digits so far, modulo 4
    sort    38201745=        01234578             the digits in order
    add     347+586=         0933                 the sum, with as many digits as it can have
    fill    347+___=0933     586                  the number that is missing: with a suffix

The same options give the same files. No prompt of the validation text is in the training text.
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

Row = Mapping[str, str]


def sums(digits: int, draw: random.Random) -> Row:
    """Random digits below 4, and their running sums modulo 4."""
    given = [draw.randrange(4) for _ in range(digits)]
    answer = (total % 4 for total in itertools.accumulate(given))
    return {"prompt": f"{''.join(map(str, given))}=", "answer": "".join(map(str, answer))}


def sort(digits: int, draw: random.Random) -> Row:
    """Random digits, and the same digits in order."""
    text = "".join(str(draw.randrange(10)) for _ in range(digits))
    return {"prompt": f"{text}=", "answer": "".join(sorted(text))}


def add(digits: int, draw: random.Random) -> Row:
    """Two numbers with leading zeros, and their sum."""
    one, other = (draw.randrange(10**digits) for _ in range(2))
    answer = f"{one + other:0{digits + 1}}"
    return {"prompt": f"{one:0{digits}}+{other:0{digits}}=", "answer": answer}


def fill(digits: int, draw: random.Random) -> Row:
    """A sum whose second number is missing."""
    one, other = (draw.randrange(10**digits) for _ in range(2))
    return {
        "prompt": f"{one:0{digits}}+",
        "answer": f"{other:0{digits}}",
        "suffix": f"={one + other:0{digits + 1}}",
    }


TASKS: Mapping[str, Callable[[int, random.Random], Row]]
TASKS = {"sums": sums, "sort": sort, "add": add, "fill": fill}


def main() -> None:
    """Write train.jsonl and validation.jsonl, without prompts that occur twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the two files go")
    parser.add_argument("--task", choices=TASKS, default="sums")
    parser.add_argument("--digits", type=int, default=8, help="digits of each number")
    parser.add_argument("--train", type=int, default=50_000, help="pairs to train on")
    parser.add_argument("--validation", type=int, default=1_000, help="pairs that are held out")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw, rows = random.Random(f"{asked.task} {asked.digits} {asked.seed}"), {}
    wanted = asked.train + asked.validation
    for _ in range(20 * wanted):
        row = TASKS[asked.task](asked.digits, draw)
        rows[row["prompt"] + row.get("suffix", "")] = row
        if len(rows) == wanted:
            break
    else:
        parser.error(f"{asked.digits} digits have fewer than {wanted} prompts; ask for fewer")
    asked.folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows.values()]
    held = lines[: asked.validation]
    (asked.folder / "validation.jsonl").write_text("".join(held), encoding="utf-8")
    (asked.folder / "train.jsonl").write_text("".join(lines[len(held) :]), encoding="utf-8")


if __name__ == "__main__":
    main()
