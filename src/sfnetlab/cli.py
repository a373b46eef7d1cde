"""The command line: `sfnetlab run CONFIG`, a command a stage, `status` and `schema`.

Stages come from the table in plan.py and are imported only when one of their jobs is built.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from sfnetlab import config, runner, runtime
from sfnetlab.plan import STAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `sfnetlab` command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="sfnetlab",
        description="Sparse Feature Networks against sparse autoencoders, PCA and photometry on galaxy images.",
        epilog="Exit status: 0 done or already current, 2 something you can fix, 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"sfnetlab {version('sfnetlab')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    runner.add_flags(_command(commands, "run", "every stage in order; skips what is current, resumes what was killed"))
    for stage in STAGES.values():
        runner.add_flags(_command(commands, stage.name, stage.summary))
    runner.add_flags(_command(commands, "status", "each result: current, stale (why) or missing"), builds=False)
    _command(commands, "schema", "every setting: type, default, what it means")
    bench = _command(commands, "bench", "speeds and qualities, each against a reference in the same run")
    bench.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks (default: all but the large ones)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    arguments = parser.parse_args(argv)
    return runner.exit_status(lambda: _do(arguments), getattr(arguments, "verbosity", 0))


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=summary)


def _do(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "run":
            root, plan = runner.run(runner.options(arguments))
            print(runner.describe_results(root, plan))
        case "status":
            print(runner.describe_status(runner.options(arguments)))
        case "schema":
            print(config.describe_schema())
        case "bench":
            _bench(arguments)
        case stage:
            runner.run(runner.options(arguments), [stage])


def _bench(arguments: argparse.Namespace) -> None:
    from sfnetlab import bench

    rows = []
    for row in bench.run(arguments.names, runtime.resolve_device(arguments.device)):
        print(bench.describe(row), flush=True)
        rows.append(asdict(row))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
