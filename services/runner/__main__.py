"""Start and stop the suite on this machine.

python -m imagesearch_services.runner up --port 50051 --data-dir .imagesearch
python -m imagesearch_services.runner status
python -m imagesearch_services.runner down
python -m imagesearch_services.runner demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from imagesearch_services.runner.processes import StartError
from imagesearch_services.runner.suite import HOST, Suite, SuiteSettings, free_ports


def up(arguments: argparse.Namespace) -> int:
    """Start the suite if it is not running. On failure, stop all its processes."""
    running = Suite.load(arguments.data_dir)
    if running is not None:
        if running.is_alive() and running.ports.gateway == arguments.port:
            running.wait_serving("gateway")
            report(f"already serving on {running.target}")
            return 0
        running.stop()
    settings = SuiteSettings(
        port=arguments.port, data_dir=arguments.data_dir, models_dir=arguments.models_dir
    )
    try:
        suite = Suite.start(settings, report)
    except StartError as error:
        report(str(error))
        return 1
    report(f"serving on {suite.target} (logs in {arguments.data_dir / 'logs'})")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Stop the suite and keep its data."""
    suite = Suite.load(arguments.data_dir)
    if suite is None:
        report("not running")
        return 0
    suite.stop()
    report("stopped")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """Start a separate suite, demonstrate it with real pictures, and stop it."""
    previous = Suite.load(arguments.data_dir)
    if previous is not None:
        previous.stop()
    (port,) = free_ports(1)
    try:
        suite = Suite.start(
            SuiteSettings(port=port, data_dir=arguments.data_dir, models_dir=arguments.models_dir),
            report,
        )
    except StartError as error:
        report(str(error))
        return 1
    command = [sys.executable, "-m", "imagesearch.demo", "--target", suite.target]
    if arguments.images is not None:
        command += ["--images", str(arguments.images)]
    try:
        return subprocess.run(command, check=False).returncode  # noqa: S603  # a program of this distribution
    except KeyboardInterrupt:
        return 130
    finally:
        suite.stop()


def status(arguments: argparse.Namespace) -> int:
    """Show the state of each process."""
    suite = Suite.load(arguments.data_dir)
    if suite is None:
        report("not running")
        return 1
    for name in suite.ORDER:
        process = suite.processes[name]
        port = suite.ports.triton_grpc if name == "triton" else getattr(suite.ports, name)
        state = "serving" if suite.is_serving(name) else "not serving"
        if not process.is_alive():
            state = "ended"
        report(f"{name:10} {state:12} pid {process.pid:<8} {HOST}:{port}")
    return 0 if all(suite.is_serving(name) for name in suite.ORDER) else 1


def report(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m imagesearch_services.runner", description="Run the suite on one machine."
    )
    commands = parser.add_subparsers(required=True)
    for command in (up, down, status, demo):
        help_text = (command.__doc__ or "").splitlines()[0]
        subparser = commands.add_parser(command.__name__, help=help_text)
        subparser.add_argument("--data-dir", type=Path, default=Path(".imagesearch"))
        subparser.set_defaults(run=command)
        if command in {up, demo}:
            subparser.add_argument("--models-dir", type=Path, default=Path(".models"))
        if command is up:
            subparser.add_argument("--port", type=int, default=50051)
        if command is demo:
            subparser.add_argument("--images", type=Path, help="folder of pictures to use")
    arguments = parser.parse_args()
    arguments.data_dir = arguments.data_dir.resolve()
    if "models_dir" in arguments:
        arguments.models_dir = arguments.models_dir.resolve()
    code: int = arguments.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
