"""The password of a secret key: from a file, or asked for on the terminal. An argument could be read by others."""

import argparse
import getpass
import sys
from pathlib import Path

from transom.errors import TransomError

LARGEST = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="read the key's password from this file")


def asked(args: argparse.Namespace, what: str, *, twice: bool = False) -> str:
    """One line without its end. Raises TransomError where there is neither a file nor a terminal."""
    if args.password_file is not None:
        text = args.password_file.read_text("utf-8")[:LARGEST].rstrip("\r\n")
        if not text:
            raise TransomError(str(args.password_file), "holds no password", "write one, or use --no-password")
        return str(text)
    if not sys.stdin.isatty():
        remedy = "give --password-file FILE" + (" or --no-password" if twice else "")
        raise TransomError("password", "cannot be asked for: there is no terminal", remedy)
    text = getpass.getpass(f"{what}: ")
    if twice and not text:
        raise TransomError("password", "is empty", "type one, or use --no-password for a key without")
    if twice and getpass.getpass(f"{what}, again: ") != text:
        raise TransomError("password", "the two differ", "try again")
    return text
