"""Start-up: the cost of `import engine` and `--help`, and a check for heavy imports.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from contest import machine

HEAVY = ("torch", "transformers", "openvino", "openvino_genai", "hydra", "omegaconf", "aiohttp", "httpx", "numpy")
ROUNDS = 11


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    code = "import time; t = time.perf_counter(); import engine; print(time.perf_counter() - t)"
    imports, bare, helps = [], [], []
    for _ in range(ROUNDS):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        imports.append(float(done.stdout))
        bare.append(wall([sys.executable, "-c", "pass"]))
        helps.append(wall([sys.executable, "-m", "engine", "--help"]))
    listed = f"import engine, json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", listed], check=True, capture_output=True, text=True)
    print(machine("pydantic", "msgspec"))
    print(f"import engine: {statistics.median(imports):.3f} s (median of {ROUNDS}; bound 0.25)")
    python = statistics.median(bare)
    print(f"--help, whole process: {statistics.median(helps):.3f} s (bound 0.8; a bare Python: {python:.3f})")
    print(f"heavy modules imported by `import engine`: {json.loads(done.stdout) or 'none'}")


if __name__ == "__main__":
    main()
