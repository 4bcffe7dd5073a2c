"""Planted and given cues."""
