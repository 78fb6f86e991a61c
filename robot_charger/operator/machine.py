"""What ``robot-charger doctor`` asks of this computer, one small probe per question.

Probes only look: none changes anything. Tests give the doctor a machine with other answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from robot_charger.common.process import log_trouble

CAP_NET_RAW = 13
CAP_SYS_NICE = 23
_STA_UNSYNC = 0x0040


@dataclass(frozen=True)
class CanInterface:
    """A CAN interface as the kernel describes it; bit rates in bit/s, 0 = not known (a virtual one has none)."""

    name: str
    up: bool
    fd: bool
    bitrate: int
    data_bitrate: int
    virtual: bool = False
    queue: int = 0  # frames that its transmit queue takes, 0 = not known
    restart_ms: int = 0  # restarted so long after bus-off, 0 = never


@dataclass(frozen=True)
class Certificate:
    """One certificate of a PEM file."""

    path: Path
    subject: str
    not_after: datetime


class Machine:
    """This computer."""

    def python_version(self) -> tuple[int, int, int]:
        return sys.version_info[:3]

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def package_version(self, name: str) -> str | None:
        """Version of an installed Python package, None when it is missing."""
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    def import_error(self, module: str) -> str:
        """Why ``module`` cannot be imported, empty when it can."""
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken extension may raise anything
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return ""

    def program(self, name: str) -> str | None:
        return shutil.which(name)

    def network_interfaces(self) -> set[str]:
        return {name for _, name in socket.if_nameindex()}

    def is_up(self, interface: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(int(Path("/sys/class/net", interface, "flags").read_text(), 16) & 1)
        return False

    def has_carrier(self, interface: str) -> bool:
        with contextlib.suppress(OSError):
            return Path("/sys/class/net", interface, "carrier").read_text().strip() == "1"
        return False

    def driver(self, interface: str) -> str:
        """Kernel driver of a network interface, e.g. qcaspi; empty when it has none."""
        with contextlib.suppress(OSError):
            return Path("/sys/class/net", interface, "device/driver").resolve(strict=True).name
        return ""

    def can_interface(self, name: str) -> CanInterface | None:
        """Needs iproute2. None: there is no such interface or it is no CAN."""
        try:
            answer = subprocess.run(
                ["ip", "-json", "-details", "link", "show", name], capture_output=True, timeout=5, check=True
            )
            (link,) = json.loads(answer.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        info = link.get("linkinfo", {})
        if info.get("info_kind") not in ("can", "vcan", "vxcan"):
            return None
        data = info.get("info_data", {})
        modes = data.get("ctrlmode", [])
        virtual = info["info_kind"] != "can"
        return CanInterface(
            name,
            "UP" in link.get("flags", []),
            "FD" in modes or (virtual and int(link.get("mtu", 16)) >= 72),
            int(data.get("bittiming", {}).get("bitrate", 0)),
            int(data.get("data_bittiming", {}).get("bitrate", 0)),
            virtual,
            int(link.get("txqlen", 0)),
            int(data.get("restart_ms", 0)),
        )

    def link_local(self, interface: str) -> bool:
        """The interface has an IPv6 link-local address."""
        with contextlib.suppress(OSError):
            for line in Path("/proc/net/if_inet6").read_text().splitlines():
                _, _, _, scope, _, name = line.split()
                if name == interface and int(scope, 16) == 0x20:
                    return True
        return False

    def ipv6(self) -> bool:
        return Path("/proc/net/if_inet6").exists()

    def namespaces(self) -> str:
        """Why a user namespace with a network namespace in it cannot be made, empty when it can."""
        code = (
            "import ctypes,os,sys\n"
            "libc=ctypes.CDLL(None,use_errno=True)\n"
            "r=libc.unshare(0x10000000|0x40000000)\n"
            "sys.exit(os.strerror(ctypes.get_errno()) if r else 0)"
        )
        try:
            result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=10, text=True)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        return "" if result.returncode == 0 else (result.stderr.strip().splitlines() or ["refused"])[-1]

    def capability(self, number: int) -> bool:
        """This process holds the capability."""
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> number & 1)
        return False

    def realtime(self) -> bool:
        """SCHED_FIFO may be asked for: by capability, or by the limit rtprio."""
        return self.capability(CAP_SYS_NICE) or resource.getrlimit(resource.RLIMIT_RTPRIO)[0] != 0

    def clock_synchronised(self) -> bool | None:
        """The kernel's word on NTP or PTP; None where it cannot be asked."""
        buffer = (ctypes.c_char * 256)()  # struct timex with modes = 0: only read
        with contextlib.suppress(AttributeError, OSError):
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.adjtimex(buffer) < 0:
                return None
            status = ctypes.c_int.from_buffer(buffer, 40).value
            return not status & _STA_UNSYNC
        return None

    def now(self) -> float:
        """Wall clock [s since 1970]."""
        return time.time()

    def certificates(self, path: Path) -> list[Certificate]:
        """Certificates of a PEM file, or of every .pem, .crt and .cert below a folder. Raises OSError, ValueError."""
        from cryptography import x509

        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        files = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in (".pem", ".crt", ".cert"))
        found = []
        for file in files:
            data = file.read_bytes()
            if b"BEGIN CERTIFICATE" not in data:
                continue
            for certificate in x509.load_pem_x509_certificates(data):
                end = (
                    certificate.not_valid_after_utc
                    if hasattr(certificate, "not_valid_after_utc")
                    else certificate.not_valid_after.replace(tzinfo=None)
                )
                found.append(Certificate(file, certificate.subject.rfc4514_string(), end))
        return found

    def free_bytes(self, path: Path) -> int:
        """Free space where ``path`` is or would be made."""
        while not path.exists() and path != path.parent:
            path = path.parent
        return shutil.disk_usage(path).free

    def is_file(self, path: str) -> bool:
        return Path(path).is_file()

    def log_trouble(self) -> str:
        """Why ROS could not write its logs, empty when it can."""
        return log_trouble()

    def receive_buffer(self) -> int:
        """Largest receive buffer an ordinary process may ask for [byte]."""
        with contextlib.suppress(OSError, ValueError):
            return int(Path("/proc/sys/net/core/rmem_max").read_text())
        return 0
