"""Tables of features: alike, informative, well separated."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.evaluation.results import FeatureShape, Information, Representation
from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_whole,
    read_row,
)

TOO_FEW = "Too few images, or features that do not vary."
NO_PROJECTION = "Only a model whose first stage trains features has projections."
NO_NEIGHBOURS = "The critic reads the projections: no neighbours, no PCA."
NO_DETAILS = "No model was looked at in detail."
REPRESENTATION = (
    MODEL,
    Column("tap", "tap"),
    Column("linear", "linear CKA", format_decimals(3), path="linear.value", why=TOO_FEW),
    Column("linear_biased", "linear CKA, biased", format_decimals(3), why=TOO_FEW),
    Column("rbf", "RBF CKA", format_decimals(3), path="rbf.value", why=TOO_FEW),
    Column("linear_minibatch", "minibatch CKA", format_decimals(3), why=TOO_FEW),
    Column("cosine", "cosine of projections, −1 to 1", format_decimals(3), why=NO_PROJECTION),
)
INFORMATION = (
    MODEL,
    Column("of", "last tap with"),
    Column("value", "nats", format_decimals(2), interval=True),
    Column("n", "images", format_whole),
    Column("k", "k", format_whole),
    Column("dims_x", "dimensions", format_whole),
    Column("dims_y", "of the teacher", format_whole),
    Column("variance_kept_x", "variance kept, %", format_percent(0)),
    Column("variance_kept_y", "of the teacher, %", format_percent(0)),
)
GEOMETRY = (
    MODEL,
    Column("probe", "linear probe, %", format_percent(), path="probe.accuracy"),
    Column("scatter_ratio", "between / within", format_decimals(2), path="geometry.scatter_ratio"),
    Column("fisher", "Fisher", format_decimals(1), path="geometry.fisher"),
    Column("silhouette", "silhouette", format_decimals(3), path="geometry.silhouette"),
    Column("compactness", "compactness", format_decimals(3), path="geometry.compactness"),
    Column("mean_separation", "mean separation", format_decimals(3), path="geometry.mean_separation"),
    Column("min_separation", "closest two", format_decimals(3), path="geometry.min_separation"),
    Column("effective_rank", "effective rank", format_decimals(1), path="geometry.effective_rank"),
    Column("collapsed_dimensions", "collapsed", format_whole, path="geometry.collapsed_dimensions"),
    Column("dimensions", "dimensions", format_whole, path="geometry.dimensions"),
)


def make_representation_table(section: Mapping[str, Representation] | None) -> Table:
    """Return the similarity of student and teacher features at both taps."""
    rows = [
        read_row([name, tap], getattr(row, tap), REPRESENTATION)
        for name, row in (section or {}).items()
        for tap in ("penultimate", "last")
    ]
    why = NO_TEACHER if section is None else "There is no student."
    caption = "Similarity to the teacher's features on all test images."
    return Table("representation", caption, REPRESENTATION, rows, why)


def make_information_table(section: Information) -> Table:
    """Return the mutual information of features with labels and with the teacher's features."""
    no_teacher = Cell(None, note="The label has one dimension.")
    rows = []
    for name, found in section.labels.items():
        cells = read_row([name, "the label"], found, INFORMATION)
        rows.append([*cells[:6], no_teacher, cells[7], no_teacher])
    for name, found in (section.teacher or {}).items():
        rows.append(read_row([name, "the teacher"], found, INFORMATION))
    for name, bound in (section.nce_bound or {}).items():
        negatives = Cell(bound.negatives, note="Negatives K of each positive, not images.")
        of = "the teacher: log K − L on test images"
        rows.append([Cell(name), Cell(of), Cell(bound.value), negatives, *[Cell(None, note=NO_NEIGHBOURS)] * 5])
    caption = (
        "Estimated mutual information, 95 % over test images: labels by Ross 2014, the teacher's features by KSG."
    )
    return Table("information", caption, INFORMATION, rows, NO_DETAILS)


def make_geometry_table(section: Mapping[str, FeatureShape]) -> Table:
    """Return the shape of the last tap's feature space."""
    rows = []
    for name, row in section.items():
        cells, probe = read_row([name], row, GEOMETRY), row.probe
        if probe.accuracy is not None and not probe.converged:
            cells[1] = Cell(probe.accuracy, note=f"The probe stopped at {probe.iterations} iterations.")
        rows.append(cells)
    return Table("geometry", "Features of the last tap.", GEOMETRY, rows, NO_DETAILS)
