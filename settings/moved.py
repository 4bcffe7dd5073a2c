"""Keys of earlier versions, each with its place now."""

from __future__ import annotations

STOPPING = ("watch", "patience", "min_delta")
MOVED = {
    "capture": "cuda_graphs",
    "teacher.views": "teacher.cached_views",
    "teacher.label_smoothing": "teacher.losses.ce.label_smoothing",
    "crd.ridge": "losses.regression.ridge",
    "crd.whitening": "losses.regression.whitening",
    "crd.lambda_penultimate": "losses.crd.taps.penultimate (or losses.regression.taps.penultimate)",
    "crd.lambda_last": "losses.crd.taps.last (or losses.regression.taps.last)",
    "crd.objective": "losses.crd.objective; regression is a loss of its own",
    "crd.errors_of": "methods.two_stage.stage1.upweight_errors_of",
    "crd.error_weight": "methods.two_stage.stage1.error_weight",
    "crd.epochs": "methods.two_stage.stage1.epochs",
    "crd.batch_size": "training.batch_size, or methods.two_stage.stage1.batch_size",
    "crd.optimizer": "training.optimizer, or methods.two_stage.stage1.optimizer",
    "crd": "losses.crd",
    "kd.temperature": "losses.kl.temperature",
    "kd.label_smoothing": "losses.ce.label_smoothing",
    "kd.alpha": "the weights in methods.two_stage.stage2.losses, such as {kl: 0.9, ce: 0.1}",
    "kd.features": "starts_from in a method of its own, such as {starts_from: kd, reset_head: true, train: head}",
    "kd.head": "the loss reuse: methods.NAME.stage2.losses: {reuse: 1}",
    "kd.teacher_head": "methods.NAME.stage2.teacher",
    "kd.errors_of": "methods.two_stage.stage2.upweight_errors_of",
    "kd": "methods.two_stage.stage2",
    "baselines.methods": "methods",
    "baselines.variants": "methods: NAME: {base: kd, ...}",
    "baselines.alpha": "the weights in methods.kd.losses, such as {kl: 0.9, ce: 0.1}",
    "baselines.temperature": "losses.kl.temperature",
    "baselines.label_smoothing": "losses.ce.label_smoothing",
    "baselines.crd_weight": "methods.crd_kd.losses.crd",
    "baselines.errors_of": "methods.NAME.upweight_errors_of",
    "baselines.error_weight": "methods.NAME.error_weight",
    "baselines": "training",
    "variants": "methods: NAME: {base: two_stage, stage1: {...}, stage2: {...}}",
}
for old, new in {
    "teacher": "teacher",
    "crd": "methods.two_stage.stage1",
    "kd": "methods.two_stage.stage2",
    "baselines": "training",
}.items():
    MOVED[f"{old}.until"] = f"{new}.early_stopping: {{watch, patience, min_delta}}"
    MOVED |= {f"{old}.{key}": f"{new}.early_stopping.{key}" for key in STOPPING}


def find_moved(key: str) -> str | None:
    """Return where an option of earlier versions is now, None for any other key."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        place = MOVED.get(".".join(parts[:count]))
        if place is not None:
            rest = parts[count:]
            return ".".join([place, *rest]) if rest and " " not in place and ":" not in place else place
    return None
