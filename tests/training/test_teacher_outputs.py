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
from models.zoo import classifier
from training.teacher_outputs import CachedTeacher, LiveTeacher, teacher_outputs

VIEWS = 2


@pytest.fixture
def given(make_experiment, tmp_path):
    """`given("data.crop=0", seed=1)`: an experiment with a cache of its own and a frozen random teacher."""

    def make(*overrides, seed=0):
        settings = [f"teacher.views={VIEWS}", f"data.cache_dir={tmp_path / 'cache'}", *overrides]
        experiment = make_experiment(*settings)
        network = experiment.new_student(seed).requires_grad_(False)
        return experiment, experiment.tapped(network, experiment.config.teacher)

    return make


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
    experiment, teacher = given("teacher.views=0")
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
    more, _ = given(f"teacher.views={VIEWS + 1}")
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
        (["teacher.taps=[layer1.0, layer2.0]"], 0),
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


def test_a_view_finished_but_not_yet_renamed_is_taken_as_it_is(given, monkeypatch):
    experiment, teacher = given()
    teacher_outputs(experiment, teacher)
    folder = caches(experiment)[0]
    whole = np.load(folder / "view1.npy")
    (folder / "view1.npy").rename(folder / "view1.partial")
    (folder / "view1.done").write_text("64")
    monkeypatch.setattr(module, "run", lambda *_: pytest.fail("the teacher ran again"))
    teacher_outputs(experiment, teacher)
    np.testing.assert_array_equal(whole, np.load(folder / "view1.npy"))
    assert files_of(folder) == [["view0", "view1"]] * 2


def test_two_runs_share_the_work_of_one_cache(given, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 8)
    experiment, teacher = given("teacher.views=4")
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
    experiment, teacher = given("teacher.views=0")
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
    with pytest.raises(UserError, match=r"do not fit into float16: use --set teacher.views=0"):
        teacher_outputs(experiment, teacher)
    assert list(islice(caches(experiment)[0].glob("*.npy"), 1)) == []
