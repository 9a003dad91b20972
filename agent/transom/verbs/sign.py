"""`transom sign`: signs a model, so that agents that trust the key run it. Model and key in, MODEL.minisig out."""

import argparse
import time
from pathlib import Path

from transom.errors import TransomError
from transom.runtimes import choice, files, minisign, trust
from transom.runtimes.minisign import SecretKey
from transom.verbs import passwords
from transom.verbs.keygen import default_key

EXAMPLES = """\
transom sign pump.pt                               with the key that transom keygen made; asks for its password
transom sign pump.pt --key keys/plant.key --comment "trained on May, checked by Ada"
transom sign *.pt --key ci.key --password-file FILE"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="+", type=Path, metavar="MODEL", help="a model file")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the secret key (default: where keygen puts it)")
    parser.add_argument("--comment", default="", help="a line that is signed with the model and shown where it runs")
    passwords.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Refuses to sign what an agent would refuse to read: archive, manifest and code are checked first."""
    opened = [choice.open_file(model) for model in args.model]
    key = secret_key(args)
    for each in opened:
        data, _ = files.read_verified(each.path, each.sha256)
        parts = [
            f"timestamp:{int(time.time())}",
            f"file:{each.path.name}",
            f"model:{each.manifest.label}",
            args.comment,
        ]
        text = minisign.sign(data, key, " ".join(filter(None, parts)))
        beside = trust.signature_path(each.path)
        files.write_whole(beside, text.encode())
        print(f"{beside}: {each.manifest.label} signed with the key {key.public.name}")
    return 0


def secret_key(args: argparse.Namespace) -> SecretKey:
    file = args.key or default_key()
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        raise TransomError(str(file), "there is no such key", "make one: transom keygen; or name it: --key") from None
    password = passwords.asked(args, f"password of {file}") if minisign.encrypted(text, str(file)) else ""
    return minisign.read_secret(text, password, str(file))
