"""A model file's bytes to its members by name, and back. Neither torch nor a disk is touched, and nothing is run.

Damaged, foreign and oversized archives are refused with a reason; what was unpacked agrees with its checksums.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Mapping

from transom.errors import ModelError
from transom.runtimes.files import AGAIN, FOREIGN

MAX_UNPACKED = 512 << 20  # bytes of all members together
MAX_RATIO = 200  # a member's size over its packed size; compiled source reaches 30
MAX_MEMBERS = 20_000

MANIFEST = "extra/manifest.json"

_MEMBER = re.compile(
    r"code/__torch__(/\w+)*\.py|data\.pkl|constants\.pkl|data/\d+|constants/\d+|(\.data/)?version|byteorder|\.format_version"
    r"|\.storage_alignment|" + re.escape(MANIFEST)
)
_CHANGES = re.compile(r"\.data/serialization_id")  # written by torch, different at each save, read by nobody
_DEBUG = re.compile(r"code/.*\.debug_pkl")  # where the source stood on the machine that compiled it

_CONSTANTS = re.compile(rb"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)


def unpack(data: bytes, place: str) -> dict[str, bytes]:
    """The members by their names without the archive's top folder, sorted.

    Raises ModelError (at `place`) for bytes that are no archive, are damaged, would unpack to too much, or hold a
    member that no model file has.
    """
    try:
        _refuse_foreign(data, place)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _refuse_unsafe(entries, place)
            members = {_inner_name(e.filename, place): archive.read(e) for e in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise ModelError(place, f"the archive is damaged ({error})", AGAIN) from error
    if not any(name.startswith("code/") for name in members):
        what = "a checkpoint of weights written by torch.save" if "data.pkl" in members else "a zip archive"
        raise ModelError(place, f"{what}, not a compiled model", FOREIGN)
    return dict(sorted(members.items()))


def pack(members: Mapping[str, bytes]) -> bytes:
    """An archive that torch.jit.load reads; the same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(members.items()):
            info = zipfile.ZipInfo(f"model/{name}")  # dated 1980: no clock gets into the file
            info.compress_type = zipfile.ZIP_DEFLATED if name.startswith("code/") else zipfile.ZIP_STORED
            archive.writestr(info, data)
    return buffer.getvalue()


def keep(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members that belong into a model file: without torch's number of the save and its debug tables.

    torch writes a class's constants in the order of a Python set, another one in each process; here they are sorted,
    so that the same training gives the same file.
    """
    kept = {n: d for n, d in members.items() if not (_CHANGES.fullmatch(n) or _DEBUG.fullmatch(n))}
    return {n: _CONSTANTS.sub(_sorted_lines, d) if n.startswith("code/") else d for n, d in kept.items()}


def _sorted_lines(found: re.Match[bytes]) -> bytes:
    return b"".join(sorted(found[0].splitlines(keepends=True)))


def refuse_unknown(members: Mapping[str, bytes], place: str) -> None:
    """Raises ModelError for a member that torch might read and the scan would not."""
    for name in members:
        if not _MEMBER.fullmatch(name):
            raise ModelError(place, f"the archive holds {name!r}, which no model file has", FOREIGN)


def content_sha256(members: Mapping[str, bytes]) -> str:
    """SHA-256, as hex, over name, NUL, length in 8 bytes (little-endian) and bytes of each member, sorted by name.

    The manifest, which carries this digest, and the number that torch gives each save are left out.
    """
    digest = hashlib.sha256()
    for name, data in sorted(members.items()):
        if name != MANIFEST and not _CHANGES.fullmatch(name):
            digest.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _refuse_foreign(data: bytes, place: str) -> None:
    if not data:
        raise ModelError(place, "the file is empty", AGAIN)
    if data.startswith(b"PK\3\4"):
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise ModelError(
                place, f"the archive is cut off after {len(data):,} bytes: its directory is missing", AGAIN
            )
        return
    if data[:1] == b"\x80":
        what = "a Python pickle (an old torch.save), which could run anything when it is opened"
    elif data.startswith(b"version https://git-lfs"):
        raise ModelError(place, "a pointer to a file in Git LFS, not the file itself", "run `git lfs pull`")
    elif data.startswith(b"\x08") and b"pytorch" in data[:64]:
        what = "an ONNX file"
    elif not any(data[:64]):
        raise ModelError(place, "the file holds zero bytes where an archive begins", AGAIN)
    elif all(byte >= 32 or byte in b"\t\n\r\f" for byte in data[:512]):
        what = f"a text file (it begins {data[:24].decode('latin-1')!r})"
    else:
        what = f"not an archive (it begins with the bytes {data[:4].hex(' ')})"
    raise ModelError(place, what, FOREIGN)


def _refuse_unsafe(entries: list[zipfile.ZipInfo], place: str) -> None:
    if len(entries) > MAX_MEMBERS:
        raise ModelError(place, f"the archive has {len(entries):,} members, more than {MAX_MEMBERS:,}", FOREIGN)
    names = [e.filename for e in entries]
    twice = next((n for n, after in zip(sorted(names), sorted(names)[1:], strict=False) if n == after), None)
    if twice is not None:
        raise ModelError(place, f"the archive holds {twice!r} twice", FOREIGN)
    if len({name.partition("/")[0] for name in names}) > 1:
        raise ModelError(place, "the archive has more than one top folder", FOREIGN)
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise ModelError(place, f"{entry.filename!r} is encrypted or packed in a way torch does not know", FOREIGN)
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 64):
            raise ModelError(
                place,
                f"{entry.filename!r} would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes",
                f"no member may grow more than {MAX_RATIO}-fold",
            )
    total = sum(e.file_size for e in entries)
    if total > MAX_UNPACKED:
        raise ModelError(place, f"the archive would unpack to {total:,} bytes", f"at most {MAX_UNPACKED:,} are read")


def _inner_name(name: str, place: str) -> str:
    folder, _, inner = name.partition("/")
    parts = name.split("/")
    if not folder or not inner or "\\" in name or "\0" in name or ".." in parts or "." in parts or "" in parts:
        raise ModelError(place, f"the archive holds the unsafe name {name!r}", FOREIGN)
    return inner
