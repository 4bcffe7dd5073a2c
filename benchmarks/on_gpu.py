"""All that needs a GPU, the most important part first; each table is printed and written as soon as it is made.

python -m benchmarks.on_gpu --output FILE [--device cuda:1] [--parts "CRD step"]
"""

from __future__ import annotations

from benchmarks import epoch, input, step
from benchmarks.timing import run_parts

PARTS = {
    **step.PARTS,
    **epoch.PARTS,
    "Epoch, captured": epoch.compare_captured_epochs,
    **input.PARTS,
}

if __name__ == "__main__":
    run_parts(__doc__, PARTS, default_device="cuda")
