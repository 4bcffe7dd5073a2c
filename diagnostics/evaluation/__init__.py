"""Evaluation: record a run's models, analyse the recording, compare runs."""
