"""Losses: pure tensors in, scalar out."""
