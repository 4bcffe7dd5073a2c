"""Of main_eval.py, models/export.py, diagnostics/export/choice.py, diagnostics/report/terminal.py, and
diagnostics/evaluation/: evaluated_models.py, quick.py, runs.py, recording.py, recording_file.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

import main_eval
from dataset.views.augment import normalise
from diagnostics.evaluation import evaluated_models, recording
from diagnostics.evaluation.recording import Meta
from diagnostics.evaluation.recording_file import META, read_recording
from diagnostics.evaluation.saved_evaluation import read_evaluation
from diagnostics.export.choice import choose_student
from diagnostics.plain import parse_json, to_plain
from errors import run_command
from models.checkpoint import load
from models.machine import open_machine
from models.whole import hash_file
from models.zoo import build_model
from settings.reading import load_config
from training.run.record_file import read_record, write_record
from training.run.run_folder import RunFolder, write_config
from training.run.run_lock import lock_run

CLASSIFIERS = ["teacher", "scratch", "kd", "two_stage"]


def call(monkeypatch, capfd, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["main_eval.py", *map(str, words)])
    capfd.readouterr()
    code = run_command(main_eval.run)
    return code, *capfd.readouterr()


@pytest.fixture
def without_rendering(monkeypatch):
    """Figures are made, but of each an empty file: those of `trained` and of the study are whole."""
    monkeypatch.setattr("diagnostics.report.files.to_bytes", lambda figure, kind: bytes(24))


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A run of two seeds with two baselines, and what `main_eval.py` printed of it."""
    runs = tmp_path_factory.mktemp("evaluated")
    train(runs, "--phase", "all", "--seeds", "0", "1", "--set", "methods=[scratch,kd,two_stage]")
    command = [sys.executable, main_eval.__file__, str(runs / "tiny"), "--quiet"]
    return runs / "tiny", subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("counts", "mcnemar", "chi_square", "phi", "dissimilarity"),
    [
        ((4869, 1884, 694, 2553), 548.38, 2283.92, 0.478, 0.336),
        ((5186, 1879, 512, 2423), 780.41, 2646.67, 0.515, 0.330),
        ((2919, 3430, 445, 3206), 2297.87, 1183.88, 0.344, 0.377),
    ],
)
def test_counts_give_the_published_table(
    monkeypatch, capfd, counts, mcnemar, chi_square, phi, dissimilarity
) -> None:
    code, out, err = call(monkeypatch, capfd, "--counts", *counts, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert round(told["mcnemar_corrected"]["statistic"], 2) == mcnemar
    assert round(told["chi_square_yates"]["statistic"], 2) == chi_square
    assert round(told["phi"], 3) == phi
    assert round(told["error_dissimilarity"], 3) == dissimilarity
    code, out, _ = call(monkeypatch, capfd, "--counts", *counts)
    assert code == 0 and f"{mcnemar:.2f}" in out and f"{chi_square:.2f}" in out


def test_a_run_is_evaluated_and_reported(trained) -> None:
    run, done = trained
    assert (done.returncode, done.stderr) == (0, "")
    folder = run / "eval"
    report = json.loads((folder / "report.json").read_text())
    names = [model["name"] for model in report["models"]]
    assert names == [*CLASSIFIERS, "scratch/1", "kd/1", "two_stage/1"]
    for model in report["models"]:
        job = "teacher" if model["seed"] is None else f"seed{model['seed']}/{model['method']}"
        result = json.loads((run / job.replace("two_stage", "two_stage/stage2") / "result.json").read_text())
        assert model["top1"] == result["test_top1"]  # the same images in the same precision as in training
        assert model["low"] <= model["top1"] <= model["high"]
        best = {row["model"]: row for row in report["best_epochs"]["models"]}[model["name"]]
        assert best["final"] == model["top1"] and best["best"] == result["best_test_top1"] >= best["final"]
        assert best["epoch"] == result["best_test_epoch"]
    pairs = {(pair["a"], pair["b"]) for pair in report["pairs"]}
    assert ("kd", "two_stage") in pairs and ("kd/1", "two_stage/1") in pairs and ("teacher", "kd/1") in pairs
    assert ("kd", "two_stage/1") not in pairs  # other seeds are no pair
    assert report["seeds"]["methods"]["kd"]["n"] == 2
    for row in report["seeds"]["comparisons"]:  # over both is never narrower than over one of them
        widths = [one["high"] - one["low"] for one in (row["images"], row["crossed"]) if one["low"] is not None]
        assert widths == sorted(widths) and row["images"]["difference"] == pytest.approx(row["difference"])
    students = set(names) - {"teacher"}
    assert set(report["fidelity"]) == students and set(report["calibration"]) == set(names)
    assert set(report["representation"]) == {"scratch", "kd", "stage1", "two_stage"}
    assert report["representation"]["two_stage"]["last"]["cosine"] is not None
    trained_on = {name: [one["job"] for one in jobs] for name, jobs in report["given"]["models"].items()}
    assert trained_on["two_stage"] == ["two_stage/stage1", "two_stage/stage2"] and trained_on["kd"] == ["kd"]
    assert set(trained_on) == {*CLASSIFIERS, "stage1"} and trained_on["stage1"] == ["two_stage/stage1"]
    terms = {"loss", "ce", "kl", "crd_penultimate", "crd_last", "top1", "test_top1", "cosine_last", "cka_last"}
    reached = (folder / "tables" / "reached.csv").read_text().splitlines()[0].split(",")
    assert terms <= set(reached) and report["main"] == "two_stage"
    gaps = report["claims"]["generalisation"]
    assert (
        gaps["kd"]["images"] == 64 and gaps["kd"]["top1_gap"] == gaps["kd"]["train_top1"] - gaps["kd"]["test_top1"]
    )
    assert [row["members"] for row in report["claims"]["ensembles"]][0] == ["teacher", "scratch"]
    (even,) = report["given"]["sentences"]
    assert "epochs (4), images seen (256)" in even
    summary = done.stdout.splitlines()
    assert len(summary) <= 15 and all(len(line) <= 100 for line in summary[:-1])
    assert [line.split()[0] for line in summary[1:5]] == ["teacher", "scratch", "kd", "two_stage"]
    assert "Best student: " in done.stdout and summary[-1] == f"report: {folder}/report.html"
    for name in (
        "report.html",
        "predictions.npz",
        "tables/models.csv",
        "tables/best_epochs.csv",
        "tables/pairs.tex",
        "figures/accuracy.png",
    ):
        assert (folder / name).stat().st_size > 0, name
    header, first, *_ = (folder / "predictions.csv").read_text().splitlines()
    assert header.startswith("index,file,label,teacher,teacher_probability,") and header.count("probability") == 7
    assert first.startswith("0,test/ash/0.png,ash,")
    files = {one["file"] for pair in report["differing"] for kind in pair["kinds"] for one in kind["images"]}
    assert all(re.fullmatch(r"test/[a-z]+/\d\.png", file) for file in files)
    usage = [one["usage"] for one in report["given"]["models"]["two_stage"]]
    assert all(one["seconds"] > 0 and one["peak_memory"] > 10**7 and one["memory_of"] for one in usage)


def test_one_architecture_has_one_latency(trained) -> None:
    report = json.loads((trained[0] / "eval" / "report.json").read_text())
    times = {json.dumps(report["cost"][name]["latencies"]) for name in ("scratch", "kd", "two_stage")}
    assert len(times) == 1  # before, three numbers that differed by the machine's other work


def test_predictions_alone_give_the_same_report(trained, tmp_path, monkeypatch, capfd) -> None:
    run, _ = trained
    shutil.copy(run / "eval" / "predictions.npz", tmp_path)
    code, *_ = call(monkeypatch, capfd, tmp_path / "predictions.npz")
    assert code == 0
    for name in ("report.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (run / "eval" / name).read_bytes(), name


def test_a_second_call_runs_no_network_but_a_changed_one(
    trained, tmp_path, without_rendering, monkeypatch, capfd
) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(trained[0], run)
    recorded = []
    original = recording._record_one
    monkeypatch.setattr(recording, "_record_one", lambda *a: recorded.append(a[0].name) or original(*a))
    with lock_run(run):  # reading asks for no lock
        assert call(monkeypatch, capfd, run, "--quiet")[0] == 0
    assert recorded == []
    weights = load(run / "seed0" / "kd" / "model.pt")
    torch.save({name: value * 2 for name, value in weights.items()}, run / "seed0" / "kd" / "model.pt")
    result = read_record(run / "seed0" / "kd" / "result.json", "")
    changed = {**result, "model_sha256": hash_file(run / "seed0" / "kd" / "model.pt")}
    write_record(run / "seed0" / "kd" / "result.json", changed)
    assert call(monkeypatch, capfd, run, "--quiet")[0] == 0
    assert recorded == ["kd"]


def test_a_result_without_the_best_epoch_still_evaluates(
    trained, tmp_path, without_rendering, monkeypatch, capfd
) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(trained[0], run, ignore=shutil.ignore_patterns("eval"))
    for path in run.rglob("result.json"):
        result = read_record(path, "")
        write_record(path, {name: value for name, value in result.items() if not name.startswith("best_test")})
    assert call(monkeypatch, capfd, run, "--quiet")[0] == 0
    before, after = (
        json.loads((folder / "eval" / "report.json").read_text())["best_epochs"] for folder in (trained[0], run)
    )
    assert before == after


def test_two_runs_are_compared(trained, tmp_path, without_rendering, monkeypatch, capfd) -> None:
    run, _ = trained
    other = tmp_path / "other"
    shutil.copytree(run, other)
    with monkeypatch.context() as without_networks:
        without_networks.setattr(evaluated_models, "open_run", lambda *a: pytest.fail("a network was asked for"))
        code, out, _ = call(without_networks, capfd, "--compare", run, other, "--json", "--output-dir", tmp_path)
    told = json.loads(out)
    assert told == json.loads((tmp_path / "compare-tiny-other" / "report.json").read_text())
    assert code == 0 and {row["run"] for row in told["models"]} == {"tiny", "other"}
    assert all(pair["interval"]["difference"] == 0 for pair in told["pairs"])  # a copy of itself
    assert all("no difference shown" in row["sentence"] for row in told["seeds"])
    (other / "eval/report.json").write_text('{"schema_version": 0}')  # as another version left it
    code, out, err = call(monkeypatch, capfd, "--compare", other, run)
    assert code == 0 and "other:two_stage" in out and "compare-other-tiny/report.html" in out
    assert "report.json is of another version of this program: " in err and "is evaluated first" in err
    changed = read_record(other / "seed0/kd/result.json", "")
    write_record(other / "seed0/kd/result.json", {**changed, "model_sha256": "0" * 64})
    with pytest.raises(ValueError, match="kd was trained since"):
        read_evaluation(other)
    code, out, err = call(monkeypatch, capfd, "--compare", run, run, "--quiet")
    assert code == 2 and "is named twice" in err
    shutil.copytree(run, tmp_path / "elsewhere" / "tiny")
    code, out, err = call(monkeypatch, capfd, "--compare", run, tmp_path / "elsewhere" / "tiny", "--quiet")
    assert code == 2 and "names of their own" in err


def test_two_files_are_compared(trained, tiny_config, tmp_path, without_rendering, monkeypatch, capfd) -> None:
    run, _ = trained
    teacher, student = run / "teacher" / "model.pt", run / "seed0" / "two_stage" / "stage2" / "model.pt"
    files = ("--teacher", teacher, "--student", student, "--config", tiny_config, "--output-dir", tmp_path)
    code, out, _ = call(monkeypatch, capfd, *files, "--quiet", "--verbose")
    (folder,) = tmp_path.iterdir()
    whole = json.loads((run / "eval" / "report.json").read_text())
    told = json.loads((folder / "report.json").read_text())
    assert code == 0 and [model["name"] for model in told["models"]] == ["teacher", "student"]
    (pair,) = told["pairs"]
    (same,) = [row for row in whole["pairs"] if (row["a"], row["b"]) == ("teacher", "two_stage")]
    assert pair["counts"] == same["counts"]
    assert "given" not in told and "what they were trained with is not on record" in out


def test_the_exported_student_gives_the_same_logits(trained, tmp_path, monkeypatch, capfd) -> None:
    run, _ = trained
    code, out, err = call(monkeypatch, capfd, run, "--export", tmp_path / "out", "--model", "two_stage", "--quiet")
    assert (code, err) == (0, "")
    assert "largest difference in logits" in out and "model_rgb_uint8.onnx" in out
    model = build_model("resnet8", 4)
    model.load_state_dict(load(tmp_path / "out" / "model.pt"))
    program = torch.export.load(tmp_path / "out" / "model_rgb_uint8.pt2").module()
    stats = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    images = normalise(pixels, torch.tensor(stats["mean"]), torch.tensor(stats["std"]))
    assert torch.allclose(program(pixels), model.eval()(images), atol=1e-5)
    told = json.loads((tmp_path / "out" / "metadata.json").read_text())
    result = json.loads((run / "seed0" / "two_stage" / "stage2" / "result.json").read_text())
    assert told["accuracy"]["top1"] == result["test_top1"] and told["weights"] == result["model_sha256"]
    assert told["classes"] == stats["classes"] == ["ash", "birch", "cedar", "date"]
    assert told["image_files"]["levels"] <= 1 and told["teacher"]["arch"] == "resnet8"


def test_the_model_that_is_exported_is_the_one_asked_for(
    trained, tiny_config, tmp_path, monkeypatch, capfd
) -> None:
    run, _ = trained

    def exported(*words):
        code, _, err = call(monkeypatch, capfd, *words, "--export", tmp_path / "out", "--quiet")
        return load(tmp_path / "out" / "model.pt") if code == 0 else err

    def is_of(weights, folder):
        return all(torch.equal(value, weights[name]) for name, value in load(run / folder / "model.pt").items())

    assert "has no validation images to choose by, use --model: " in exported(run)
    assert is_of(exported(run, "--model", "two_stage"), "seed0/two_stage/stage2")
    assert is_of(exported(run, "--model", "kd", "--seed", "1"), "seed1/kd")
    assert is_of(exported(run, "--model", "teacher"), "teacher")
    told = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (told["teacher"], told["seed"]) == (None, None)
    files = ("--teacher", run / "teacher" / "model.pt", "--student", run / "seed0" / "scratch" / "model.pt")
    assert is_of(exported(*files, "--config", tiny_config), "seed0/scratch")
    assert "--output-dir is not read together with" in exported(*files, "--output-dir", tmp_path)
    assert "no finished crd of seed 0: it has kd, kd/1" in exported(run, "--model", "crd")
    assert "does not classify" in exported(run, "--model", "stage1")
    assert "no finished kd of seed 7" in exported(run, "--model", "kd", "--seed", "7")
    assert "one teacher for all seeds, leave --seed out" in exported(run, "--model", "teacher", "--seed", "0")


def test_the_best_student_by_validation_is_exported(trained, tmp_path, monkeypatch, capfd) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(trained[0], run)
    scores = {"scratch": (0.9, 0.2), "kd": (0.6, 0.7), "two_stage/stage2": (0.65, 0.5)}
    for method, values in scores.items():
        for seed, value in enumerate(values):
            path = run / f"seed{seed}" / method / "result.json"
            write_record(path, {**read_record(path, ""), "val_top1": value})
    code, out, err = call(monkeypatch, capfd, run, "--export", tmp_path / "out", "--quiet")
    told = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (code, err, told["model"], told["seed"]) == (0, "", "kd", 1)  # the best method, and its best seed
    assert out.startswith("best student by validation: kd of seed 1, 70.0 % on validation images, ")
    assert choose_student(open_tiny(run), 0).method == "scratch"


def open_tiny(run):
    return evaluated_models.open_run(RunFolder(run), open_machine("float32", torch.device("cpu")))


def test_quick_prints_the_same_accuracies_and_writes_nothing(trained, tmp_path, monkeypatch, capfd) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(trained[0], run, ignore=shutil.ignore_patterns("eval"))
    monkeypatch.setattr(evaluated_models, "record", lambda *a: pytest.fail("features were asked for"))
    code, out, err = call(monkeypatch, capfd, run, "--quick", "--json", "--quiet")
    whole, told = json.loads((trained[0] / "eval/report.json").read_text()), json.loads(out)
    assert (code, err) == (0, "") and not (run / "eval").exists()
    assert {key: told[key] for key in ("models", "pairs", "seeds")} == {
        key: whole[key] for key in ("models", "pairs", "seeds")
    }
    code, out, _ = call(monkeypatch, capfd, run, "--quick", "--quiet", "--labels", "kd=Hinton 2015")
    assert code == 0 and "Hinton 2015" in out and "Holm p" in out


def test_a_digits_run_is_probed_on_other_images(train, image_root, tmp_path) -> None:
    settings = ["data={source: digits, image_size: 16}", "methods=[kd]", "teacher.epochs=1", "training.epochs=1"]
    train(tmp_path, "--phase", "all", "--set", *settings, f"data.cache_dir={tmp_path}/cache")
    command = [sys.executable, main_eval.__file__, str(tmp_path / "tiny"), "--quiet"]
    eval_folder = tmp_path / "tiny" / "eval"
    missing = subprocess.run([*command, "--probe", "nowhere"], capture_output=True, text=True, timeout=300)
    assert missing.returncode == 2 and "--probe nowhere: no such file or folder" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1 and not eval_folder.exists()
    done = subprocess.run(
        [*command, "--probe", str(image_root)], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert len(lines) < 15 and max(map(len, lines)) <= 100
    assert f"{image_root.name}: 64 training and 32 test images of 4 classes at 16 pixels" in lines[0]
    assert [line.split()[0] for line in lines[3:5]] == ["teacher", "kd"] and "report.html" in last
    (path,) = (eval_folder / "probe").glob(f"{image_root.name}-*/probe.json")
    probe = json.loads(path.read_text())
    for model in probe["models"]:
        assert model["low"] <= model["top1"] <= model["high"] and model["top1"] > 0.5  # colours, chance 0.25
        assert model["strength"] in probe["strengths"] and len(model["held_out"]) == len(probe["strengths"])
    assert json.loads((eval_folder / "report.json").read_text())["probes"] == [probe]
    assert "64 training and 32 test images" in (eval_folder / "report.html").read_text()
    for name in ("probe", "probe_pairs"):
        assert all((eval_folder / "tables" / f"{name}.{kind}").stat().st_size for kind in ("csv", "tex"))


def test_labels_stand_on_the_page_and_must_name_a_method(
    trained, tmp_path, without_rendering, monkeypatch, capfd
) -> None:
    shutil.copy(trained[0] / "eval" / "predictions.npz", tmp_path)
    words = (tmp_path / "predictions.npz", "--labels", "two_stage=Ours", "kd=KD")
    code, out, err = call(monkeypatch, capfd, *words)
    assert (code, err) == (0, "") and "Ours" in out and "two_stage" not in out.rpartition("report: ")[0]
    assert ">Ours<" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(
        (trained[0] / "eval" / "report.json").read_text()
    )
    code, _, err = call(monkeypatch, capfd, words[0], "--labels", "dkd=DKD")
    assert code == 2 and "--labels dkd: no model is called so, there are kd, " in err
    assert "is not METHOD=LABEL" in call(monkeypatch, capfd, words[0], "--labels", "kd")[2]


def test_a_study_and_an_unfinished_run_are_not_exported(
    trained, tiny_config, tmp_path, monkeypatch, capfd
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    write_config(study / "config.yaml", load_config(tiny_config, ["study.grid=[{losses.kl.temperature: [2, 4]}]"]))
    code, _, err = call(monkeypatch, capfd, study, "--export", tmp_path / "out")
    assert code == 2 and "is a study: name one of the runs in it" in err and len(err.splitlines()) == 1
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run/seed0/kd/result.json").unlink()  # as while it trains
    code, _, err = call(monkeypatch, capfd, tmp_path / "run", "--export", tmp_path / "out", "--model", "kd")
    assert code == 2 and "has no finished kd of seed 0: it has kd/1" in err and not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_refused_first(trained, tmp_path, monkeypatch, capfd) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run, ignore=shutil.ignore_patterns("eval"))
    (run / "eval").write_text("")
    monkeypatch.setattr("diagnostics.evaluation.evaluated_models.record_models", None)  # never called
    code, _, err = call(monkeypatch, capfd, run)
    assert code == 2 and "eval is in the way and no folder" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("part", ["first entry", "largest entry", "checksum in the directory", "end"])
def test_damaged_predictions_are_named(trained, tmp_path, part, monkeypatch, capfd) -> None:
    whole = trained[0] / "eval" / "predictions.npz"
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    ends = [*(entry.header_offset for entry in entries[1:]), directory]  # of an entry's bytes
    largest = max(range(len(entries)), key=lambda number: entries[number].compress_size)
    place = {
        "first entry": ends[0] - 1 - entries[0].compress_size // 2,
        "largest entry": ends[largest] - 1 - entries[largest].compress_size // 2,
        "checksum in the directory": directory + 16,
        "end": len(content) - 10,
    }[part]
    content[place] ^= 255
    (tmp_path / "predictions.npz").write_bytes(content)
    code, out, err = call(monkeypatch, capfd, tmp_path / "predictions.npz")
    assert (code, out) == (2, "") and "predictions.npz is damaged (" in err and len(err.splitlines()) == 1


def test_recordings_survive_the_file(trained) -> None:
    recordings = read_recording(trained[0] / "eval" / "predictions.npz")
    teacher = recordings.models[0]
    assert teacher.logits.shape == (32, 4) and np.array_equal(recordings.indices, np.arange(32))
    assert [part.shape[1] for part in teacher.split_layers()] == [16, 32, 64]
    values = to_plain(teacher.meta)
    assert parse_json(META, Meta, json.dumps(values)) == teacher.meta and teacher.meta.trainings is not None
    del values["trainings"]  # as versions of before wrote it
    assert parse_json(META, Meta, json.dumps(values)).trainings is None


@pytest.fixture(scope="module")
def study(train, tmp_path_factory):
    """The folder of a study of both teachers' arms, one seed."""
    runs = tmp_path_factory.mktemp("studied")
    grid = "study.grid=[{shortcut.teacher: [biased, unbiased], shortcut.students: [biased]}]"
    hypothesis = "study.hypotheses={H1: {first: kd, second: two_stage, where: {shortcut.teacher: biased}}}"
    words = ["shortcut.cue=background", "shortcut.test_cues=3", "methods=[kd,two_stage]", grid, hypothesis]
    train(runs, "--phase", "study", "--set", *words)
    return runs / "tiny"


def test_a_study_is_reported_from_its_recordings_alone(study, tmp_path, monkeypatch, capfd) -> None:
    alone = tmp_path / "tiny"
    shutil.copytree(study, alone, ignore=shutil.ignore_patterns("*.pt", "result.json", "metrics.jsonl"))
    code, out, err = call(monkeypatch, capfd, alone)
    assert (code, err) == (0, "")
    for text in ("(1 student seed of one teacher)", "students biased: unbiased accuracy", "at least 20 points"):
        assert text in out
    assert out.splitlines()[-1] == f"files: {alone}/eval/report.html, report.json, tables/, figures/"
    code, out, _ = call(monkeypatch, capfd, alone, "--json")
    told = json.loads(out)
    assert code == 0 and told == json.loads((alone / "eval" / "report.json").read_text())
    assert told["methods"] == ["teacher", "kd", "two_stage"] and len(told["recorded"]) == 2
    assert told["missing"] == [] and told["environments"]


@pytest.mark.parametrize("words", [["--device", "cpu"], ["--export", "out"], ["--compare"]])
def test_a_study_is_no_run_and_needs_no_device(study, tmp_path, monkeypatch, capfd, words) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*words, study] if words == ["--compare"] else [study, *words]
    code, out, err = call(monkeypatch, capfd, *given)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and list(tmp_path.iterdir()) == []
    assert (
        "--device is not read together with STUDY_DIR" if "--device" in words else "is a study: name one"
    ) in err


def test_a_recording_of_another_run_is_named(study, tmp_path, monkeypatch, capfd) -> None:
    shutil.copytree(study, tmp_path / "swapped")
    first, second = sorted((tmp_path / "swapped").glob("*/seed0/cues.json"))[:2]
    for name in ("cues.json", "cues.npz"):
        shutil.copy(second.with_name(name), first.with_name(name))
    code, _, err = call(monkeypatch, capfd, tmp_path / "swapped")
    assert code == 2 and "is the recording of another run" in err
    shutil.copy(next(study.glob("*/seed0/cues.npz")), second.with_name("cues.npz"))
    shutil.copy(sorted(study.glob("*/seed0/cues.json"))[0], first)
    assert "cues.json or cues.npz is damaged" in call(monkeypatch, capfd, tmp_path / "swapped")[2]


def test_a_study_without_its_images_or_with_a_run_missing(study, tmp_path, monkeypatch, capfd) -> None:
    cut = tmp_path / "tiny"
    shutil.copytree(study, cut)
    for config in cut.glob("*/config.yaml"):
        text = config.read_text(encoding="utf-8")
        config.write_text(re.sub(r"(  root:) .*", r"\1 /nowhere", text), encoding="utf-8")
    (unbiased,) = (path for path in cut.glob("*unbiased*") if path.is_dir())
    shutil.rmtree(unbiased)
    code, _, err = call(monkeypatch, capfd, cut)
    assert (code, err) == (0, "")
    page = (cut / "eval" / "report.html").read_text(encoding="utf-8")
    assert "teacher unbiased, students biased: seed 0 was not recorded" in page
    shutil.rmtree(next(path for path in cut.glob("*-seed0")))
    code, _, err = call(monkeypatch, capfd, cut)
    assert code == 2 and "holds no recorded run yet" in err


def test_an_ordinary_run_with_a_planted_cue_says_what_its_images_are(study, monkeypatch, capfd) -> None:
    run = next(study.glob("*-seed0"))
    code, out, err = call(monkeypatch, capfd, run, "--quiet")
    assert (code, err) == (0, "") and out.count(
        "Trained with a planted cue: these are the test images without"
    ) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere"], "is no run"),
        (["--counts", "1", "2", "3", "-4"], "--counts"),
        (["--counts", "0", "0", "0", "0"], "--counts"),
        (["--teacher", "a.pt"], "go together"),
        (["nothing.npz"], "is no file of predictions"),
        (["--device", "cuda:99", "nowhere"], "cuda"),
        (
            ["nowhere", "--set", "training.epochs=1"],
            "--set is not read together with RUN_DIR, which has its own config",
        ),
        (["nowhere", "--config", "a.yaml"], "--config is not read together with RUN_DIR"),
        (["--counts", "1", "2", "3", "4", "--compare", "a"], "--compare: not allowed with argument --counts"),
        (["nowhere", "--teacher", "a.pt", "--student", "b.pt"], "not allowed with argument"),
        (["nowhere.npz", "--export", "out"], "--export is not read together with predictions.npz: leave it out"),
        (["--counts", "1", "2", "3", "4", "--quick"], "--quick is not read together with --counts: leave it out"),
        (["nowhere", "--model", "kd"], "--model is for --export"),
        (["--export", "out"], "is no run"),
        (["--set", "losses.crd.dim=8"], "--set losses.crd.dim: a run has its own config"),
        (["--export", "out", "--quantise"], "did you mean '--quantize'"),
        (["nowhere", "--quantize"], "--quantize is for --export"),
        (["nowhere", "--probe", "a", "--quick"], "--quick is not read together with --probe: leave it out"),
        (["nowhere", "--probe", "a", "--export", "out"], "--probe is not read together with --export"),
        (["nowhere.npz", "--probe", "a"], "--probe is not read together with predictions.npz"),
    ],
)
def test_wrong_input_is_one_line(words, part, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capfd, *words)
    assert (code, out) == (2, "") and part in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
