"""``python -m course_lib.parallel`` under torchrun or ``course launch``: the engines side by side, as a table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from course_lib.parallel.comm import join
from course_lib.parallel.trial import ENGINES, OURS, TORCH, Row, run

COLUMNS = ("engine", "parameters", "gradients", "optimizer", "all", "predicted", "sent", "calls", "from one process")
WORDS = ("engine", "calls")  # the columns that are no numbers


def main() -> int:
    """Run the trial, print the table on rank 0, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="course launch --ranks N --",
        description="Train a small language model with ZeRO 0 to 3 and with production's engines; compare weights, "
                    "bytes held and bytes sent.",
    )
    parser.add_argument("--engines", help=f"some of {', '.join(ENGINES)} (default: the course's and torch's)")
    parser.add_argument("--optimizer", default="adamw", help="a key of the registry (default: adamw)")
    parser.add_argument("--precision", default="fp32", help="fp32 or mixed-bf16 (default: fp32)")
    parser.add_argument("--steps", type=int, default=4, help="updates (default: 4)")
    parser.add_argument("--backend", default=None, help="gloo or nccl (default: nccl where there are GPUs enough)")
    parser.add_argument("--json", action="store_true", help="every rank's numbers, for programs")
    options = parser.parse_args()
    try:
        comm = join(options.backend)
    except (ValueError, ConnectionError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        names = [name.strip() for name in options.engines.split(",")] if options.engines else [
            name for name in OURS + TORCH if options.precision == "fp32" or ENGINES[name].mixed
        ]
        mine = run(comm, names, optimizer=options.optimizer, precision=options.precision, steps=options.steps)
        ranks = comm.gather_objects(mine)
    except (ValueError, ImportError) as error:
        if comm.rank == 0:  # the others say the same
            print(error, file=sys.stderr)
        return 2
    finally:
        comm.leave()
    if comm.rank == 0:
        rows = list(zip(*ranks, strict=True))
        print(json.dumps([[asdict(row) for row in every] for every in rows], indent=1) if options.json else table(rows))
    return 0


def table(rows: list[tuple[Row, ...]]) -> str:
    """The trial as text; of the ranks, the one that holds or sends most."""
    lines = [COLUMNS]
    for row in rows:
        most = max(row, key=lambda one: sum(one.held.values()))
        counts = ", ".join(f"{count} {name}" for name, (count, _) in most.calls.items())
        held = [f"{most.held[part]:,}" for part in ("parameters", "gradients", "optimizer")]
        lines.append((most.engine, *held, f"{sum(most.held.values()):,}", f"{sum(most.predicted.values()):,}",
                      f"{max(one.sent for one in row):,.0f}", counts, f"{max(one.apart for one in row):.0e}"))
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    ranks = rows[0][0].ranks
    text = [f"Bytes on the fullest of {ranks} ranks, after a backward pass; sent, by the busiest, in one step:"]
    for line in lines:
        cells = zip(line, widths, COLUMNS, strict=True)
        aligned = [cell.ljust(width) if name in WORDS else cell.rjust(width) for cell, width, name in cells]
        text.append("  ".join(aligned).rstrip())
    return "\n".join(text)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as torch is taken down, threads of DDP sometimes abort a process that is done
