"""The run that faults are tried on: one epoch of each job."""

JOBS = ("teacher", "seed0/stage1", "seed0/stage2", "seed0/scratch")
SHORT = (*(f"{phase}.epochs=1" for phase in ("teacher", "crd", "kd")), "baselines.methods=[scratch]")
