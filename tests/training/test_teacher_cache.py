from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy

import pytest
import torch

from errors import UserError, warn
from files import hold_lock
from models.heads import find_classifier
from models.taps import TappedModel
from tests.training.batches import cut_batch
from training import teacher_cache, teacher_outputs
from training.teacher_outputs import CachedTeacher, LiveTeacher, list_cached_places, open_outputs

VIEWS = 2
WHOLE = ["view0.npy", "view0.sha256", "view1.npy", "view1.sha256"]


@pytest.fixture
def make_teacher(make_experiment, tmp_path):
    """`make_teacher("data.crop=0", seed=1)`: an experiment with a cache of its own and a frozen random teacher."""

    def make(*overrides, seed=0):
        settings = [f"teacher.cached_views={VIEWS}", f"data.cache_dir={tmp_path / 'cache'}", *overrides]
        experiment = make_experiment(*settings)
        network = experiment.build_student(seed).requires_grad_(False)
        return experiment, TappedModel(network, list_cached_places(experiment))

    return make


def fill(experiment, teacher):
    return open_outputs(experiment, teacher, experiment.config.teacher.cached_views)


def list_caches(experiment):
    return sorted(experiment.config.data.cache_dir.glob("teacher-*"))


def list_files(experiment):
    return sorted(path.name for path in list_caches(experiment)[0].iterdir())


def count_images(monkeypatch, most=None):
    """Record the size of every batch that the teacher runs on, and interrupt it after `most`."""
    run, images = teacher_outputs.predict_taps, []

    def count(model, batch, machine):
        if len(images) == most:
            raise KeyboardInterrupt
        images.append(len(batch))
        return run(model, batch, machine)

    monkeypatch.setattr(teacher_cache, "EVALUATION_BATCH", 8)
    monkeypatch.setattr(teacher_outputs, "predict_taps", count)
    return images


def test_cached_outputs_are_live_ones_in_float16(make_teacher) -> None:
    experiment, teacher = make_teacher()
    cached, live = fill(experiment, teacher), LiveTeacher(teacher, experiment.machine)
    assert isinstance(cached, CachedTeacher)
    for view in range(VIEWS):
        batch = cut_batch(experiment, view)
        ours, reference = cached(batch), live(batch)
        assert ours.logits.dtype == torch.float32 and ours.logits.shape == (16, 4)
        for one, other in zip((ours.logits, *ours.taps), (reference.logits, *reference.taps), strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-4)
    first, second = cached(cut_batch(experiment, 0)), cached(cut_batch(experiment, 1))
    assert not torch.equal(first.logits, second.logits)  # views differ


def test_more_views_are_added_without_repeating_any(make_teacher, monkeypatch) -> None:
    experiment, teacher = make_teacher()
    before = fill(experiment, teacher)(cut_batch(experiment, 1))
    assert list_files(experiment) == WHOLE
    images = count_images(monkeypatch)
    after = fill(experiment, teacher)(cut_batch(experiment, 1))
    assert torch.equal(before.logits, after.logits) and images == []
    more, _ = make_teacher(f"teacher.cached_views={VIEWS + 1}")
    fill(more, teacher)
    assert len(list_caches(experiment)) == 1 and sum(images) == 64


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
        (["teacher.image_size=24"], 0),
    ],
)
def test_a_cache_belongs_to_one_teacher_and_data(make_teacher, overrides, seed) -> None:
    experiment, teacher = make_teacher()
    fill(experiment, teacher)
    other, changed = make_teacher(*overrides, seed=seed)
    outputs, batch = fill(other, changed), cut_batch(other, 1)
    assert len(list_caches(experiment)) == 2
    reference = LiveTeacher(changed, other.machine)(batch)
    torch.testing.assert_close(outputs(batch).logits, reference.logits, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("damage", ["one bit", "cut", "digest", "no digest"])
def test_a_corrupt_view_is_computed_again(make_teacher, capsys, damage) -> None:
    warn.cache_clear()
    experiment, teacher = make_teacher()
    batch = cut_batch(experiment, 1)
    before = fill(experiment, teacher)(batch)
    path = list_caches(experiment)[0] / ("view1.sha256" if "digest" in damage else "view1.npy")
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content[:-7] if damage == "cut" else content)
    if damage == "no digest":
        path.unlink()
    teacher_cache._has_digest.cache_clear()  # as in another process
    after = fill(experiment, teacher)(batch)
    assert torch.equal(before.logits, after.logits) and list_files(experiment) == WHOLE
    assert "view1.npy is corrupt: it is computed again" in capsys.readouterr().err


def test_an_interrupted_view_leaves_the_others(make_teacher, monkeypatch) -> None:
    experiment, teacher = make_teacher()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        count_images(patch, most=12)  # 8 batches a view
        fill(experiment, teacher)
    assert list_files(experiment) == WHOLE[:2]
    for name in ("view1.partial", "view0.lock", "view1.lock"):  # as a kill leaves them
        (list_caches(experiment)[0] / name).touch()
    images = count_images(monkeypatch)
    fill(experiment, teacher)
    assert sum(images) == 64 and list_files(experiment) == WHOLE


def test_runs_share_the_work_of_one_cache(make_teacher, monkeypatch) -> None:
    experiment, teacher = make_teacher("teacher.cached_views=4")
    images = count_images(monkeypatch)
    with ThreadPoolExecutor(3) as pool:  # a lock holds between open files, in one process or in several
        jobs = [pool.submit(fill, experiment, deepcopy(teacher)) for _ in range(3)]
        logits = [job.result()(cut_batch(experiment, 3)).logits for job in jobs]
    assert sum(images) == 4 * 64 and len(list_files(experiment)) == 8
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_views_that_others_fill_come_last(make_teacher, monkeypatch) -> None:
    experiment, teacher = make_teacher()
    fill(experiment, teacher)
    folder = list_caches(experiment)[0]
    first = (folder / "view0.npy").read_bytes()
    for view in range(VIEWS):
        (folder / f"view{view}.npy").unlink()
    looks = []

    def finish_other(seconds):  # the other run, while this one waits
        looks.append((folder / "view1.npy").exists())
        (folder / "view0.npy").write_bytes(first)
        other.close()

    monkeypatch.setattr(time, "sleep", finish_other)
    with ExitStack() as other:
        assert other.enter_context(hold_lock(folder / "view0.lock")) is None
        fill(experiment, teacher)
    assert looks == [True]  # this run went on with another view
    assert (folder / "view0.npy").read_bytes() == first and list_files(experiment) == WHOLE


def test_outputs_beyond_float16_are_refused(make_teacher) -> None:
    experiment, teacher = make_teacher()
    find_classifier(teacher)[1].bias.fill_(1e5)
    with pytest.raises(UserError, match=r"do not fit into float16: use --set teacher.cached_views=0"):
        fill(experiment, teacher)
    assert list_files(experiment) == []
