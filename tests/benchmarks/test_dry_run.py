from __future__ import annotations

from benchmarks import dry_run


def test_estimates_stand_beside_what_a_run_takes(tiny_config, capsys) -> None:
    dry_run.main(["--config", str(tiny_config), "--set", "baselines.methods=[crd]", "--seconds", "1"])
    head, *jobs, both, took = capsys.readouterr().out.splitlines()
    assert head.split() == ["job", "estimated", "real", "ratio", "memory", "real", "ratio", "disk", "real"]
    assert [line.split()[0] for line in jobs] == ["teacher", "stage1", "stage2", "crd"]
    assert both.split()[0] == "all" and took.startswith("the estimates took")
    assert all(float(line.split()[-5]) > 0 for line in jobs)  # the ratio of memories
