"""Results of an evaluation, section by section: made by `compute_report`, read by tables, figures and the page.

The order of the fields is that of report.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from CKA.cka import Similarity
from CKA.minibatch import SimilarityMatrix
from diagnostics.best_epoch import BestEpochs
from diagnostics.budget import TrainingBudget
from diagnostics.calibration import Calibration
from diagnostics.comparison import DetectableDifference, DifferenceInterval
from diagnostics.confusion import ClassAccuracy, Confusion
from diagnostics.cost import Cost, CostRatio
from diagnostics.differing import Differing
from diagnostics.evaluation.recording import Context, History
from diagnostics.fidelity import Fidelity
from diagnostics.generalisation import Gap
from diagnostics.geometry import Geometry, LinearProbe
from diagnostics.plain import FLAT, WHERE_GIVEN
from diagnostics.robustness import CorruptionError
from diagnostics.seeds import SeedComparison, SeedSummary
from diagnostics.stability import Stability
from diagnostics.statistics import PairedStatistics
from diagnostics.variance import VarianceTest
from estimator import MutualInformation

SCHEMA_VERSION = 3  # of report.json: raise it where a field goes, is renamed or changes its meaning
ErrorRates = dict[str, list[float]]  # by corruption, one a severity


@dataclass(frozen=True)
class ModelAccuracy:
    """Top-1 of a model in 0..1 with its Wilson interval."""

    name: str
    method: str
    seed: int | None  # None for the teacher
    arch: str
    weights_hash: str
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class BudgetParity:
    """Training budgets of the models of the first seed, and sentences on their parity.

    `models` holds the trainings that a model went through, in order, or None where they are not on record.
    """

    models: dict[str, list[TrainingBudget] | None]
    sentences: list[str]


@dataclass(frozen=True)
class Pair:
    """Two models on the same images."""

    a: str
    b: str
    statistics: PairedStatistics = field(metadata=FLAT)
    quoted_p: float | None
    quoted_log10_p: float | None
    interval: DifferenceInterval
    detectable: DetectableDifference
    sentence: str = ""  # decided by Holm's p, set when all pairs are known, as that
    holm_log10_p: float | None = None

    @property
    def holm_p(self) -> float | None:
        return None if self.holm_log10_p is None else 10**self.holm_log10_p


@dataclass(frozen=True)
class MethodOverSeeds:
    """Top-1 of a method over its seeds."""

    seeds: list[int]
    summary: SeedSummary = field(metadata=FLAT)


@dataclass(frozen=True)
class MethodsCompared:
    """Two methods, paired by seed.

    result is over student seeds, `images` over the test images of these trainings, and `crossed` over both.
    """

    a: str
    b: str
    seeds: list[int]
    result: SeedComparison = field(metadata=FLAT)
    sentence: str = ""  # decided by Holm's p, set when all comparisons are known, as that
    holm_p: float | None = None
    images: DifferenceInterval | None = field(default=None, metadata=WHERE_GIVEN)
    crossed: DifferenceInterval | None = field(default=None, metadata=WHERE_GIVEN)


@dataclass(frozen=True)
class OverSeeds:
    """Each student method, and the one in question against each other one."""

    methods: dict[str, MethodOverSeeds]
    comparisons: list[MethodsCompared]


@dataclass(frozen=True)
class LostClass:
    """A class and the change of its accuracy against the teacher's, in -1..1."""

    name: str = field(metadata={"key": "class"})
    change: float


@dataclass(frozen=True)
class Faithfulness:
    """Fidelity of a student to its teacher, and the classes that lost most."""

    result: Fidelity = field(metadata=FLAT)
    lost_most: list[LostClass]


@dataclass(frozen=True)
class TapSimilarity:
    """CKA of a tap with the teacher's, exact and by minibatches, and the cosine behind stage 1's projections."""

    linear: Similarity
    rbf: Similarity
    linear_minibatch: float | None
    cosine: float | None
    linear_biased: float | None


@dataclass(frozen=True)
class LayerMatrix:
    """CKA of every teacher layer (rows) with every student layer (columns)."""

    teacher: list[str]
    student: list[str]
    matrix: SimilarityMatrix = field(metadata=FLAT)


