"""The systemd unit: what it has to know comes in, the file's text goes out. Reads nothing, runs nothing.

The directives are those of systemd.exec(5), systemd.service(5) and systemd.resource-control(5),
as of version 252 (Debian 12).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

MARK = "# Written by `transom service install`."
UNSEEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # to the unit
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}")


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """command: the installed `transom`; config: absolute; state: folder below /var/lib; credentials: name -> file that
    only root need be able to read; variables: setting -> credential that holds the file it names."""

    command: Path
    config: Path
    name: str = "transom"
    state: str = "transom"
    credentials: dict[str, Path] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def unit(spec: UnitSpec) -> str:
    """The text of NAME.service."""
    secrets = [
        f"LoadCredential={name}:{str(path).replace('%', '%%')}" for name, path in sorted(spec.credentials.items())
    ]
    secrets += [f"Environment={variable}=%d/{name}" for variable, name in sorted(spec.variables.items())]
    body = _TEMPLATE.format(
        mark=MARK, name=spec.name, command=_word(spec.command), config=_word(spec.config), state=spec.state
    )
    return body.replace("@SECRETS@\n", "".join(f"{line}\n" for line in secrets))


def unseen(path: Path) -> Path | None:
    """The folder that hides this path from the service, if one does (ProtectHome, PrivateTmp)."""
    return next((folder for folder in UNSEEN if path.is_relative_to(folder)), None)


def _word(path: Path) -> str:
    """A path as a word of a command line: specifiers, variables and blanks escaped."""
    text = str(path).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return text.replace(" ", "\\x20").replace('"', "\\x22").replace("'", "\\x27").replace("\t", "\\x09")


_TEMPLATE = """\
{mark}
# Changes belong into a drop-in, which the next install leaves alone: systemctl edit {name}

[Unit]
Description=Transom, watches MQTT sensors with small neural models
Wants=network-online.target
After=network-online.target time-sync.target mosquitto.service
# A gateway has nobody to start it again: it goes on trying, at the pace of RestartSec, and each try is in the journal.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} run -c {config}
ExecReload=/bin/sh -c 'kill -HUP $$MAINPID'
# The run loop itself gives the signs of life. A start that waits for its broker asks for more time again and again.
WatchdogSec=60
TimeoutStartSec=180
TimeoutStopSec=20
Restart=on-failure
RestartSec=5
# 2: the configuration is refused; it will be the next time too.
RestartPreventExitStatus=2

# Its own user for as long as it runs, and one folder that it may write: /var/lib/{state}.
DynamicUser=yes
User={name}
StateDirectory={state}
StateDirectoryMode=0700
UMask=0077
@SECRETS@
SyslogIdentifier={name}

# What it cannot see or change. Two directives are left out on purpose: MemoryDenyWriteExecute=yes, with which torch
# cannot make its kernels, and ProcSubset=pid, with which it cannot tell what the processor is able to do.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=all
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateMounts=yes
PrivateTmp=yes
PrivateUsers=yes
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

# What it may use up.
MemoryMax=75%
TasksMax=128
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""
