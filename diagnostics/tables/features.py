"""Tables of features: alike, informative, well separated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    Cell,
    Column,
    Table,
    decimals,
    grouped,
    interval_cell,
    percent,
)

Section = Mapping[str, Any]
TOO_FEW = "Too few images, or features that do not vary."
NO_PROJECTION = "Only a model that went through stage 1 has its projections."


def representation(section: Section | None) -> Table:
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
        for tap in ("penultimate", "last"):
            part = row[tap]
            linear, rbf = part["linear"], part["rbf"]
            batches = "" if part["linear_minibatch"] is not None else linear["notes"].get("value", TOO_FEW)
            cells.append(
                [
                    Cell(name),
                    Cell(tap),
                    Cell(linear["value"], note=linear["notes"].get("value", "")),
                    Cell(rbf["value"], note=rbf["notes"].get("value", "")),
                    Cell(part["linear_minibatch"], note=batches),
                    Cell(part["cosine"], note="" if part["cosine"] is not None else NO_PROJECTION),
                ]
            )
    why = NO_TEACHER if section is None else "There is no student."
    return Table("representation", "Similarity to the teacher's features on all test images.", columns, cells, why)


def information(section: Section) -> Table:
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
    cells = []
    for of, part in (("the label", "labels"), ("the teacher", "teacher")):
        for name, row in section.get(part, {}).items():
            both = part == "teacher"
            dims = f"{row['dims_x']} and {row['dims_y']}" if both else str(row["dims_x"])
            kept = [row["variance_kept_x"], *([row["variance_kept_y"]] if both else [])]
            remark = row["notes"].get("variance_kept_x") or row["notes"].get("variance_kept_y", "")
            cells.append(
                [
                    Cell(name),
                    Cell(of),
                    interval_cell(row),
                    Cell(row["n"], note=row["notes"].get("n", "")),
                    Cell(row["k"], note=row["notes"].get("k", "")),
                    Cell(dims),
                    Cell(
                        None if None in kept else " and ".join(f"{100 * share:.0f}" for share in kept), note=remark
                    ),
                ]
            )
    for name, row in section.get("nce_bound", {}).items():
        fixed = [Cell(row["value"]), Cell(row["negatives"], note="Negatives K of each positive, not images.")]
        none = [Cell(None, note="The critic reads the projections; no neighbours and no PCA.") for _ in range(3)]
        cells.append([Cell(name), Cell("the teacher: log K − L of stage 1"), *fixed, *none])
    caption = "Estimated mutual information: labels by Ross 2014, the teacher's features by KSG."
    return Table("information", caption, columns, cells, "No model was looked at in detail.")


def geometry(section: Section) -> Table:
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
        probe = row["probe"]
        stopped = "" if probe["converged"] else f"The probe stopped at {probe['iterations']} iterations."
        cells.append(
            [
                Cell(name),
                Cell(probe["accuracy"], note=probe["notes"].get("accuracy", stopped)),
                *(Cell(row[kind], note=row["notes"].get(kind, "")) for kind in kinds),
            ]
        )
    return Table("geometry", "Features of the last tap.", columns, cells, "No model was looked at in detail.")
