"""Takes rights from this process that it never gets back: no network, no writing, no other program; memory and time
bounded. Limits in, the names of what the kernel enforces out. For Linux; elsewhere only the resource limits hold.

Numbers of system calls are those of the kernel's tables for x86-64 and aarch64; see seccomp(2), landlock(7).
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = resource.getpagesize()


class Limits(NamedTuple):
    """seconds: of the processor, and twice as many on the clock; memory: bytes beyond what the process has already."""

    seconds: int = 60
    memory: int = 1 << 30

    @classmethod
    def here(cls) -> "Limits":
        """At most half of the memory that is free, or that the service may take; 256 MiB wherever that is less."""
        return cls(memory=max(_LEAST, min([1 << 30, *(free // 2 for free in _free())])))


_LEAST = 256 << 20


def _free() -> Iterator[int]:
    """Bytes, as far as the system tells: of the machine, and of the control group (version 2) that this runs in."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield from (int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        yield int((Path("/sys/fs/cgroup") / group / "memory.max").read_text())  # "max" is no number


def confine(limits: Limits) -> list[str]:
    """Names what holds: "rlimits" always, "landlock" and "seccomp" where the kernel has them. Raises OSError when not
    even the limits can be set."""
    _rlimits(limits)
    held = ["rlimits"]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:  # what both of the others need
        held += ["landlock"] * _landlock(libc)
        held += ["seccomp"] * _seccomp(libc)
    return held


