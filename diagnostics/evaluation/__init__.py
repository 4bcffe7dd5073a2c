"""The process of an evaluation: record the models of a run, analyse the recording, compare runs."""
