"""Of diagnostics/confusion.py, and diagnostics/tables/predictions.py."""

from __future__ import annotations

import numpy as np

from diagnostics.confusion import Confusion, find_confusions, measure_classes
from diagnostics.differing import Classifier
from diagnostics.tables.predictions import make_classes_table, make_confusions_table, make_predictions_table
from diagnostics.tables.table import to_csv
from tests.diagnostics.report.test_folder import CLASSES, LABELS, network, recordings

LABELS_3 = np.array([0, 0, 0, 1, 1, 1])
NAMES = ["猫", "dog", "bird"]


def make_model(name: str, answers: list[int]) -> Classifier:
    return Classifier(name, name, 5 * np.eye(3, dtype=np.float32)[answers])


MODELS = [make_model("teacher", [0, 0, 1, 1, 1, 2]), make_model("two_stage", [1, 1, 2, 1, 1, 1])]


def test_class_without_images_has_no_accuracy() -> None:
    rows = measure_classes(MODELS, LABELS_3, NAMES)
    assert [(row.name, row.images) for row in rows] == [("猫", 3), ("dog", 3), ("bird", 0)]
    assert rows[0].accuracy == {"teacher": 2 / 3, "two_stage": 0.0} and rows[2].accuracy["teacher"] is None
    table = make_classes_table(rows)
    assert to_csv(table).splitlines()[0] == "class,number,images,teacher,two_stage"
    assert "No test image of this class." in table.notes


def test_main_student_orders_the_confusions() -> None:
    rows = find_confusions(MODELS, LABELS_3, NAMES)
    assert rows == [
        Confusion("猫", "dog", 3, {"teacher": 1, "two_stage": 2}),
        Confusion("猫", "bird", 3, {"teacher": 0, "two_stage": 1}),
        Confusion("dog", "bird", 3, {"teacher": 1, "two_stage": 0}),
    ]
    assert find_confusions(MODELS, LABELS_3, NAMES, most=1) == rows[:1]
    assert make_confusions_table(rows).row_headers == 2
    assert find_confusions([], LABELS_3, NAMES) == [] and make_confusions_table([]).rows == []


def test_every_answer_to_every_image_with_its_probability() -> None:
    found = recordings([network("teacher", right=1.0), network("stage1"), network("kd/1", right=0.5)])
    lines = to_csv(make_predictions_table(found)).splitlines()
    assert lines[0] == "index,file,label,teacher,teacher_probability,kd/1,kd/1_probability"
    assert len(lines) == 1 + len(LABELS)
    answers = [line.split(",") for line in lines[1:]]
    names = found.context.classes
    assert [row[3] for row in answers] == [names[label] for label in LABELS]
    wrong = [row for row in answers if row[5] != row[2]]
    assert len(wrong) == len(LABELS) // 2 and all(1 / CLASSES < float(row[6]) <= 1 for row in answers)
