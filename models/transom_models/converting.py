"""`transom convert`: a TorchScript model to its twin on ONNX Runtime. Arguments in, a file and the proof's figure out.

torch is imported when the work begins, not for --help or a mistyped argument.
"""

import argparse
from pathlib import Path

from rich.console import Console

from transom.errors import ModelError
from transom.runtimes import choice, files, onnx

EXAMPLES = """\
transom convert pump.pt                          writes pump.onnx beside it
transom convert pump.pt --output /srv/pump.onnx"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a TorchScript model file, or the name of a shipped model")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the ONNX file to write (default: MODEL.onnx beside the model)"
    )


def run(args: argparse.Namespace) -> int:
    """0. Raises ModelError for a model that is refused, cannot be written as ONNX or would give other numbers."""
    choice.need_torch("convert")
    source = files.find_model(args.model, Path())
    if source.suffix == onnx.SUFFIX:
        raise ModelError(str(source), "is an ONNX file already", "name the .pt that it is made from")
    output: Path = args.output or source.with_suffix(onnx.SUFFIX)
    if output.suffix != onnx.SUFFIX:
        raise ModelError("--output", f"{str(output)!r} does not end in .onnx", f"write {output.stem}.onnx")
    if not output.absolute().parent.is_dir():
        raise ModelError("--output", f"there is no folder {str(output.parent)!r}", f"make it: mkdir -p {output.parent}")
    with Console(stderr=True).status(f"converting {source.name}"):  # shown on a terminal only
        from transom_models import twin

        manifest, worst = twin.make(source, output)
    print(
        f"{output}: {manifest.label} for ONNX Runtime, {output.stat().st_size / 1000:.0f} kB; "
        f"differs from {source.name} by {worst:.1e} at most"
    )
    return 0
