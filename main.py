"""Train a teacher, distil it into a student in two stages, and train the end-to-end baselines.

python main.py --phase all
"""

from __future__ import annotations

from errors import UserError, exit_immediately, exit_on_signal, handle_signals, run_command, warn

if __name__ == "__main__":  # Ctrl-C while modules are imported is no traceback
    handle_signals(exit_immediately)

import argparse
import shlex
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from settings.command_line import CommandLine, match_word, read_folder, read_path
from settings.loss_options import check_names, fill_losses
from settings.own_code import allow_code, has_imported_code, reset_permission
from settings.reading import DEFAULT_CONFIG, format_options, list_unused, load_config
from settings.schema import Config
from training.job_name import PHASES

if TYPE_CHECKING:  # torch and what stands on it take seconds to import: functions do so once they need it
    import torch

    from models.machine import Machine
    from training.experiment import Experiment


def parse_arguments() -> argparse.Namespace:
    """Return the arguments, refused where they do not go together."""
    parser = CommandLine(__doc__)
    add, words = parser.add_argument, (*PHASES, "study")
    phase = "what to train; all does what is missing, in order; study runs all of a grid"
    add("--phase", type=match_word(*words), metavar=f"{{{','.join(words)}}}", help=phase)
    add("--config", type=read_path, default=DEFAULT_CONFIG, help="YAML file (default: configs/digits.yaml)")
    override = "override any field, for example losses.crd.temperature=0.07"
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help=override)
    add("--methods", nargs="+", default=[], metavar="METHOD", help="train these alone, with what they need")
    add("--seeds", type=int, nargs="+", help="training seeds of the student side")
    add("--output-dir", type=read_folder, default=Path("runs"), help="parent of run folders")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue an interrupted run")
    existing.add_argument("--fresh", action="store_true", help="remove this phase's results and start over")
    add("--shard", metavar="I/N", help="this machine's part of a study, for example 2/8")
    add("--dry-run", action="store_true", help="show config and plan, train nothing")
    add("--quiet", action="store_true", help="no progress, only the result of each phase")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--help-config", action="store_true", help="list every config field and exit")
    arguments, _ = parser.read()
    if not arguments.phase and not arguments.help_config:
        raise UserError(f"--phase is missing: one of {', '.join(words)}")
    if arguments.shard and arguments.phase != "study":
        raise UserError("--shard is for --phase study")
    if any("," in name for name in arguments.methods):
        raise UserError("--methods: separate the names with spaces, for example --methods kd two_stage")
    if arguments.methods and arguments.phase in ("study", "teacher"):
        raise UserError(f"--methods is for phases that train students, not for {arguments.phase}")
    if arguments.fresh and arguments.phase == "study":
        raise UserError("--fresh: a study continues with what it finds, remove its folder to start over")
    if arguments.seeds is not None and any(word.partition("=")[0] == "seeds" for word in arguments.set):
        raise UserError("--seeds and --set seeds set the same option: keep one of them")
    return arguments


def run() -> None:
    arguments = parse_arguments()
    if arguments.help_config:
        print(format_options())
        return
    overrides = list_overrides(arguments)
    reset_permission()
    allow_code(load_config(arguments.config, overrides, check_names))  # refused before the imports
    with exit_on_signal():  # slow imports, before anything is begun
        config = load_config(arguments.config, overrides, fill_losses)
        from models.machine import choose_device, open_machine
        from training.distributed import process_group

        import_module("study.run" if arguments.phase == "study" else "training.phases")
    with process_group(choose_device(arguments.device)) as device:
        machine = replace(
            open_machine(config.precision, device, arguments.quiet),
            sync_batch_norm=uses_shared_statistics(config, device),
            compile=config.compile,
            capture=config.cuda_graphs and has_cuda_graphs(device),
        )
        if config.compile:
            from models.compiling import check_compiler

            check_compiler(device)
        if arguments.phase == "study":
            from study.run import run_study_phase

            warn_unused(config, arguments)
            run_study_phase(config, arguments.output_dir, machine, arguments.shard, arguments.dry_run)
        else:
            run_phase(config, machine, arguments)


