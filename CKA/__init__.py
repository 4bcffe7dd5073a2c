"""Centered kernel alignment: how similar are two sets of features of the same samples?

`compute_linear_cka` and `compute_rbf_cka` are exact on all samples; `MinibatchCKA` fills the layer-by-layer matrix
of two networks in one pass over the data. All use the unbiased HSIC estimator, so unrelated features score about 0
whatever their dimension.
"""

from CKA.cka import Similarity, compute_linear_cka, compute_rbf_cka, compute_rbf_cka_with_each
from CKA.minibatch import MinibatchCKA, SimilarityMatrix

__all__ = [
    "MinibatchCKA",
    "Similarity",
    "SimilarityMatrix",
    "compute_rbf_cka",
    "compute_rbf_cka_with_each",
    "compute_linear_cka",
]
