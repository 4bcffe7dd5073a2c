"""Mutual information: Kraskov 2004, Ross 2014, contrastive lower bound.

`estimate_mutual_information` and `estimate_label_information` give an estimate with its interval. They are made of
`estimate_ksg`, `estimate_ross` and `compute_subsample_interval`. All numbers are in nats.
"""

from estimator.bounds import compute_nce_bound
from estimator.information import (
    MutualInformation,
    compute_subsample_interval,
    estimate_label_information,
    estimate_mutual_information,
    reduce_dimensions,
)
from estimator.kraskov import estimate_ksg
from estimator.ross import estimate_ross

__all__ = [
    "MutualInformation",
    "compute_nce_bound",
    "compute_subsample_interval",
    "estimate_label_information",
    "estimate_mutual_information",
    "estimate_ross",
    "estimate_ksg",
    "reduce_dimensions",
]
