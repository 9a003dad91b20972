"""`transom keygen`: a pair of keys to sign models with. Writes two files and shows the line for the configuration."""

import argparse
import os
from pathlib import Path

from transom.errors import TransomError
from transom.runtimes import minisign
from transom.verbs import passwords

EXAMPLES = """\
transom keygen                                     asks for a password; ~/.config/transom/model.key and model.pub
transom keygen --output keys/plant                 keys/plant.key, which stays with you, and keys/plant.pub
transom keygen --no-password --output ci           for a machine that signs by itself
transom keygen --password-file FILE --output ci"""


def default_key() -> Path:
    """Where keygen puts the secret key and sign looks for it."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(home) if Path(home).is_absolute() else Path.home() / ".config"
    return folder / "transom" / "model.key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="NAME", help="NAME.key and NAME.pub are written, never replaced")
    passwords.add_arguments(parser)
    parser.add_argument("--no-password", action="store_true", help="do not encrypt the secret key")


def run(args: argparse.Namespace) -> int:
    base = args.output or default_key().with_suffix("")
    secret, public = base.with_name(f"{base.name}.key"), base.with_name(f"{base.name}.pub")
    for file in (secret, public):
        if file.exists():
            raise TransomError(str(file), "exists already", "choose another name: --output NAME")
    password = "" if args.no_password else passwords.asked(args, "password for the new key", twice=True)
    key = minisign.generate()
    if args.output is None:
        base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _create(secret, minisign.write_secret(key, password), 0o600)
    _create(public, minisign.write_public(key.public), 0o644)
    print(f"secret key  {secret}{'' if password else ' (NOT encrypted)'}: keep it away from the gateways, with a copy")
    print(f"public key  {public}, {key.public.name}; for the agent's configuration:")
    print(f'\n[models]\ntrusted_keys = ["{key.public.text}"]')
    return 0


def _create(file: Path, text: str, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(handle, "w", encoding="ascii") as opened:  # noqa: PTH123
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
