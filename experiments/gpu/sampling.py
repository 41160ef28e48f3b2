"""Tokens per second of samples of untrained networks, a row of check.sh's table for each family.

python experiments/gpu/sampling.py --network small --states 50257 --batch 8 --length 1024
"""

import argparse

import platform_bench as bench


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="tiny")
    parser.add_argument("--width", type=int)
    for name in ("states", "batch", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    size = bench.Size(**vars(parser.parse_args()))
    for path in ("duo, 8 steps", "mdlm, 8 steps", "ar, cache"):
        seconds = bench.measure(bench.Case("sampling", path, size))["seconds"]
        print(f"| {path} | {size.batch * size.length / seconds:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