@dataclass(frozen=True)
class Representation:
    """A student's features beside its teacher's."""

    penultimate: TapSimilarity
    last: TapSimilarity
    layers: LayerMatrix


@dataclass(frozen=True)
class ContrastiveBound:
    """log K - L of a contrastive loss."""

    value: float  # nats
    loss: float
    negatives: int  # K


@dataclass(frozen=True)
class Information:
    """Mutual information of last taps, by model."""

    labels: dict[str, MutualInformation]
    teacher: dict[str, MutualInformation] | None = field(metadata=WHERE_GIVEN)
    nce_bound: dict[str, ContrastiveBound] | None = field(metadata=WHERE_GIVEN)


@dataclass(frozen=True)
class FeatureShape:
    """Geometry of a model's last tap, and a linear probe on it."""

    geometry: Geometry = field(metadata=FLAT)
    probe: LinearProbe


@dataclass(frozen=True)
class RelativeCost:
    """Cost of a model, and its ratio to the teacher's, None without a teacher."""

    cost: Cost = field(metadata=FLAT)
    ratio: CostRatio | None


@dataclass(frozen=True)
class Robustness:
    """Error rates under corruption by model, and relative to the teacher's."""

    errors: dict[str, ErrorRates]
    relative: dict[str, CorruptionError]
    images: int


@dataclass(frozen=True)
class Ensemble:
    """Models that answer together, and the best of them (A) against their answer (B) on the same images.

    The best is chosen on these images, which flatters it: the gain is rather too small than too large.
    """

    members: list[str]
    rule: Literal["mean of probabilities", "majority vote"]
    top1: float
    low: float
    high: float
    gain: Pair


@dataclass(frozen=True)
class VariancesCompared:
    """The spread over seeds of two methods, and Holm's p over all such pairs; None where there is no test."""

    a: str
    b: str
    result: VarianceTest = field(metadata=FLAT)
    sentence: str
    holm_p: float | None = None  # set when all pairs are known


@dataclass(frozen=True)
class Claims:
    """The paper's claims of its students, measured."""

    ensembles: list[Ensemble]
    generalisation: dict[str, Gap]
    variances: list[VariancesCompared]
    stability: dict[str, Stability]
    sentences: list[str]  # frozen against fine-tuned features first


@dataclass(frozen=True)
class ProbedModel:
    """A linear classifier on a model's frozen features: its top-1 on test images, and how it was fitted."""

    accuracy: ModelAccuracy = field(metadata=FLAT)
    features: int
    strength: float  # of L2, chosen on held-out training images
    held_out: list[float]  # top-1 on these by strength, in 0..1
    converged: bool


@dataclass(frozen=True)
class Probe:
    """Linear classifiers on another data set, one a model, and their pairs."""

    data: str
    digest: str  # of its images and labels
    image_size: int
    classes: int
    train_images: int
    held_out_images: int  # of these, to choose the strength
    test_images: int
    strengths: list[float]
    models: list[ProbedModel]
    pairs: list[Pair]


@dataclass(frozen=True)
class Report:
    """Every number of an evaluation; a section that needs a teacher is None where there is none."""

    schema_version: int  # of report.json, `SCHEMA_VERSION`
    context: Context
    images: int
    main: str | None  # the student that sentences, figures and pairs are about; None without a student
    models: list[ModelAccuracy]
    given: BudgetParity | None = field(metadata=WHERE_GIVEN)
    pairs: list[Pair]
    seeds: OverSeeds
    calibration: dict[str, Calibration]
    geometry: dict[str, FeatureShape]
    information: Information
    cost: dict[str, RelativeCost]
    curves: dict[str, History]  # by model, and by stage where a model went through more than one
    best_epochs: BestEpochs | None = field(metadata=WHERE_GIVEN)
    fidelity: dict[str, Faithfulness] | None = field(metadata=WHERE_GIVEN)
    representation: dict[str, Representation] | None = field(metadata=WHERE_GIVEN)
    robustness: Robustness
    claims: Claims
    sentences: list[str]
    classes: list[ClassAccuracy]  # models of the first seed, here and in the next two
    confusions: list[Confusion]
    differing: list[Differing]
    probes: list[Probe] | None = field(default=None, metadata=WHERE_GIVEN)  # of other data sets, by --probe
