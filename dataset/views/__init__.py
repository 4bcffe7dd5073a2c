"""Augmented versions of training images."""
