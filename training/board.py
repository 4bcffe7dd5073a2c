"""What TensorBoard shows of a finished training beside its curves: settings with results, images, confusions.

Nothing that is trained, reported or used again reads it. Letters: N test images, C classes, B images, S side.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.merge import flatten
from configs.reading import to_yaml
from configs.schema import Config
from dataset.loader import training_batches
from training import distributed
from training.evaluation import predict
from training.events import events_in
from training.experiment import Experiment
from training.job_folder import JobFolder
from training.job_name import JobName, stage_of
from training.prepared import select_images

IMAGES = 16  # augmented training images
MOST_NAMED = 30  # classes, beyond which the confusion matrix has no names on its axes
SIDE, DPI = 600, 100  # of its picture, pixels
LONGEST = 20  # characters of a class's name there
Value = bool | str | int | float


def write_board(experiment: Experiment, name: JobName, folder: JobFolder) -> None:
    """Add to a finished training's events; all processes call it, since they share the pass over the test images.

    Raises:
        UserError, MachineError: the events cannot be written; the training is finished all the same.
    """
    config, stage = experiment.config, stage_of(experiment.config, name)
    confusions = None if stage.train == "features" else confusion(experiment, name, folder)
    if distributed.rank() != 0:
        return
    results = {key: float(value) for key, value in folder.result().items() if _is_number(value)}
    epochs = int(results.get("epochs", 0))
    with events_in(folder.path, epochs + 1) as events:
        events.text("config", f"```yaml\n{to_yaml(config)}\n```")
        events.settings(hyperparameters(config, name), {f"result/{key}": one for key, one in results.items()})
        events.images("augmented training images", shown_images(experiment, name))
        if confusions is not None:
            picture = drawn(confusions, experiment.data.classes)
            events.images("confusion on test images (row: class, column: answer)", picture[None], epochs)


def hyperparameters(config: Config, name: JobName) -> dict[str, Value]:
    """Return the settings that a training depends on as dotted keys; what TensorBoard has no kind for is text."""
    plain = config.model_dump(mode="json")
    sections = ["data", "teacher", "student"] + (["shortcut"] if config.shortcut.cue != "none" else [])
    found: dict[str, Value] = {"job": name.label, "seed": -1 if name.seed is None else name.seed}
    settings = {section: plain[section] for section in sections}
    settings["stage"] = stage_of(config, name).model_dump(mode="json")
    for key, value in flatten(settings).items():
        found[key] = value if isinstance(value, Value) else str(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown_images(experiment: Experiment, name: JobName) -> Tensor:
    """Return the first images of the first epoch as they are trained on, (B, 3, S, S) in 0..1."""
    data = select_images(experiment, name)
    batch = next(training_batches(data, IMAGES, name.seed or 0, 0, 0))
    mean, std = (values.view(1, 3, 1, 1).to(batch.images) for values in (data.mean, data.std))
    return (batch.images * std + mean).clamp(0, 1).float().cpu()


@torch.no_grad()
def confusion(experiment: Experiment, name: JobName, folder: JobFolder) -> NDArray[np.int64]:
    """Return test images by class (rows) and answer (columns), (C, C), of one pass over them."""
    model = experiment.trained(experiment.network_of(name), folder)
    answers = predict(model, experiment.data.test, experiment.machine).argmax(dim=1).cpu()  # (N,)
    classes, labels = experiment.data.num_classes, experiment.data.test.labels.cpu()
    counts = torch.bincount(labels * classes + answers, minlength=classes**2)
    return np.asarray(counts.view(classes, classes).numpy())


def drawn(confusions: NDArray[np.int64], classes: Sequence[str]) -> Tensor:
    """Classes (rows) by answers (columns) as a picture (3, height, width) in 0..1, darker for more of a class."""
    from matplotlib.figure import Figure  # half a second to import, so only where one trains

    figure = Figure(figsize=(SIDE / DPI, SIDE / DPI), dpi=DPI)
    axes = figure.add_axes((0.24, 0.24, 0.74, 0.74))  # room for names; a layout engine draws all of it twice
    shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.tick_params(labelsize=8)
    if len(classes) <= MOST_NAMED:
        names = [name[:LONGEST].replace("$", r"\$") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(confusions):
            if count:
                shade = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=shade)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a class named in another script
        figure.savefig(buffer, format="rgba")
    pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(SIDE, SIDE, 4)[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