def list_overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the KEY=VALUE of each argument that sets one, by what the user wrote."""
    overrides = {f"--set {word}": word for word in arguments.set}
    if arguments.seeds is not None:
        overrides["--seeds"] = f"seeds={arguments.seeds}"
    for name in arguments.methods:  # a shipped one may be new to the config
        overrides[f"--methods {name}"] = f"methods.{name}={{}}"
    return overrides


def warn_unused(config: Config, arguments: argparse.Namespace) -> None:
    """Warn about options from the user that no training reads."""
    for line in list_unused(config, arguments.config, list_overrides(arguments), arguments.methods):
        warn(line)


def has_cuda_graphs(device: torch.device) -> bool:
    """Return whether this process can use CUDA graphs; if not, warn with the reason."""
    from training.distributed import world_size

    if device.type != "cuda":
        warn("cuda_graphs=true is ignored: it needs a GPU")
    elif world_size() > 1:
        warn("cuda_graphs=true is ignored: several processes average gradients layer by layer")
    return device.type == "cuda" and world_size() == 1


def uses_shared_statistics(config: Config, device: torch.device) -> bool:
    """Return whether batch norm takes its statistics over all processes.

    Raises:
        UserError: several processes on CPUs, for which torch has no such batch norm.
    """
    from training.distributed import world_size

    if config.sync_batch_norm and world_size() > 1 and device.type != "cuda":
        raise UserError("sync_batch_norm=true: torch has it for GPUs alone, use false on CPUs")
    return config.sync_batch_norm and world_size() > 1


def run_phase(config: Config, machine: Machine, arguments: argparse.Namespace) -> None:
    """Train the jobs of a phase, or print them."""
    from dataset.sources import load_source
    from training.checks import check_phase
    from training.distributed import is_restarted, print_rank0
    from training.experiment import open_experiment
    from training.phases import list_phase_jobs, run_jobs
    from training.plan import describe_command, describe_weak_teacher, show_plan
    from training.run.prepare import prepare_run_dir
    from training.run.run_folder import RunFolder
    from training.run.run_lock import lock_run

    folder = RunFolder(arguments.output_dir / config.name)
    experiment = open_experiment(config, folder, machine, load_source(config.data, arguments.dry_run))
    jobs = list_phase_jobs(arguments.phase, config, folder, arguments.methods)
    check_phase(arguments.phase, experiment, jobs, arguments.fresh and not is_restarted())
    warn_unused(config, arguments)
    if arguments.dry_run:
        show_plan(jobs, experiment, fresh=arguments.fresh, resume=arguments.resume)
        return
    with lock_run(experiment.folder.path):
        again = is_restarted()  # torchrun began with what the person asked for, and goes on from there
        fresh, resume = arguments.fresh and not again, arguments.resume or again
        names = [job.name for job in jobs]
        prepare_run_dir(experiment.folder, config, experiment.data, fresh=fresh, resume=resume, jobs=names)
        if not machine.quiet:
            print_rank0("\n".join(describe_command(jobs, experiment)))
        run_jobs(jobs, experiment)
    if weak := describe_weak_teacher(experiment):
        print_rank0(weak)
    print_rank0(suggest_next_command(arguments, experiment))


def suggest_next_command(arguments: argparse.Namespace, experiment: Experiment) -> str:
    """Return the command that follows this phase."""
    from training.phases import find_next_phase

    phase = find_next_phase(arguments.phase, experiment.config)
    if phase is None:
        allowed = " --allow-code" if has_imported_code() else ""
        return f"next: python main_eval.py {experiment.folder.path}{allowed}"
    shipped = arguments.config == DEFAULT_CONFIG
    given = [] if shipped else [f"--config {arguments.config}"]
    given += [f"--set {shlex.join(arguments.set)}"] if arguments.set else []
    given += [f"--methods {' '.join(arguments.methods)}"] if arguments.methods else []
    given += [f"--seeds {' '.join(map(str, arguments.seeds))}"] if arguments.seeds else []
    given += [f"--output-dir {arguments.output_dir}"] if arguments.output_dir != Path("runs") else []
    return " ".join(["next: python main.py --phase", phase, *given])


if __name__ == "__main__":
    sys.exit(run_command(run))
