from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

import training.teacher_outputs as module
from dataset.loader import imageless_batches, training_batches
from errors import UserError, warn
from files import locked
from models.checkpoint import load
from models.heads import classifier
from models.taps import TappedModel
from models.whole import file_hash
from tests.training.untrained import finish_needed, prepare_job
from training.job_name import JobName
from training.prepared import train
from training.stage import StageObjective
from training.teacher_outputs import CachedTeacher, LiveTeacher, open_outputs
from training.teacher_side import list_cached_places

VIEWS = 2
STAGE1 = JobName("two_stage", 0, 1)


@pytest.fixture
def given(make_experiment, tmp_path):
    """`given("data.crop=0", seed=1)`: an experiment with a cache of its own and a frozen random teacher."""

    def make(*overrides, seed=0):
        settings = [f"teacher.cached_views={VIEWS}", f"data.cache_dir={tmp_path / 'cache'}", *overrides]
        experiment = make_experiment(*settings)
        network = experiment.new_student(seed).requires_grad_(False)
        return experiment, TappedModel(network, list_cached_places(experiment))

    return make


def teacher_outputs(experiment, teacher, sees_images=True):
    return open_outputs(experiment, teacher, experiment.config.teacher.cached_views, sees_images)


def caches(experiment):
    return sorted(experiment.config.data.cache_dir.glob("teacher-*"))


def batch_of(experiment, view):
    return next(training_batches(experiment.data, 16, seed=1, epoch=0, view=view))


def test_cached_outputs_are_the_live_ones_to_float16(given):
    experiment, teacher = given()
    cached, live = teacher_outputs(experiment, teacher), LiveTeacher(teacher, experiment.machine)
    assert isinstance(cached, CachedTeacher)
    for view in range(VIEWS):
        batch = batch_of(experiment, view)
        ours, reference = cached(batch), live(batch)
        assert ours.logits.dtype == torch.float32 and ours.logits.shape == (16, 4)
        for one, other in zip((ours.logits, *ours.taps), (reference.logits, *reference.taps), strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-4)
    first, second = cached(batch_of(experiment, 0)), cached(batch_of(experiment, 1))
    assert not torch.equal(first.logits, second.logits)  # views differ


def test_without_views_the_teacher_runs_live_and_its_batch_statistics_stay(given):
    experiment, teacher = given("teacher.cached_views=0")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    outputs = teacher_outputs(experiment, teacher.train())
    outputs(batch_of(experiment, 7))
    assert isinstance(outputs, LiveTeacher) and caches(experiment) == []
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_second_call_runs_no_teacher(given, monkeypatch):
    experiment, teacher = given()
    before = teacher_outputs(experiment, teacher)(batch_of(experiment, 1))
    monkeypatch.setattr(module, "run", lambda *_: pytest.fail("the teacher ran again"))
    after = teacher_outputs(experiment, teacher)(batch_of(experiment, 1))
    assert torch.equal(before.logits, after.logits)
    assert len(caches(experiment)) == 1


def test_more_views_are_added_to_those_there_are(given):
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    times = {path.name: path.stat().st_mtime_ns for path in caches(experiment)[0].iterdir()}
    more, _ = given(f"teacher.cached_views={VIEWS + 1}")
    teacher_outputs(more, teacher)
    assert len(caches(experiment)) == 1
    after = {path.name: path.stat().st_mtime_ns for path in caches(experiment)[0].iterdir()}
    assert set(after) - set(times) == {"view2.npy", "view2.sha256"} and times.items() <= after.items()


@pytest.mark.parametrize(
    ("overrides", "seed"),
    [
        ([], 1),  # another teacher
        (["data.val_fraction=0.25"], 0),
        (["data.seed=1"], 0),
        (["data.crop=1"], 0),
        (["data.flip=false"], 0),
        (["data.mean=[0.5, 0.5, 0.5]"], 0),
        (["teacher.taps={penultimate: layer1.0, last: layer2.0}"], 0),
        (["methods={other: {losses: {ce: 1, crd: {taps: {stage1: 1}}}}}"], 0),
        (["shortcut.cue=tint"], 0),
    ],
)
def test_a_cache_belongs_to_one_teacher_data_taps_and_seed(given, overrides, seed):
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    other, changed = given(*overrides, seed=seed)
    outputs = teacher_outputs(other, changed)
    assert len(caches(experiment)) == 2
    batch = batch_of(other, 1)
    reference = LiveTeacher(changed, other.machine)(batch)
    torch.testing.assert_close(outputs(batch).logits, reference.logits, rtol=2e-3, atol=1e-4)


def files_of(folder):
    """Views that are there, and views whose digest is; nothing else may be."""
    found = sorted(folder.iterdir())
    assert {path.suffix for path in found} <= {".npy", ".sha256"}
    return [[path.stem for path in found if path.suffix == suffix] for suffix in (".npy", ".sha256")]