def _rlimits(limits: Limits) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE if Path("/proc/self/statm").exists() else 4 << 30
    wanted = {
        resource.RLIMIT_AS: held + limits.memory,
        resource.RLIMIT_CPU: limits.seconds,
        resource.RLIMIT_FSIZE: 0,  # no file grows
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


# --- landlock: no path can be written, made or run, no TCP port used -------------------------------------------------

_NO_NEW_PRIVS = 38
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same number on all processors
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version of the interface; later ones: 16


def _landlock(libc: ctypes.CDLL) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    writes = ((1 << _FS_BITS.get(version, 16)) - 1) & ~(_READ_FILE | _READ_DIR)
    # A right that is handled and that no rule grants is denied everywhere. TCP since 4, signals and sockets since 6.
    attributes = struct.pack("=QQQ", writes, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


# --- seccomp: a filter of system calls, in the kernel's classic BPF --------------------------------------------------

_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _AND_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_OPENS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# Refused with EPERM: the network, other programs and processes, whatever changes a file, the kernel's other doors.
_DENIED = {
    "x86_64": """
    socket 41 connect 42 accept 43 sendto 44 sendmsg 46 bind 49 listen 50 socketpair 53 sendmmsg 307 accept4 288
    fork 57 vfork 58 execve 59 execveat 322 kill 62 tkill 200 tgkill 234 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297
    pidfd_open 434 pidfd_getfd 438 pidfd_send_signal 424 ptrace 101 process_vm_readv 310 process_vm_writev 311
    truncate 76 ftruncate 77 rename 82 mkdir 83 rmdir 84 creat 85 link 86 unlink 87 symlink 88 chmod 90 fchmod 91
    chown 92 fchown 93 lchown 94 utime 132 mknod 133 utimes 235 mkdirat 258 mknodat 259 fchownat 260 futimesat 261
    unlinkat 263 renameat 264 linkat 265 symlinkat 266 fchmodat 268 utimensat 280 fallocate 285 renameat2 316
    fchmodat2 452 setxattr 188 lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199
    open_by_handle_at 304 name_to_handle_at 303 mount 165 umount2 166 pivot_root 155 chroot 161 fsopen 430 fsmount 432
    move_mount 429 open_tree 428 mount_setattr 442 unshare 272 setns 308 bpf 321 perf_event_open 298 userfaultfd 323
    add_key 248 request_key 249 keyctl 250 io_uring_setup 425 io_uring_enter 426 io_uring_register 427 io_setup 206
    shmget 29 shmat 30 msgget 68 semget 64 mq_open 240 memfd_create 319 ioctl 16 inotify_init1 294
    setuid 105 setgid 106 setresuid 117 setresgid 119 prlimit64 302 setrlimit 160 kexec_load 246 init_module 175
    finit_module 313 delete_module 176 reboot 169 swapon 167 acct 163 personality 135""",
    "aarch64": """
    socket 198 socketpair 199 bind 200 listen 201 accept 202 connect 203 sendto 206 sendmsg 211 accept4 242
    sendmmsg 269 execve 221 execveat 281 kill 129 tkill 130 tgkill 131 rt_sigqueueinfo 138 rt_tgsigqueueinfo 240
    pidfd_open 434 pidfd_getfd 438 pidfd_send_signal 424 ptrace 117 process_vm_readv 270 process_vm_writev 271
    truncate 45 ftruncate 46 fallocate 47 mknodat 33 mkdirat 34 unlinkat 35 symlinkat 36 linkat 37 renameat 38
    fchmod 52 fchmodat 53 fchownat 54 fchown 55 utimensat 88 renameat2 276 fchmodat2 452 setxattr 5 lsetxattr 6
    fsetxattr 7 removexattr 14 lremovexattr 15 fremovexattr 16 open_by_handle_at 265 name_to_handle_at 264 mount 40
    umount2 39 pivot_root 41 chroot 51 fsopen 430 fsmount 432 move_mount 429 open_tree 428 mount_setattr 442
    unshare 97 setns 268 bpf 280 perf_event_open 241 userfaultfd 282 add_key 217 request_key 218 keyctl 219
    io_uring_setup 425 io_uring_enter 426 io_uring_register 427 io_setup 0 shmget 194 shmat 196 msgget 186 semget 190
    mq_open 180 memfd_create 279 ioctl 29 inotify_init1 26 setuid 146 setgid 144 setresuid 147 setresgid 149
    prlimit64 261 setrlimit 164 kexec_load 104 init_module 105 finit_module 273 delete_module 106 reboot 142
    swapon 224 acct 89 personality 92""",
}  # fmt: skip
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_OPEN = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}  # (open or openat, which argument holds the flags)
_CLONE = {"x86_64": 56, "aarch64": 220}
_ABSENT = (435, 437)  # clone3, openat2: their flags lie in memory, which a filter cannot see; libc takes the older ones


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _ARCH:
        return False
    program = b"".join(_filter(machine))
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    wanted = Program(len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(wanted), 0, 0) == 0)


def _filter(machine: str) -> list[bytes]:
    """struct seccomp_data: number at 0, architecture at 4, arguments of 8 bytes from 16 on; little-endian."""
    denied = [int(word) for word in _DENIED[machine].split() if word.isdigit()]
    code = [
        _step(_LOAD, 4), _step(_EQUAL, _ARCH[machine], 1, 0), _step(_RETURN, _KILL),
        _step(_LOAD, 0), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL),
    ]  # fmt: skip
    for number in denied:
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | errno.EPERM)]
    for number in _ABSENT:
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    for number, argument in _OPEN[machine]:  # reading only
        code += [
            _step(_EQUAL, number, 0, 4), _step(_LOAD, 16 + 8 * argument), _step(_AND_ANY, _OPENS, 0, 1),
            _step(_RETURN, _ERRNO | errno.EPERM), _step(_RETURN, _ALLOW),
        ]  # fmt: skip
    code += [  # threads, but no processes
        _step(_EQUAL, _CLONE[machine], 0, 4), _step(_LOAD, 16), _step(_AND_ANY, _CLONE_THREAD, 1, 0),
        _step(_RETURN, _ERRNO | errno.EPERM), _step(_RETURN, _ALLOW),
    ]  # fmt: skip
    return [*code, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, then: int = 0, other: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, other, value)
