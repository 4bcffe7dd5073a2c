"""Centered kernel alignment: how similar are two sets of features of the same samples?

`linear_cka` and `compute_rbf_cka` are exact on all samples; `MinibatchCKA` fills the layer-by-layer matrix of two
networks in one pass over the data. All use the unbiased HSIC estimator, so unrelated features score about 0
whatever their dimension.
"""

from CKA.cka import Similarity, compute_rbf_cka, compute_rbf_cka_with_each, linear_cka
from CKA.minibatch import MinibatchCKA, SimilarityMatrix

__all__ = [
    "MinibatchCKA",
    "Similarity",
    "SimilarityMatrix",
    "compute_rbf_cka",
    "compute_rbf_cka_with_each",
    "linear_cka",
]
