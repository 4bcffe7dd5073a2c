"""Tables of features: alike, informative, well separated."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.evaluation.results import Information, Representation, Shape
from diagnostics.tables.table import MODEL, NO_TEACHER, Cell, Column, Table, decimals, grouped, percent
from estimator import MutualInformation

TOO_FEW = "Too few images, or features that do not vary."
NO_PROJECTION = "Only a model whose first stage trains features has projections."


def representation(section: Mapping[str, Representation] | None) -> Table:
    """Similarity of student and teacher features at both taps."""
    columns = [
        MODEL,
        Column("tap", "tap"),
        Column("linear", "linear CKA", decimals(3)),
        Column("rbf", "RBF CKA", decimals(3)),
        Column("linear_minibatch", "minibatch CKA", decimals(3)),
        Column("cosine", "cosine", decimals(3)),
    ]
    cells = []
    for name, row in (section or {}).items():
        for tap, part in (("penultimate", row.penultimate), ("last", row.last)):
            linear, rbf = part.linear, part.rbf
            batches = "" if part.linear_minibatch is not None else linear.notes.get("value", TOO_FEW)
            cells.append(
                [
                    Cell(name),
                    Cell(tap),
                    Cell(linear.value, note=linear.notes.get("value", "")),
                    Cell(rbf.value, note=rbf.notes.get("value", "")),
                    Cell(part.linear_minibatch, note=batches),
                    Cell(part.cosine, note="" if part.cosine is not None else NO_PROJECTION),
                ]
            )
    why = NO_TEACHER if section is None else "There is no student."
    return Table("representation", "Similarity to the teacher's features on all test images.", columns, cells, why)


def information(section: Information) -> Table:
    """Mutual information of features with labels and with the teacher's features."""
    columns = [
        MODEL,
        Column("of", "last tap with"),
        Column("value", "nats", decimals(2), interval=True),
        Column("n", "images", grouped),
        Column("k", "k", grouped),
        Column("dims", "dimensions"),
        Column("variance_kept", "variance kept, %"),
    ]
    cells = [_information_row(name, row, teacher=False) for name, row in section.labels.items()]
    cells += [_information_row(name, row, teacher=True) for name, row in (section.teacher or {}).items()]
    for name, bound in (section.nce_bound or {}).items():
        fixed = [Cell(bound.value), Cell(bound.negatives, note="Negatives K of each positive, not images.")]
        none = [Cell(None, note="The critic reads the projections; no neighbours and no PCA.") for _ in range(3)]
        cells.append([Cell(name), Cell("the teacher: log K − L on test images"), *fixed, *none])
    caption = "Estimated mutual information: labels by Ross 2014, the teacher's features by KSG."
    return Table("information", caption, columns, cells, "No model was looked at in detail.")


def _information_row(name: str, row: MutualInformation, teacher: bool) -> list[Cell]:
    dims = f"{row.dims_x} and {row.dims_y}" if teacher else str(row.dims_x)
    kept = [row.variance_kept_x, *([row.variance_kept_y] if teacher else [])]
    known = [share for share in kept if share is not None]
    shares = " and ".join(f"{100 * share:.0f}" for share in known) if len(known) == len(kept) else None
    remark = row.notes.get("variance_kept_x") or row.notes.get("variance_kept_y", "")
    return [
        Cell(name),
        Cell("the teacher" if teacher else "the label"),
        Cell(row.value, row.low, row.high, row.notes.get("value") or row.notes.get("low", "")),
        Cell(row.n, note=row.notes.get("n", "")),
        Cell(row.k, note=row.notes.get("k", "")),
        Cell(dims),
        Cell(shares, note=remark),
    ]


def geometry(section: Mapping[str, Shape]) -> Table:
    """The shape of the last tap's feature space."""
    kinds = {
        "scatter_ratio": ("between / within", 2),
        "fisher": ("Fisher", 1),
        "silhouette": ("silhouette", 3),
        "compactness": ("compactness", 3),
        "mean_separation": ("mean separation", 3),
        "min_separation": ("closest two", 3),
        "effective_rank": ("effective rank", 1),
        "collapsed_dimensions": ("collapsed", 0),
        "dimensions": ("dimensions", 0),
    }
    columns = [
        MODEL,
        Column("probe", "linear probe, %", percent()),
        *(Column(kind, heading, decimals(places)) for kind, (heading, places) in kinds.items()),
    ]
    cells = []
    for name, row in section.items():
        probe, notes = row.probe, row.geometry.notes
        stopped = "" if probe.converged else f"The probe stopped at {probe.iterations} iterations."
        cells.append(
            [
                Cell(name),
                Cell(probe.accuracy, note=probe.notes.get("accuracy", stopped)),
                *(Cell(getattr(row.geometry, kind), note=notes.get(kind, "")) for kind in kinds),
            ]
        )
    return Table("geometry", "Features of the last tap.", columns, cells, "No model was looked at in detail.")
