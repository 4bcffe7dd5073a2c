"""Of docs/studies.md: its example, trained on few images for few epochs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml

import main_eval
from errors import run_command

PAGE = Path(__file__).parents[2] / "docs" / "studies.md"
CONFIGS = PAGE.parents[1] / "configs"
SMALL = (
    "teacher.epochs=1",
    "training.epochs=2",
    "teacher.cached_views=2",
    "teacher.arch=resnet8",
    "precision=float32",
)


def test_the_example_runs_and_its_report_answers(call_main, tiny_config, tmp_path, monkeypatch, capfd) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    config = tmp_path / "my_study.yaml"
    config.write_text(block, encoding="utf-8")
    images = yaml.safe_load(tiny_config.read_text(encoding="utf-8"))["data"]
    few = [f"data.{key}={value}" for key, value in images.items()]
    study = ("--phase", "study", "--config", str(config), "--set", *SMALL, *few)
    done = call_main(tmp_path, *study)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(block) == yaml.safe_load((CONFIGS / "study.yaml").read_text(encoding="utf-8"))
    counted = re.findall(r": (trained .*) in ", done.stdout)
    assert counted == ["trained 5 models"] * 3 + ["trained 4 models, copied 1 from another run"] * 3
    assert done.stdout.endswith(f"next: python main_eval.py {tmp_path / 'my_study'}\n")
    monkeypatch.setattr(sys, "argv", ["main_eval.py", str(tmp_path / "my_study")])
    assert run_command(main_eval.run) == 0
    text = capfd.readouterr().out
    report = json.loads((tmp_path / "my_study" / "eval" / "report.json").read_text(encoding="utf-8"))
    found = {(row["label"], row["method"]): row["values"] for row in report["summary"]}
    assert {label for label, _ in found} == {"slow", "fast"} and report["missing"] == []
    methods = ("teacher", "scratch", "kd", "two_stage")
    assert {method for _, method in found} == {*methods} and all(row["top1"]["n"] == 3 for row in found.values())
    stated = [(row["name"], row["label"], row["measure"]) for row in report["hypotheses"]]
    assert stated == [(name, label, "top1") for name in ("H1", "H2") for label in ("slow", "fast")]
    assert re.search(r"^H1 \(above 0 points\), .*: test accuracy of kd minus that of scratch is ", text)
    assert all(re.search(rf"^{method} +[\d.]+( ± [\d.]+)?", text, re.MULTILINE) for method in methods)
    assert (tmp_path / "my_study" / "fast-seed2" / "seed2" / "two_stage" / "stage2" / "model.pt").exists()
