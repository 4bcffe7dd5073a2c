"""KSG against the closed form on Gaussians: `python -m benchmarks.ksg_gaussians`, about 10 s on 2 cores.

X and Y have D independent columns each, column d of X and of Y correlated with rho, so that
I(X; Y) = -D/2 log(1 - rho^2) nats.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from estimator import ksg


def gaussians(rho: float, dims: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw X and Y, (n, dims) each, with correlation rho between columns of the same number."""
    X, noise = np.random.default_rng(seed).standard_normal((2, n, dims))
    return X, rho * X + math.sqrt(1 - rho**2) * noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"k = {options.k}, nats, one sample each (seed {options.seed})")
    print(f"{'rho':>4} {'D':>3} {'n':>6} {'closed':>8} {'KSG 1':>8} {'error':>8} {'KSG 2':>8} {'error':>8}")
    for rho in (0.0, 0.5, 0.9):
        for dims in (1, 2, 5, 10):
            for n in (500, 2000, 5000):
                X, Y = gaussians(rho, dims, n, options.seed)
                closed = dims / 2 * math.log(1 / (1 - rho**2))
                one, two = (ksg(X, Y, k=options.k, variant=variant) for variant in (1, 2))
                cells = (closed, one, one - closed, two, two - closed)
                print(f"{rho:4.1f} {dims:3d} {n:6d} " + " ".join(f"{cell:8.3f}" for cell in cells))


if __name__ == "__main__":
    main()
