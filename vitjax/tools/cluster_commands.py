"""Commands for clusters: doctor and launch.

This file parses their arguments; the work is in other modules.
"""

import argparse
from typing import Any


def process_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the flags by which a process is told of the others."""
    add = sub.add_argument
    add("--coordinator", default="", metavar="HOST:PORT", help="of process 0")
    add("--num_processes", type=int, default=0, metavar="N", help="how many there are")
    add("--process_id", type=int, default=-1, metavar="I", help="which this is, from 0")


def doctor(options: argparse.Namespace) -> tuple[Any, str]:
    """Show versions, processes, devices, memory, and what is wrong; then it exits with 1.

    Started as a run would be (srun vitjax doctor), it shows what the run would find. With --connect
    all processes find each other, those that do not come are named, and the first one reports.
    """
    from vitjax.tools.doctor import doctor
    from vitjax.train import processes

    o = options
    found, text = doctor(o.coordinator, o.num_processes, o.process_id, o.connect)
    o.code = 1 if found["wrong"] else 0
    if o.connect and not found["wrong"] and not processes.is_lead():
        o.json, text = False, ""
    return found, text


def doctor_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `doctor`."""
    process_arguments(sub)
    add = sub.add_argument
    add("--connect", type=int, nargs="?", const=60, default=0, metavar="SECONDS", help="connect to "
        "the other processes, and wait so long for them (60)")  # fmt: skip


def launch(options: argparse.Namespace) -> tuple[Any, str]:
    """Start a run on a cluster; with --dry-run only print the script that would.

    vitjax launch slurm --config=vit:b16_i21k --workdir=/scratch/b16 --set nodes=4 gpus=8

    What --set takes differs by kind; what is missing is named. Exit code 75 (saved) means "start
    again" to all of them. docs/pods.md goes through them.
    """
    from vitjax.models import model_options
    from vitjax.tasks import task_config
    from vitjax.tools.launch import Run, fill, parse_settings, submit
    from vitjax.train.config import load_config

    o = options
    if bool(o.config) == bool(o.sweep):
        raise ValueError("launch takes --config=FILE, or --sweep=FILE for slurm-array.")
    if o.config:  # a mistake is told before anything waits in a queue
        load_config(o.config, o.fields, model_options, task_config)
    text = fill(o.kind, Run(o.config, o.fields, o.workdir, o.sweep), parse_settings(o.set))
    if o.dry_run:
        return {"kind": o.kind, "text": text}, text.rstrip("\n")
    o.code = submit(o.kind, text)
    return {"kind": o.kind, "code": o.code}, ""


def launch_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `launch`."""
    add = sub.add_argument
    add(
        "kind",
        help="slurm, slurm-array, jobset-gpu, jobset-tpu, tpu-vm, queued-resources, xpk, sky",
    )
    add(
        "--config",
        default="",
        metavar="FILE[:ARGUMENT]",
        help="the run, as `vitjax train` takes it",
    )
    add("--workdir", default="", help="the run's folder, as the hosts see it")
    add("--sweep", default="", metavar="FILE", help="a sweep, of which each element runs a cell")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="what the kind asks for")
    add("--dry-run", action="store_true", help="print the script, start nothing")
