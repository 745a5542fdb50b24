"""Hold every notebook and solution to its stored outputs on each instruction set and thread count.

`python -m tools.matrix`. Torch takes ATEN_CPU_CAPABILITY at its word, even where the processor cannot do it, so what
this machine lacks is left out and named.
"""

import os
import subprocess
import sys
import tempfile

from tools.notebooks import ROOT, sources, target_of

CAPABILITIES = ("default", "avx2", "avx512")  # in ascending order: a processor with one has those before it
THREADS = ("1", "2")


def supported() -> tuple[str, ...]:
    """The instruction sets that this processor has."""
    environment = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
    command = [sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"]
    best = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip().lower()
    return CAPABILITIES[: CAPABILITIES.index(best) + 1] if best in CAPABILITIES else CAPABILITIES[:1]


def main() -> int:
    """Run all combinations, then print one line for each; the exit code is 1 if one failed."""
    available = supported()
    notebooks = [str(target_of(source).relative_to(ROOT)) for source in sources()]
    lines, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for capability in CAPABILITIES:
            for threads in THREADS:
                setting = f"ATEN_CPU_CAPABILITY={capability:8} threads={threads}"
                if capability not in available:
                    lines.append(f"{setting} not run: this processor has no {capability}")
                    continue
                print(f"\n{setting}", flush=True)
                # torch.compile's cache does not ask for which instruction set a kernel was made.
                variables = {"ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/{capability}",
                             "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
                command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", *notebooks]
                code = subprocess.run(command, cwd=ROOT, env=os.environ | variables).returncode
                lines.append(f"{setting} {'passed' if code == 0 else 'FAILED'}")
                failed = failed or code != 0
    print("", *lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
