"""What TensorBoard shows of a finished training beside its curves: its settings with what it reached (HPARAMS)."""

from __future__ import annotations

from typing import Any

from settings.merge import flatten
from settings.schema import Config
from training import distributed
from training.experiment import Experiment
from training.job_name import JobName, stage_of
from training.run.events import events_in
from training.run.job_folder import JobFolder

Value = bool | str | int | float


def write_board(experiment: Experiment, name: JobName, folder: JobFolder) -> None:
    """Add the settings and results of a finished training to its events, in the first process.

    Raises:
        UserError, MachineError: the events cannot be written; the training is finished all the same.
    """
    if distributed.rank() != 0:
        return
    results = {key: float(value) for key, value in folder.result().items() if _is_number(value)}
    with events_in(folder.path, int(results.get("epochs", 0)) + 1) as events:
        settings = list_settings(experiment.config, name)
        events.settings(settings, {f"result/{key}": one for key, one in results.items()})


def list_settings(config: Config, name: JobName) -> dict[str, Value]:
    """Return the settings that a training depends on as dotted keys; what TensorBoard has no kind for is text."""
    plain = config.model_dump(mode="json")
    sections = ["data", "teacher", "student"] + (["shortcut"] if config.shortcut.cue != "none" else [])
    settings = {section: plain[section] for section in sections}
    settings["stage"] = stage_of(config, name).model_dump(mode="json")
    found: dict[str, Value] = {"job": name.label, "seed": -1 if name.seed is None else name.seed}
    for key, value in flatten(settings).items():
        found[key] = value if isinstance(value, Value) else str(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
