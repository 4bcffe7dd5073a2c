"""Headings of a study's measures, and how tables show them."""

from __future__ import annotations

from diagnostics.tables.table import Show, format_decimals, format_points

MAIN = {
    "following": "cue following",
    "unbiased": "unbiased accuracy",
    "clean": "clean accuracy",
    "top1": "test top-1",
}
PLANTED = {
    "following": "cue following, %",
    "excess_following": "excess following, points",
    "unbiased": "unbiased, %",
    "clean": "clean, %",
    "worst_group": "worst group, %",
    "aligned": "aligned, %",
    "conflicting": "conflicting, %",
    "cue_bias": "cue bias, %",
    "flip_rate": "flip rate, %",
    "cue_decoding": "cue decodable, %",
    "label_decoding": "label decodable, %",
    "fidelity_aligned": "same answer as teacher, aligned, %",
    "fidelity_conflicting": "same answer as teacher, conflicting, %",
    "fidelity_followed": "same answer, teacher followed, %",
    "also_followed": "follows, teacher followed, %",
}
PLAIN = {
    "top1": "test top-1, %",
    "top1_many": "frequent third of the classes, %",
    "top1_medium": "middle third, %",
    "top1_few": "rare third, %",
}
HELD_OUT = {
    "held_out_kl": "held-out KL, nats",
    "held_out_top1": "held-out top-1, %",
    "held_out_unbiased": "held-out unbiased, %",
}
HEADINGS = {**PLANTED, **PLAIN, **HELD_OUT}
SHOWN: dict[str, Show] = {
    "excess_following": format_points(),
    "held_out_kl": format_decimals(3),
}  # all others in percent
