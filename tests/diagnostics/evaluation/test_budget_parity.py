"""Of diagnostics/evaluation/budget_parity.py and diagnostics/tables/models.py."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from diagnostics.budget import TrainingBudget
from diagnostics.evaluation.budget_parity import NO_PAIR, NOT_RECORDED, describe_parity
from diagnostics.evaluation.results import BudgetParity
from diagnostics.tables.models import CACHED, FROZEN, make_trainings_table
from diagnostics.tables.table import to_csv


def make_training(job: str, epochs: int, batch_size: int = 32, **changes: object) -> TrainingBudget:
    """Of 1,000 images with batches that leave 8 of them over."""
    steps = epochs * (1000 // batch_size)
    seen = steps * batch_size
    plain = TrainingBudget(
        job=job,
        train="all",
        epochs=epochs,
        planned=epochs,
        images=1000,
        balanced=False,
        batch_size=batch_size,
        steps=steps,
        passes=seen,
        forward_only=0,
        frozen=False,
        teacher_passes=0 if job == "scratch" else seen,
        cached=False,
        parameters=77000,
        optimizer="sgd 0.05 cosine",
        reported="last",
        losses={"ce": "1"},
    )
    return replace(plain, **changes)


KL = {"losses": {"ce": "0.1", "kl": "0.9"}, "temperature": 4.0}
ALIGNED = make_training("two_stage/stage1", 14, train="features", losses={"crd": "1"})
SECOND = make_training("two_stage/stage2", 10, parameters=650, optimizer="adam 0.01 constant", **KL)
MODELS = {
    "teacher": [make_training("teacher", 30)],
    "scratch": [make_training("scratch", 24)],
    "kd": [make_training("kd", 24, **KL)],
    "stage1": [ALIGNED],
    "two_stage": [ALIGNED, SECOND],
}


def describe(models: dict[str, list[TrainingBudget] | None]) -> list[str]:
    return describe_parity(models, "two_stage")


def test_equal_budgets_give_one_sentence() -> None:
    assert describe(MODELS) == [
        "Even between two_stage and the single-stage methods (scratch and kd): epochs (24), images seen (23,808), "
        "batch size (32), weights of losses (ce 0.1 + kl 0.9 at T 4), the epoch reported (last)."
    ]


def test_early_stage1_leaves_others_more_epochs() -> None:
    ended = replace(ALIGNED, epochs=9, steps=9 * 31)
    lines = describe({**MODELS, "two_stage": [ended, SECOND]})
    assert lines[0] == (
        "two_stage stage 1 stopped early after 9 of 14 epochs, so the single-stage methods had 5 more than "
        "two_stage."
    )
    assert lines[1:3] == [
        "Not even in epochs: scratch and kd 24, two_stage 19.",
        "Not even in images seen: scratch and kd 23,808, two_stage 18,848.",
    ]
    assert lines[3].startswith("Even between") and "epochs" not in lines[3] and "batch size (32)" in lines[3]


def test_every_training_that_ended_early_is_named() -> None:
    short = replace(make_training("kd", 20, **KL), planned=24)
    second = replace(SECOND, epochs=6, planned=10)
    other = [
        replace(make_training("v/stage1", 3), planned=14),
        replace(make_training("v/stage2", 9, **KL), planned=10),
    ]
    twin = replace(make_training("twin", 23), planned=24)
    lines = describe({**MODELS, "kd": [short], "two_stage": [ALIGNED, second], "v": other, "twin": [twin]})
    assert lines[:5] == [
        "kd stopped early after 20 of 24 epochs.",
        "v stage 1 stopped early after 3 of 14 epochs.",
        "v stage 2 stopped early after 9 of 10 epochs.",
        "twin stopped early after 23 of 24 epochs.",
        "two_stage stage 2 stopped early after 6 of 10 epochs.",
    ]
    assert lines[5] == "Not even in epochs: scratch 24, kd and two_stage 20, twin 23."


def test_steps_of_several_batches_are_told() -> None:
    several = replace(ALIGNED, accumulate=4)
    assert several.updates == 14 * 8 and several.seen == ALIGNED.seen  # 31 batches an epoch
    lines = describe({**MODELS, "two_stage": [several, SECOND]})
    assert "Not even in batch size: scratch and kd 32, two_stage 4 x 32 + 32." in lines
    ended = replace(SECOND, epochs=8, planned=10)
    first, second = read_rows(BudgetParity({"two_stage": [several, ended]}, []))
    assert (first["batch_size"], first["accumulate"], first["updates"]) == ("32", "4", str(14 * 8))
    assert (second["epochs"], second["planned"], second["updates"]) == ("8", "10", str(8 * 38))


def read_rows(given: BudgetParity) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(make_trainings_table(given)))))


def test_other_batches_and_other_weights() -> None:
    other = make_training("kd", 24, batch_size=64, losses={"ce": "0.5", "kl": "0.5", "mine": "1"}, temperature=4.0)
    lines = describe({**MODELS, "kd": [other]})
    assert "Not even in batch size: scratch and two_stage 32, kd 64." in lines
    assert "Not even in weights of losses: kd ce 0.5 + kl 0.5 at T 4, two_stage ce 0.1 + kl 0.9 at T 4." in lines
    hotter = describe({**MODELS, "kd": [replace(MODELS["kd"][0], temperature=2.0)]})
    assert any("kd ce 0.1 + kl 0.9 at T 2, two_stage ce 0.1 + kl 0.9 at T 4." in line for line in hotter)
    without = describe({**MODELS, "two_stage": [ALIGNED, replace(SECOND, losses={"ce": "1"}, temperature=None)]})
    assert "Not even in weights of losses: scratch and two_stage ce 1, kd ce 0.1." in without
    alone = describe({**MODELS, "two_stage": [ALIGNED, replace(SECOND, losses={"mine": "1"}, temperature=None)]})
    assert not any("weights of losses" in line for line in alone)  # nobody else has that loss


def test_single_stage_methods_are_compared_without_staged_ones() -> None:
    lines = describe_parity({"scratch": MODELS["scratch"], "kd": MODELS["kd"]}, "kd")
    assert lines[0].startswith("Even between kd and the single-stage methods (scratch): epochs (24)")


def test_other_methods_on_other_images_and_epochs() -> None:
    balanced = make_training("ce/stage2", 30, images=300, balanced=True)
    llr = make_training("llr", 24, images=300, balanced=True, starts_from="teacher")
    assert describe({**MODELS, "ce": [ALIGNED, balanced], "llr": [llr]})[1:] == [
        "Trained on 300 balanced, held-out images: the classifier of ce and llr; "
        "that of two_stage on 1,000 training images.",
        "Other methods that differ from two_stage (24) in epochs: ce 44.",
    ]


def test_missing_pair_or_record_is_stated() -> None:
    assert describe_parity({"teacher": MODELS["teacher"], "kd": MODELS["kd"]}, "kd") == [NO_PAIR]
    assert describe_parity({"teacher": MODELS["teacher"]}, None) == [NO_PAIR]
    assert describe({"kd": None, "two_stage": None}) == [NOT_RECORDED]


def test_each_training_is_a_row_of_numbers() -> None:
    frozen = replace(SECOND, frozen=True, passes=0, forward_only=3000, cached=True, teacher_passes=3000)
    given = BudgetParity(
        {**MODELS, "head": [replace(ALIGNED, cached=True, teacher_passes=3000), frozen], "old": None}, []
    )
    rows = {(row["model"], row["training"]): row for row in read_rows(given)}
    stage1, stage2 = (rows["two_stage", f"two_stage stage {number}"] for number in (1, 2))
    keys = ("epochs", "seen", "passes", "teacher_passes", "parameters", "losses", "temperature", "optimizer")
    assert [stage1[key] for key in keys] == [
        "14",
        "13888",
        "13888",
        "13888",
        "77000",
        "crd 1",
        "",
        "sgd 0.05 cosine",
    ]
    losses, optimizer = "ce 0.1, kl 0.9", "adam 0.01 constant"
    assert [stage2[key] for key in keys] == ["10", "9920", "9920", "9920", "650", losses, "4.0", optimizer]
    assert set(rows["old", ""].values()) == {"old", ""}
    assert {FROZEN, CACHED} <= set(make_trainings_table(given).notes)
