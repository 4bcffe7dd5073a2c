"""Of diagnostics/evenness.py and diagnostics/tables/given.py."""

from __future__ import annotations

from dataclasses import replace

from diagnostics.budget import Training
from diagnostics.evenness import NO_PAIR, NOT_RECORDED, sentences
from diagnostics.results import Given
from diagnostics.tables.given import given
from diagnostics.tables.table import to_csv


def training(job: str, epochs: int, batch_size: int = 32, **changes: object) -> Training:
    """Of 1,000 images with batches that leave 8 of them over."""
    steps = epochs * (1000 // batch_size)
    seen = steps * batch_size
    plain = Training(
        job=job,
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
    )
    return replace(plain, **changes)


KL = {"alpha": 0.9, "temperature": 4.0}
ALIGNED = training("stage1", 14)
SECOND = training("stage2", 10, parameters=650, optimizer="adam 0.01 constant", **KL)
MODELS = {
    "teacher": [training("teacher", 30)],
    "scratch": [training("scratch", 24)],
    "kd": [training("kd", 24, **KL)],
    "stage1": [ALIGNED],
    "two_stage": [ALIGNED, SECOND],
}


def test_an_even_comparison_is_one_sentence_about_what_was_even() -> None:
    assert sentences(MODELS) == [
        "Even between two_stage and the baselines (scratch and kd): epochs (24), images seen (23,808), "
        "batch size (32), alpha and T of the KL term (0.9 and 4), the epoch reported (last)."
    ]


def test_a_stage_1_that_ended_early_left_the_baselines_more_epochs() -> None:
    ended = replace(training("stage1", 9), planned=14)
    lines = sentences({**MODELS, "two_stage": [ended, SECOND]})
    assert lines[0] == (
        "Stage 1 ended by plateau after 9 of 14 epochs, so the baselines had 5 more than two_stage."
    )
    assert lines[1:3] == [
        "Not even in epochs: scratch and kd 24, two_stage 19.",
        "Not even in images seen: scratch and kd 23,808, two_stage 18,848.",
    ]
    assert lines[3].startswith("Even between") and "epochs" not in lines[3] and "batch size (32)" in lines[3]


def test_every_training_that_ended_early_is_named() -> None:
    short = replace(training("kd", 20, **KL), planned=24)
    second = replace(SECOND, epochs=6, planned=10)
    other = [replace(training("stage1_v", 3), planned=14), replace(training("stage2_v", 9, **KL), planned=10)]
    twin = replace(training("baseline_twin", 23), planned=24)
    lines = sentences({**MODELS, "kd": [short], "two_stage": [ALIGNED, second], "v": other, "twin": [twin]})
    assert lines[:5] == [
        "kd ended by plateau after 20 of 24 epochs.",
        "Stage 2 ended by plateau after 6 of 10 epochs.",
        "Stage 1 of v ended by plateau after 3 of 14 epochs.",
        "Stage 2 of v ended by plateau after 9 of 10 epochs.",
        "twin ended by plateau after 23 of 24 epochs.",
    ]
    assert lines[5] == "Not even in epochs: scratch 24, kd and two_stage 20, twin 23."


def test_steps_of_several_batches_are_told() -> None:
    several = replace(ALIGNED, accumulate=4)
    assert several.updates == 14 * 8 and several.seen == ALIGNED.seen  # 31 batches an epoch
    lines = sentences({**MODELS, "two_stage": [several, SECOND]})
    assert "Not even in batch size: scratch and kd 32, two_stage 4 x 32 + 32." in lines
    ended = replace(SECOND, epochs=8, planned=10)
    table = given(Given({**MODELS, "two_stage": [several, ended]}, []))
    row = next(row for row in table.rows if row[0].value == "two_stage")
    cells = dict(zip([column.key for column in table.columns], row, strict=True))
    assert (cells["batch_size"].value, cells["steps"].value) == ("4 x 32 + 32", 14 * 8 + 8 * 38)
    assert cells["epochs"].note == "Ended by plateau: 8 of 10 epochs."


def test_other_batches_and_another_kl_term() -> None:
    other = training("kd", 24, batch_size=64, alpha=0.5, temperature=4.0)
    lines = sentences({**MODELS, "kd": [other]})
    assert "Not even in batch size: scratch and two_stage 32, kd 64." in lines
    assert "Not even in alpha and T of the KL term: kd 0.5 and 4, two_stage 0.9 and 4." in lines
    without = sentences({**MODELS, "two_stage": [ALIGNED, replace(SECOND, alpha=None, temperature=None)]})
    assert "Not even in alpha and T of the KL term: kd 0.9 and 4, two_stage none." in without


def test_variants_on_other_images_and_epochs() -> None:
    balanced = training("stage2_ce", 30, images=300, balanced=True)
    assert sentences({**MODELS, "ce": [ALIGNED, balanced]})[1:] == [
        "Trained on 300 balanced, held-out images: the classifier of ce; "
        "that of two_stage on 1,000 training images.",
        "Variants that differ from two_stage (24) in epochs: ce 44.",
    ]


def test_without_a_pair_or_a_record_it_says_so() -> None:
    assert sentences({"teacher": MODELS["teacher"], "kd": MODELS["kd"]}) == [NO_PAIR]
    assert sentences({"kd": None, "two_stage": None}) == [NOT_RECORDED]


def test_a_two_stage_row_adds_up_its_stages() -> None:
    frozen = replace(SECOND, frozen=True, passes=0, forward_only=3000, cached=True, teacher_passes=3000)
    cached = replace(ALIGNED, cached=True, teacher_passes=3000)
    table = given(Given({**MODELS, "head": [cached, frozen], "old": None}, []))
    rows = {row[0][0]: [text for text, _ in row[1:]] for row in table.shown()}
    assert rows["two_stage"] == [
        "14 + 10",
        "744",
        "23,808",
        "23,808",
        "23,808",
        "77,000 + 650",
        "32",
        "sgd 0.05 cosine; adam 0.01 constant",
        "last",
    ]
    assert rows["scratch"][:5] == ["24", "744", "23,808", "23,808", "0"]
    assert rows["head"][2:5] == ["23,808", "13,888", "3,000"]  # the cache counts once for both stages
    assert set(rows["old"]) == {"n/a"}
    assert any("3,000 passes forwards alone" in note for note in table.notes)
    assert "two_stage,14 + 10,744,23808,23808,23808,77000 + 650,32," in to_csv(table)
