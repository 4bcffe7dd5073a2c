"""Mutual information from samples: Kraskov 2004, Ross 2014, and the contrastive lower bound.

`mutual_information` and `label_information` are the front: features in, an estimate with its interval out.
`ksg`, `ross` and `subsample_interval` are the parts they are made of.
"""

from estimator.bounds import nce_lower_bound
from estimator.information import (
    MutualInformation,
    label_information,
    mutual_information,
    reduce,
    subsample_interval,
)
from estimator.kraskov import ksg
from estimator.ross import ross

__all__ = [
    "MutualInformation",
    "ksg",
    "label_information",
    "mutual_information",
    "nce_lower_bound",
    "reduce",
    "ross",
    "subsample_interval",
]
