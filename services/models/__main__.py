"""The command that prepares models: `python -m imagesearch_services.models prepare`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from imagesearch_services.models.fetch import PreparationError
from imagesearch_services.models.manifest import Manifest, ManifestError, read_manifest
from imagesearch_services.models.prepare import Preparation

DEPLOY_DIR = Path(__file__).resolve().parents[2] / "deploy"
COMMANDS = {
    "prepare": "fetch missing files and update the models folder",
    "verify": "compare the hash of every prepared file",
    "list": "show the pinned files and their licenses",
    "probe": "run each model on the probe picture and write the answer next to its description",
}


def main() -> int:
    options = _arguments()
    try:
        manifest = read_manifest(options.deploy_dir / "models.toml")
        preparation = Preparation(
            manifest,
            options.deploy_dir,
            options.models_dir,
            report=_print,
            repository_only=options.repository_only,
        )
        match options.command:
            case "prepare":
                preparation.prepare()
            case "verify":
                findings = preparation.verify()
                _print("\n".join(findings) or "all files are unchanged")
                return 1 if findings else 0
            case "list":
                _list(manifest)
            case "probe":
                # Imported here because it needs NumPy and ONNX Runtime, and preparation does not.
                from imagesearch_services.models.probes import write_probes  # noqa: PLC0415

                write_probes(manifest, options.deploy_dir, options.models_dir, report=_print)
    except (ManifestError, PreparationError) as error:
        _print(f"error: {error}")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m imagesearch_services.models",
        description="Prepare the models and the Triton server from the pinned manifest.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=Path(os.environ.get("IMAGESEARCH_MODELS_DIR", ".models")),
        help="folder to prepare (default: IMAGESEARCH_MODELS_DIR or .models)",
    )
    parser.add_argument(
        "--deploy-dir",
        type=Path,
        default=Path(os.environ.get("IMAGESEARCH_DEPLOY_DIR", DEPLOY_DIR)),
        help="folder of models.toml and triton/ (default: IMAGESEARCH_DEPLOY_DIR or deploy)",
    )
    parser.add_argument(
        "--repository-only",
        action="store_true",
        help="prepare only the model repository, for a Triton server in a container",
    )
    options = parser.parse_args()
    options.models_dir = options.models_dir.absolute()
    return options


def _list(manifest: Manifest) -> None:
    for model in manifest.models:
        _print(
            f"model {model.name}@{model.version}  {model.license}  sha256 {model.weights.sha256}"
        )
    for wheel in manifest.wheels:
        _print(f"wheel {wheel.package} {wheel.version}  {wheel.license}  sha256 {wheel.sha256}")
        _print(f"      {wheel.purpose}")
    _print(
        f"backend environment {manifest.backend_env.requirements}: {manifest.backend_env.license}"
    )


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
