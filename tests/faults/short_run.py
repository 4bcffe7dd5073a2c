"""The run that faults are tried on: one epoch of each job."""

JOBS = ("teacher", "seed0/stage1", "seed0/stage2", "seed0/scratch")
SHORT = (*(f"{phase}.epochs=1" for phase in ("teacher", "crd", "kd")), "baselines.methods=[scratch]")


def short_but(*changes: str) -> list[str]:
    """SHORT with other values of some keys, as `key=value`."""
    keys = [change.partition("=")[0] for change in changes]
    return [*(word for word in SHORT if word.partition("=")[0] not in keys), *changes]
