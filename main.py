"""Train a teacher, distil it into a student in two stages, and train the end-to-end baselines.

python main.py --phase all
"""

from __future__ import annotations

from errors import UserError, end_at_once, ending_at_once, exit_code, handle_signals, warn

if __name__ == "__main__":  # Ctrl-C while modules are imported is no traceback
    handle_signals(end_at_once)

import argparse
import shlex
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from settings.command_line import CommandLine, one_of, read_folder, read_path
from settings.reading import DEFAULT_CONFIG, config_table, load_config
from settings.schema import Config
from training.job_name import PHASES

if TYPE_CHECKING:  # torch and what stands on it take seconds to import: functions do so once they need it
    import torch

    from models.machine import Machine
    from training.experiment import Experiment


def parse_arguments() -> argparse.Namespace:
    parser = CommandLine(__doc__)
    parser.add_argument(
        "--phase",
        type=one_of(*PHASES, "study"),
        metavar=f"{{{','.join(PHASES)},study}}",
        help="what to train; all does what is missing, in order; study runs all of a grid",
    )
    parser.add_argument(
        "--config", type=read_path, default=DEFAULT_CONFIG, help="YAML file (default: configs/digits.yaml)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        action="extend",
        help="override any field, for example losses.crd.temperature=0.07",
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="train these methods alone, with what they need"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds of the student side")
    parser.add_argument("--output-dir", type=read_folder, default=Path("runs"), help="where run folders go")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with what was interrupted")
    existing.add_argument("--fresh", action="store_true", help="remove what this phase left and start it over")
    parser.add_argument("--shard", metavar="I/N", help="this machine's part of a study, for example 2/8")
    parser.add_argument("--dry-run", action="store_true", help="show config and plan, train nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress, only what each phase reached")
    parser.add_argument("--debug", action="store_true", help="with a refusal, show where it came from")
    parser.add_argument("--help-config", action="store_true", help="list every config field and exit")
    arguments, _ = parser.read()
    if not arguments.phase and not arguments.help_config:
        raise UserError(f"--phase is missing: one of {', '.join(PHASES)}, study")
    if arguments.shard and arguments.phase != "study":
        raise UserError("--shard is for --phase study")
    if any("," in name for name in arguments.methods or ()):
        raise UserError("--methods: separate the names with spaces, for example --methods kd two_stage")
    if arguments.methods and arguments.phase in ("study", "teacher"):
        raise UserError(f"--methods is for phases that train students, not for {arguments.phase}")
    if arguments.fresh and arguments.phase == "study":
        raise UserError("--fresh: a study goes on with what it finds, remove its folder to start over")
    if arguments.seeds is not None and any(word.partition("=")[0] == "seeds" for word in arguments.set):
        raise UserError("--seeds and --set seeds give the same: keep one of them")
    return arguments


def run() -> None:
    arguments = parse_arguments()
    if arguments.help_config:
        print(config_table())
        return
    seeds = [] if arguments.seeds is None else [f"seeds={arguments.seeds}"]
    methods = [
        f"methods.{name}={{}}" for name in arguments.methods or ()
    ]  # a shipped one may be new to the config
    config = load_config(arguments.config, [*arguments.set, *seeds, *methods])
    with ending_at_once():  # all that takes seconds, before anything is begun
        from models.machine import choose_device, open_machine
        from settings.loss_options import complete_losses
        from training.distributed import process_group

        config = complete_losses(config)
        import_module("study.run" if arguments.phase == "study" else "training.phases")
    with process_group(choose_device(arguments.device)) as device:
        machine = open_machine(config.precision, device, arguments.quiet)
        machine = replace(
            machine,
            sync_batch_norm=shares_statistics(config, device),
            compile=config.compile,
            capture=config.capture and can_capture(device),
        )
        if config.compile:
            from models.compiling import check_compiler

            check_compiler(device)
        if arguments.phase == "study":
            from study.run import study_phase

            study_phase(config, arguments.output_dir, machine, arguments.shard, arguments.dry_run)
        else:
            run_phase(config, machine, arguments)


def can_capture(device: torch.device) -> bool:
    """Whether passes can be captured where this process computes; if not, a word says why."""
    from training.distributed import world_size

    if device.type != "cuda":
        warn("capture=true counts for nothing: it is for GPUs")
    elif world_size() > 1:
        warn("capture=true counts for nothing: gradients of several processes are averaged layer by layer")
    return device.type == "cuda" and world_size() == 1


def shares_statistics(config: Config, device: torch.device) -> bool:
    """Whether batch norm takes its statistics over all processes; of one process they are those anyway.

    Raises:
        UserError: several processes on CPUs, for which torch has no such batch norm.
    """
    from training.distributed import world_size

    if config.sync_batch_norm and world_size() > 1 and device.type != "cuda":
        raise UserError("sync_batch_norm=true: torch has it for GPUs alone, use false on CPUs")
    return config.sync_batch_norm and world_size() > 1


def run_phase(config: Config, machine: Machine, arguments: argparse.Namespace) -> None:
    """Train what a phase consists of, or say what it would be."""
    from training.checks import check
    from training.distributed import restarted, say
    from training.experiment import open_experiment
    from training.phases import jobs_of, run_jobs
    from training.plan import describe_command, describe_weak_teacher, show_plan
    from training.run.claim import claim
    from training.run.run_folder import RunFolder
    from training.run.run_lock import writing_in

    folder = RunFolder(arguments.output_dir / config.name)
    experiment = open_experiment(config, folder, machine)
    jobs = jobs_of(arguments.phase, config, folder, arguments.methods or ())
    check(arguments.phase, experiment, jobs, arguments.fresh and not restarted())
    if arguments.dry_run:
        show_plan(jobs, experiment, fresh=arguments.fresh, resume=arguments.resume)
        return
    with writing_in(experiment.folder.path):
        again = restarted()  # torchrun began with what the person asked for, and goes on from there
        fresh, resume = arguments.fresh and not again, arguments.resume or again
        names = [job.name for job in jobs]
        claim(experiment.folder, config, experiment.data, fresh=fresh, resume=resume, jobs=names)
        if not machine.quiet:
            say("\n".join(describe_command(jobs, experiment)))
        run_jobs(jobs, experiment)
    if weak := describe_weak_teacher(experiment):
        say(weak)
    say(next_command(arguments, experiment))


def next_command(arguments: argparse.Namespace, experiment: Experiment) -> str:
    """What to type after this phase."""
    from training.phases import next_phase

    phase = next_phase(arguments.phase, experiment.config)
    if phase is None:
        return f"next: python main_eval.py {experiment.folder.path}"
    shipped = arguments.config == DEFAULT_CONFIG
    given = [] if shipped else [f"--config {arguments.config}"]
    given += [f"--set {shlex.join(arguments.set)}"] if arguments.set else []
    given += [f"--methods {' '.join(arguments.methods)}"] if arguments.methods else []
    given += [f"--seeds {' '.join(map(str, arguments.seeds))}"] if arguments.seeds else []
    given += [f"--output-dir {arguments.output_dir}"] if arguments.output_dir != Path("runs") else []
    return " ".join(["next: python main.py --phase", phase, *given])


if __name__ == "__main__":
    sys.exit(exit_code(run))
