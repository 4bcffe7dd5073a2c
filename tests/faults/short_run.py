"""The run that faults are tried on: one epoch of each job."""

JOBS = ("teacher", "seed0/two_stage/stage1", "seed0/two_stage/stage2", "seed0/scratch")
SHORT = ("teacher.epochs=1", "training.epochs=2", "methods.scratch.epochs=1", "methods=[two_stage, scratch]")
