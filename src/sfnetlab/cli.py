"""The command line: `sfnetlab run CONFIG`, a command a stage, `status`, `schema`, `bench`, and data in and out.

Stages come from the table in plan.py and are imported only when one of their jobs is built.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from sfnetlab import config, download, runner, runtime
from sfnetlab.files import path_argument
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
        runner.add_flags(_command(commands, stage.name, stage.summary), splits=stage.splits)
    status = _command(commands, "status", "each result: current, running (how far), stale (why) or missing")
    runner.add_flags(status, builds=False)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, times in seconds")
    form.add_argument("--watch", action="store_true", help="again and again until all is current")
    status.add_argument(
        "--workers", default="", metavar="N,...", dest="forecast", help="how long so many workers take, such as 1,8,64"
    )
    status.add_argument("--like", type=path_argument, metavar="DIR", help="times of an experiment that is done, scaled")
    _command(commands, "schema", "every setting: type, default, what it means")
    download.add_flags(_command(commands, "download", "a real survey: its catalogue and cutouts; goes on where it was"))
    _add_export_flags(_command(commands, "export", "tables for TOPCAT, SAEs for SAELens, cutouts for Zoobot"))
    _add_cross_match_flags(_command(commands, "cross-match", "the galaxies of two catalogues, by id or by position"))
    bench = _command(commands, "bench", "speeds and qualities, each against a reference in the same run")
    bench.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks (default: all but the large ones)")
    bench.add_argument("--json", type=path_argument, metavar="FILE", help="write the rows as JSON too")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    bench.add_argument(
        "--embeddings",
        type=path_argument,
        metavar="PATH",
        help="what sae-peers decomposes: a .npy file (n, d), or the folder of an embedding in results/",
    )
    words = sys.argv[1:] if argv is None else list(argv)
    if words and not words[0].startswith("-") and words[0] not in commands.choices:
        near = difflib.get_close_matches(words[0], commands.choices, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(commands.choices)}"
        parser.error(f"unknown command {words[0]!r}, {advice}")
    arguments = runner.parsed(parser, words)
    # Benchmarks have the cores for themselves, and their references run as torch's users run them.
    shares_cores = arguments.command != "bench"
    return runner.exit_status(lambda: _do(arguments), getattr(arguments, "verbosity", 0), shares_cores=shares_cores)


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=summary)


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    runner.add_flags(parser, builds=False)
    parser.add_argument("--to", type=path_argument, required=True, metavar="DIR", help="a folder to make")
    formats = ("parquet", "csv", "fits", "hats")
    parser.add_argument(
        "--format",
        choices=formats,
        default="parquet",
        help="of tables (default: parquet); hats: parquet, with HATS catalogues for LSDB",
    )
    parser.add_argument(
        "--tables", nargs="+", default=[], metavar="NAME", help="only these [[features]] or feature tables"
    )
    parser.add_argument("--wide", action="store_true", help="sparse tables with a column for each feature in use")
    parser.add_argument("--cutouts", choices=("jpg", "png"), help="write cutouts, and a catalogue of them for Zoobot")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")


def _add_cross_match_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("left", type=path_argument, metavar="LEFT", help="a catalogue: FITS, CSV, VOTable, parquet ...")
    parser.add_argument("right", type=path_argument, metavar="RIGHT", help="another catalogue")
    parser.add_argument(
        "--radius-arcsec", type=float, metavar="R", help="match each other's nearest within R; without it, equal ids"
    )
    parser.add_argument(
        "--on",
        default="id_str",
        metavar="LEFT[=RIGHT]",
        help="columns of ids, with '=' between where they differ (default: id_str)",
    )
    parser.add_argument(
        "--to", type=path_argument, required=True, metavar="FILE", help="the pairs: .csv, .parquet or .fits"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE")


def _do(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "run":
            root, plan = runner.run(runner.options(arguments))
            runtime.say(runner.describe_results(root, plan))
        case "status":
            workers = tuple(runner.n_workers(number) for number in arguments.forecast.split(",") if arguments.forecast)
            forecast = runner.Forecast(workers, arguments.like)
            if arguments.watch:
                runner.watch_status(runner.options(arguments), forecast)
            else:
                runtime.say(runner.describe_status(runner.options(arguments), forecast, as_json=arguments.json))
        case "schema":
            runtime.say(config.describe_schema())
        case "export":
            from sfnetlab.exporting import export_command

            runtime.say(export_command(arguments))
        case "cross-match":
            from sfnetlab.exporting.crossmatch import cross_match_command

            runtime.say(cross_match_command(arguments))
        case "download":
            runtime.say(download.download(arguments))
        case "bench":
            _bench(arguments)
        case stage:
            runner.run(runner.options(arguments), [stage])


def _bench(arguments: argparse.Namespace) -> None:
    from sfnetlab import bench

    runtime.keep_caches()
    rows = []
    device = runtime.resolve_device(arguments.device)
    for row in bench.run(arguments.names, device, arguments.embeddings):
        runtime.say(bench.describe(row))
        rows.append(asdict(row))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
