"""All benchmarks of speed, one after another, as one table and as JSON.

    python benchmarks/run_all.py [FILE]

About a quarter of an hour on 2 cores. Every case runs in a process of its own; the machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script only this folder would be searched

from benchmarks import crd_step, epoch, input_pipeline, loading, stage2, study_report, teacher_cache
from benchmarks.timing import Claim, table
from files import write_text
from training.run.environment import environment

BENCHMARKS = (crd_step, epoch, input_pipeline, loading, teacher_cache, stage2, study_report)


def report(claims: list[Claim], seconds: float) -> str:
    """Return claims with the machine they were measured on, as JSON."""
    lines = [{**asdict(claim), "met": claim.met} for claim in claims]
    return json.dumps({"environment": environment(), "seconds": seconds, "claims": lines}, indent=2) + "\n"


def main(path: Path) -> None:
    start = time.perf_counter()
    claims = []
    for benchmark in BENCHMARKS:
        print(f"{benchmark.__name__} ...", file=sys.stderr, flush=True)
        claims += benchmark.claims()
    seconds = time.perf_counter() - start
    print(table(claims))
    missed = [claim.what for claim in claims if claim.met is False]
    print(f"{seconds:.0f} s in all; missed: {', '.join(missed) or 'nothing'}")
    write_text(path, report(claims, round(seconds, 1)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path("benchmarks.json"), help="where JSON goes")
    main(parser.parse_args().file)
