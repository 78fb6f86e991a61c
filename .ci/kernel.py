"""Run test/kernel on a real kernel with SocketCAN: Debian's, in QEMU by software emulation. ``make kernel``

This machine's own kernel needs no CAN. `make tools` unpacks QEMU, Debian's kernel and busybox into .tools/kernel;
without them this step says so and ends with status 0. The guest boots from a small initrd, mounts this machine's root
read-only over 9p below an overlay in memory, makes the virtual buses vcan0 (CAN-FD) and vcan1 (classic), runs the
tests with this tree's Python and powers off. Status 0: all passed; 1: one failed, or the guest did not come to an end.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = (ROOT / ".tools" / "kernel").resolve()
WANTED = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "vcan", "can-raw")
DONE = "kernel: tests ended with status "
INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module || echo "no module $module"; done
$B mount -t tmpfs tmpfs /layer; $B mkdir -p /layer/up /layer/work /host /root
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
$B mount -t overlay -o lowerdir=/host,upperdir=/layer/up,workdir=/layer/work overlay /root
for d in proc sys dev; do $B mount --bind /$d /root/$d; done
$B mount -t tmpfs tmpfs /root/tmp
$B mkdir -p /root/dev/shm; $B mount -t tmpfs tmpfs /root/dev/shm
$B ip link set lo up
$B ip link add dev vcan0 type vcan; $B ip link set vcan0 mtu 72; $B ip link set vcan0 up
$B ip link add dev vcan1 type vcan; $B ip link set vcan1 mtu 16; $B ip link set vcan1 up
$B uname -sr; $B ip link show vcan0; $B ip link show vcan1
echo "#!/bin/sh
cd TREE && HOME=/tmp PATH=/usr/bin:/bin:/usr/sbin:/sbin PYTHONDONTWRITEBYTECODE=1 ROBOT_CHARGER_KERNEL=1 \\
  .venv/bin/python -m pytest --noconftest -p no:cacheprovider -q -rs --color=no test/kernel ARGS
echo DONE\\$?" > /root/tmp/run
$B chroot /root /bin/sh /tmp/run
$B poweroff -f
"""


def modules(directory: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Files of these kernel modules and of all that they need, in the order to load them."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in directory.rglob("*.ko*")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return  # built in, or there already
        found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + path.read_bytes())
        for needed in (found[1].decode() if found else "").split(","):
            if needed:
                add(needed)
        order.append(path)

    for name in wanted:
        add(name)
    return order


def archive(entries: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive (newc) of name -> (mode, content)."""
    out = b""
    for number, (name, (mode, content)) in enumerate({**entries, "TRAILER!!!": (0, b"")}.items(), 1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return out


def initrd(arguments: list[str]) -> bytes:
    directories = ("bin", "proc", "sys", "dev", "layer", "modules", "host", "root")
    entries = {name: (0o040755, b"") for name in directories}
    order = modules(next((TOOLS / "lib" / "modules").iterdir()), WANTED)
    for path in order:
        entries[f"modules/{path.name}"] = (0o100644, path.read_bytes())
    entries["modules/order"] = (0o100644, " ".join(path.name for path in order).encode())
    entries["bin/busybox"] = (0o100755, (TOOLS / "bin" / "busybox").read_bytes())
    script = INIT.replace("TREE", str(ROOT)).replace("ARGS", " ".join(arguments)).replace("DONE", DONE)
    entries["init"] = (0o100755, script.encode())
    return gzip.compress(archive(entries), 1)


def command(disk: Path) -> list[str]:
    return [
        str(TOOLS / "usr/bin/qemu-system-x86_64"), "-L", str(TOOLS / "usr/share/qemu"),
        "-L", str(TOOLS / "usr/share/seabios"), "-nodefaults", "-no-user-config", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-m", "1536", "-cpu", "max",
        "-kernel", str(next((TOOLS / "boot").glob("vmlinuz-*"))), "-initrd", str(disk),
        "-append", "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off tsc=unstable",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=560.0, help="for all of it")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest in the guest")
    options = parser.parse_args()
    needed = ("usr/bin/qemu-system-x86_64", "bin/busybox", "boot", "lib/modules")
    missing = [name for name in needed if not (TOOLS / name).exists()]
    if missing:
        print(f"kernel: SKIPPED, no {', '.join(missing)} in .tools/kernel (make tools; needs Debian's apt)", flush=True)
        return 0
    folders = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
    libraries = ":".join(str(TOOLS / folder) for folder in folders)
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    with tempfile.TemporaryDirectory(prefix="rc-kernel-") as directory:
        disk = Path(directory) / "initrd"
        disk.write_bytes(initrd(options.pytest))
        began = time.monotonic()
        process = subprocess.Popen(command(disk), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        status = None
        assert process.stdout is not None
        timer = threading.Timer(options.seconds, process.kill)
        timer.start()
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            found = re.search(re.escape(DONE) + r"(\d+)", line)
            if found:
                status = int(found[1])
            print(line, flush=True)
        timer.cancel()
        process.wait()
    print(f"kernel: {time.monotonic() - began:.0f} s", flush=True)
    if status is None:
        print(f"kernel: the guest did not come to an end within {options.seconds:.0f} s", file=sys.stderr)
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
