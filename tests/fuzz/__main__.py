"""The long set of fuzzing cases: python -m tests.fuzz [--cases 20000] [--seed 0] [KIND …]"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter

from tests.fuzz.cases import KINDS, Broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes what reads another's bytes.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of: {', '.join(KINDS)}; all, if none is named")
    parser.add_argument("--cases", type=int, default=20_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each case has the next one")
    options = parser.parse_args()
    broken: Counter[str] = Counter()
    for kind in options.kinds or KINDS:
        if kind not in KINDS:
            parser.error(f"no kind {kind!r}; one of: {', '.join(KINDS)}")
        first = 0
        for seed in range(options.seed, options.seed + options.cases):
            try:
                KINDS[kind](random.Random(seed))
            except Broken as failure:
                broken[f"{kind}: {failure.where}"] += 1
                if broken[f"{kind}: {failure.where}"] == 1:
                    print(f"{kind}, seed {seed}: {failure}", flush=True)
                first += 1
        print(f"{kind}: {options.cases} cases, {first} broken", flush=True)
    for where, count in broken.most_common():
        print(f"{count:6} {where}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
