"""What is told of an exported model: in the metadata of its files and in its card."""

from __future__ import annotations

from typing import Any

from diagnostics.evaluation.evaluated_models import list_taps
from diagnostics.evaluation.recording import Subject
from diagnostics.export.folder import MADE_BY
from models.checkpoint import weights_hash
from models.export import INPUT, OUTPUT, FromPixels, Preprocessing
from models.zoo import count_parameters
from settings.networks import Network
from training.experiment import Experiment
from training.run.environment import environment

RESIZED = {
    "squash": "bilinear with antialiasing to a square, the aspect ratio is not kept",
    "crop": "bilinear with antialiasing, short side to image_size, then the centre",
}
FORMAT = 1  # raise it when a key changes its meaning


def facts_of(
    experiment: Experiment,
    subject: Subject,
    network: Network,
    teacher: Subject | None,
    model: FromPixels,
    top1: float,
) -> dict[str, Any]:
    """Metadata as JSON holds it; `top1` in 0..1 is of all test images in float32."""
    here = environment()
    return {
        "made_by": MADE_BY,
        "format": FORMAT,
        "run": experiment.folder.path.name,
        "model": subject.method,
        "seed": subject.seed,
        "arch": network.arch,
        "parameters": count_parameters(model.network),
        "classes": experiment.data.classes,
        "taps": list_taps(experiment, network),
        "accuracy": {"top1": top1, "images": len(experiment.data.test), "of": "test images, float32"},
        "teacher": None if teacher is None else {"arch": teacher.arch, "weights": teacher.weights_hash},
        "weights": subject.weights_hash,
        "state_dict": weights_hash(model.network),
        "images": experiment.data.fingerprint,
        "preprocessing": preprocessing_facts(model.preprocessing),
        "config": experiment.config.model_dump(mode="json"),
        "versions": {"python": here["python"], **here["packages"], "commit": here["git"]["commit"]},
    }


def preprocessing_facts(preprocessing: Preprocessing) -> dict[str, Any]:
    """What a graph takes and what it does to it."""
    return {
        "input": INPUT,
        "output": OUTPUT,
        "shape": ["batch", 3, "height", "width"],
        "dtype": "uint8",
        "channels": "red, green, blue",
        "image_size": preprocessing.image_size,
        "resize": RESIZED[preprocessing.resize],
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "in_graph": ["resize", "divide by 255", "subtract mean", "divide by std"],
    }
