"""Feeds a reader of foreign bytes with what reaches more and more of its code (libFuzzer, by atheris), until it
fails or the time is over. Begins with the inputs kept in tests/fuzzing/corpus; --keep writes back the fewest that reach
as much.

What makes a reader fail is left in build/fuzz/TARGET.found/ and repeated with --input FILE.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import corpus

NAMES = ("topic", "payload", "wire", "model", "recording", "configuration")
ROOT = Path(__file__).parent.parent
TIMEOUT, MEMORY = 10, 4096  # seconds and MiB of one input beyond which it is a finding
WORDS = {  # what the readers look for and bytes seldom are; dictionaries of libFuzzer
    "topic": ["{channel}", "{site}", "/#", "/+", "$share/", "$SYS", "/"],
    "payload": ['"value":', '"time":', '"v":', "2026-11-25T04:00:00", "nan", "1e400", "true", "null", "[[", "\\xc0"],
    "wire": ["\\x30", "\\x32", "\\xff\\xff\\xff\\x7f", "\\x00\\x01a\\x00"],
    "model": ['"task":', '"anomaly"', '"forecast"', '"channels":', '"calibration":', "PK\\x03\\x04", "PK\\x01\\x02",
              "untrusted comment: ", "trusted comment: "],
    "recording": ['{"time":', '"topic":', '"payload":', '"base64":', '"event":', '"gap"', "time,", "2026-11-25",
                  '"\\x0a'],
    "configuration": ["[streams.a]\\x0a", "topic = ", "[broker]", "model = ", "step = ", "[streams.a.channels.b]",
                      "false_alarms = ", "raise_after = ", "timezone = ", "'", '"', "= ["],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=600, help="how long (default: 600)")
    parser.add_argument("--keep", action="store_true", help="write tests/fuzzing/corpus/TARGET.txt anew afterwards")
    parser.add_argument("--input", type=Path, help="try this file only")
    args = parser.parse_args()
    if args.input is not None:
        import targets

        targets.TARGETS[args.target](args.input.read_bytes())
        print("no failure")
        return 0
    folder = ROOT / "build" / "fuzz" / args.target
    found = folder.with_suffix(".found")
    for made in (folder, found):
        made.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(corpus.read(args.target)):
        (folder / f"kept-{i}").write_bytes(data)
    words = folder.with_suffix(".dict")
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS[args.target]))
    status = _inside(
        args.target, f"-max_total_time={args.seconds}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY}",
        f"-max_len={corpus.LARGEST}", f"-artifact_prefix={found}/", f"-dict={words}", "-print_final_stats=1",
        str(folder),
    )  # fmt: skip
    if args.keep:
        fewest = folder.with_suffix(".fewest")
        fewest.mkdir(exist_ok=True)
        for old in fewest.iterdir():
            old.unlink()
        status = _inside(args.target, "-merge=1", f"-max_len={corpus.LARGEST}", str(fewest), str(folder)) or status
        if not any(fewest.iterdir()):
            print("the inputs could not be merged: those that are kept stay as they are", file=sys.stderr)
            return 1
        print(f"{corpus.write(args.target, [p.read_bytes() for p in fewest.iterdir()])} inputs kept")
    return status


def _quoted(word: str) -> str:
    return word.replace('"', '\\"')


def _inside(target: str, *flags: str) -> int:
    """A process of its own: libFuzzer ends the one it runs in."""
    return subprocess.run([sys.executable, __file__, "--inside", target, *flags], check=False).returncode


def fuzz(target: str, flags: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["transom", "tomllib", "cbor2", "zipfile", "csv"]):
        import targets
    one = targets.TARGETS[target]
    # A merge runs this program again, by a shell: its name is the whole command.
    atheris.Setup([shlex.join([sys.executable, __file__, "--inside", target]), *flags], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
