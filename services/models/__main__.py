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
    "prepare": "fetch what is missing and put everything in place",
    "verify": "read every prepared file again and compare hashes",
    "list": "show what the manifest pins, under which licences",
    "probe": "run each model on the probe picture and write its answer beside its description",
}


def main() -> int:
    options = _arguments()
    try:
        manifest = read_manifest(options.deploy_dir / "models.toml")
        preparation = Preparation(
            manifest,
            options.deploy_dir,
            options.models_dir,
            report=_say,
            repository_only=options.repository_only,
        )
        match options.command:
            case "prepare":
                preparation.prepare()
            case "verify":
                findings = preparation.verify()
                _say("\n".join(findings) or "all files are as prepared")
                return 1 if findings else 0
            case "list":
                _list(manifest)
            case "probe":
                # Needs NumPy and ONNX Runtime, which preparing does not.
                from imagesearch_services.models.probes import write_probes  # noqa: PLC0415

                write_probes(manifest, options.deploy_dir, options.models_dir, report=_say)
    except (ManifestError, PreparationError) as error:
        _say(f"error: {error}")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m imagesearch_services.models",
        description="Prepares the models and the Triton server from the pinned manifest.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:8} {text}" for name, text in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=Path(os.environ.get("IMAGESEARCH_MODELS_DIR", ".models")),
        help="the folder to prepare (IMAGESEARCH_MODELS_DIR, else .models)",
    )
    parser.add_argument(
        "--deploy-dir",
        type=Path,
        default=Path(os.environ.get("IMAGESEARCH_DEPLOY_DIR", DEPLOY_DIR)),
        help="where models.toml and triton/ are (IMAGESEARCH_DEPLOY_DIR, else this source tree's)",
    )
    parser.add_argument(
        "--repository-only",
        action="store_true",
        help="only the models, for a Triton that comes in an image of its own",
    )
    options = parser.parse_args()
    options.models_dir = options.models_dir.absolute()
    return options


def _list(manifest: Manifest) -> None:
    for model in manifest.models:
        _say(f"model {model.name}@{model.version}  {model.licence}  sha256 {model.weights.sha256}")
    for wheel in manifest.wheels:
        _say(f"wheel {wheel.package} {wheel.version}  {wheel.licence}  sha256 {wheel.sha256}")
        _say(f"      {wheel.made}")
    _say(f"backend environment {manifest.backend_env.requirements}: {manifest.backend_env.licence}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