@pytest.mark.parametrize("damage", ["one bit", "cut", "its digest"])
def test_a_damaged_view_is_named_and_filled_anew(given, capsys, damage):
    # Before, one flipped bit of a cached view changed the weights without a word.
    warn.cache_clear()
    experiment, teacher = given()
    batch = batch_of(experiment, 1)
    before = teacher_outputs(experiment, teacher)(batch)
    folder = caches(experiment)[0]
    path = folder / ("view1.sha256" if damage == "its digest" else "view1.npy")
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content[:-7] if damage == "cut" else content)
    module._seen.clear()  # as in another process
    after = teacher_outputs(experiment, teacher)(batch)
    assert torch.equal(before.logits, after.logits) and files_of(folder) == [["view0", "view1"]] * 2
    assert "view1.npy is not as it was written: filled anew" in capsys.readouterr().err


def test_an_interrupted_view_goes_on_at_its_mark(given, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)  # of 64 images
    monkeypatch.setattr(module, "EVALUATION_BATCH", 8)
    experiment, teacher = given()
    run, images = module.run, []

    def stops(model, batch, machine):
        if len(images) == 5:  # in the third chunk
            raise KeyboardInterrupt
        images.append(len(batch))
        return run(model, batch, machine)

    monkeypatch.setattr(module, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        teacher_outputs(experiment, teacher)
    monkeypatch.setattr(module, "run", lambda *given: images.append(len(given[1])) or run(*given))
    images.clear()
    teacher_outputs(experiment, teacher)
    assert sum(images) == 64 * VIEWS - 32
    folder = caches(experiment)[0]
    assert files_of(folder) == [["view0", "view1"]] * 2
    resumed = np.load(folder / "view0.npy")
    (folder / "view0.npy").unlink()
    teacher_outputs(experiment, teacher)
    np.testing.assert_array_equal(resumed, np.load(folder / "view0.npy"))


def test_a_mark_that_outlived_its_file_is_no_mark_of_the_next(given, monkeypatch):
    # Before, it made a file of zeros behind the rows of an interrupted filling, with a digest that fits them.
    monkeypatch.setattr(module, "EVALUATION_BATCH", 8)
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    folder = caches(experiment)[0]
    whole = np.load(folder / "view1.npy")
    (folder / "view1.npy").unlink()  # as damage is removed
    (folder / "view1.done").write_text(f"64 {'0' * 16}")
    run, images = module.run, []

    def stops(model, batch, machine):
        if len(images) == 2:
            raise KeyboardInterrupt
        images.append(len(batch))
        return run(model, batch, machine)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(module, "run", stops)
        with pytest.raises(KeyboardInterrupt):
            teacher_outputs(experiment, teacher)
    teacher_outputs(experiment, teacher)
    np.testing.assert_array_equal(whole, np.load(folder / "view1.npy"))
    assert files_of(folder) == [["view0", "view1"]] * 2


def test_a_view_finished_but_not_yet_renamed_is_taken_as_it_is(given, monkeypatch):
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    folder = caches(experiment)[0]
    whole = np.load(folder / "view1.npy")
    (folder / "view1.npy").rename(folder / "view1.partial")
    (folder / "view1.done").write_text(f"64 {file_hash(folder / 'view1.partial')}")
    monkeypatch.setattr(module, "run", lambda *_: pytest.fail("the teacher ran again"))
    teacher_outputs(experiment, teacher)
    np.testing.assert_array_equal(whole, np.load(folder / "view1.npy"))
    assert files_of(folder) == [["view0", "view1"]] * 2


def test_rows_before_a_mark_that_changed_are_filled_anew_and_locks_of_the_dead_vanish(given, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 8)
    monkeypatch.setattr(module, "CHUNK", 16)
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    folder, run, calls = caches(experiment)[0], module.run, []
    whole = (folder / "view1.npy").read_bytes()

    def stops(model, batch, machine):
        calls.append(len(batch))
        if len(calls) % 5 == 0:
            raise KeyboardInterrupt
        return run(model, batch, machine)

    # a bit of the rows, a count that is more, a digest, what earlier versions wrote, and no text
    for mark in (None, b"48 ", b"32 0000000000000000", b"32", b"\xff\x00", b"99999999999999999999 a"):
        (folder / "view1.npy").unlink()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "run", stops)
            teacher_outputs(experiment, teacher)
        (folder / "view1.lock").touch()  # as a kill leaves it
        partial, done = folder / "view1.partial", folder / "view1.done"
        assert done.read_text().startswith("32 ")
        if mark is None:
            content = bytearray(partial.read_bytes())
            content[200] ^= 1
            partial.write_bytes(content)
        else:
            done.write_bytes(mark + (done.read_bytes()[3:] if mark == b"48 " else b""))
        teacher_outputs(experiment, teacher)
        assert (folder / "view1.npy").read_bytes() == whole
        (folder / "view0.lock").touch()
        teacher_outputs(experiment, teacher)
        assert files_of(folder) == [["view0", "view1"]] * 2 and not list(folder.glob("*.lock"))


def test_two_runs_share_the_work_of_one_cache(given, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 8)
    experiment, teacher = given("teacher.cached_views=4")
    run, images = module.run, []
    monkeypatch.setattr(module, "run", lambda *given: images.append(len(given[1])) or run(*given))
    with ThreadPoolExecutor(3) as pool:  # a lock holds between open files, in one process or in several
        jobs = [pool.submit(teacher_outputs, experiment, deepcopy(teacher)) for _ in range(3)]
        found = [job.result()(batch_of(experiment, 3)).logits for job in jobs]
    assert sum(images) == 4 * 64
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert files_of(caches(experiment)[0]) == [[f"view{v}" for v in range(4)]] * 2


def test_what_another_run_is_filling_comes_last_and_is_waited_for(given, monkeypatch):
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    folder = caches(experiment)[0]
    first = (folder / "view0.npy").read_bytes()
    for view in range(VIEWS):
        (folder / f"view{view}.npy").unlink()
    looks = []

    def finishes(seconds):  # the other run, while this one waits
        looks.append((folder / "view1.npy").exists())
        (folder / "view0.npy").write_bytes(first)
        other.close()

    monkeypatch.setattr(time, "sleep", finishes)
    with ExitStack() as other:
        assert other.enter_context(locked(folder / "view0.lock")) is None
        teacher_outputs(experiment, teacher)
    assert looks == [True]  # this run went on with another view
    assert (folder / "view0.npy").read_bytes() == first
    assert files_of(folder) == [["view0", "view1"]] * 2


def test_a_live_teacher_serves_batches_without_images(given):
    experiment, teacher = given("teacher.cached_views=0")
    outputs, live = (
        teacher_outputs(experiment, teacher, sees_images=False),
        LiveTeacher(teacher, experiment.machine),
    )
    batch = batch_of(experiment, 3)
    ours, reference = outputs(next(imageless_batches(experiment.data, 16, 1, 0, 3))), live(batch)
    for one, other in zip((ours.logits, *ours.taps), (reference.logits, *reference.taps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_outputs_too_large_for_float16_are_refused(given):
    experiment, teacher = given()
    head: nn.Linear = classifier(teacher)[1]
    head.bias.fill_(1e5)
    with pytest.raises(UserError, match=r"do not fit into float16: use --set teacher.cached_views=0"):
        teacher_outputs(experiment, teacher)
    assert list(islice(caches(experiment)[0].glob("*.npy"), 1)) == []


PAIRED = ("teacher.cached_views=0", "shortcut.cue=tint", "shortcut.pairs=counterfactual", "data.val_fraction=0.25")


def test_the_teacher_gets_the_counterfactual_image_with_and_without_images_in_the_batch(given):
    experiment, teacher = given(*PAIRED)
    seeing, alone = (teacher_outputs(experiment, teacher, sees_images=sees) for sees in (True, False))
    for view in (3, 4):
        batch = batch_of(experiment, view)
        imageless = next(imageless_batches(experiment.data, 16, seed=1, epoch=0, view=view))
        expected = module.run(teacher, batch.counterfactual, experiment.machine)
        own = module.run(teacher, batch.images, experiment.machine)
        assert torch.equal(seeing(batch).logits, expected.logits) and not torch.equal(expected.logits, own.logits)
        torch.testing.assert_close(alone(imageless).logits, expected.logits, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone(imageless).taps[1], expected.taps[1], rtol=1e-5, atol=1e-6)


def test_heads_read_the_students_image_and_are_taught_by_the_teachers(make_experiment):
    method = "methods.a={starts_from: teacher, train: head, epochs: 2, losses: {reuse: 1}}"
    experiment, job = make_experiment(*PAIRED, method), JobName("a", 0)
    objective = prepare_job(job, experiment).objective
    imageless = next(imageless_batches(experiment.data, 16, seed=1, epoch=0, view=2))
    batch, places = batch_of(experiment, 2), ["fc:input"]
    network = TappedModel(experiment.trained(experiment.config.teacher, experiment.folder.teacher), places)
    expected = module.run(network, batch.counterfactual, experiment.machine).taps[0]
    own = module.run(network, batch.images, experiment.machine).taps[0]
    torch.testing.assert_close(objective.teacher(imageless).taps["features"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(objective.student.features(imageless), own, rtol=1e-5, atol=1e-6)
    train(experiment, job)  # learns to say of its own image what the teacher does of another: not at once
    assert experiment.folder.job(job).history()[-1]["reuse"] > 0.001


def test_a_resumed_training_sees_the_same_pairs(make_experiment, monkeypatch):
    settings = (*PAIRED, "methods=[two_stage]", "training.epochs=5")
    whole, stopped = (make_experiment(*settings, f"name={name}") for name in ("whole", "stopped"))
    for experiment in (whole, stopped):
        finish_needed(STAGE1, experiment)
    train(whole, STAGE1)
    measure, epochs = StageObjective.measure, []

    def stops(objective):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return measure(objective)

    monkeypatch.setattr(StageObjective, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, STAGE1)
    train(stopped, STAGE1)
    one, other = (load(experiment.folder.job(STAGE1).model) for experiment in (whole, stopped))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
