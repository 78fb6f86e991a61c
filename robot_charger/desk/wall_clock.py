"""A wall clock that can jump, for processes of a desk: a shim before the C library's own clock functions.

Nobody may set the clock of a machine that others use, and not everybody could. So a few lines of C, compiled for the
run, add an offset from a shared file to CLOCK_REALTIME; CLOCK_MONOTONIC passes through.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

OFFSET_FILE = "ROBOT_CHARGER_CLOCK_OFFSET"
SHIM = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_s;

__attribute__((constructor)) static void open_offset(void) {
    const char *name = getenv("ROBOT_CHARGER_CLOCK_OFFSET");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return;
    void *memory = mmap(0, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) offset_s = memory;
    close(file);
}

static int64_t offset(void) { return offset_s ? *offset_s : 0; }

int clock_gettime(clockid_t id, struct timespec *t) {
    int result = syscall(SYS_clock_gettime, id, t);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (t) { t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000; }
    return result;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


class NoCompilerError(RuntimeError):
    """There is no C compiler here, or it failed."""


class WallClock:
    """``environment`` makes a process use it; ``jump`` moves it for all of them at once."""

    def __init__(self, directory: Path) -> None:
        """Compile into ``directory``. Raises NoCompilerError."""
        compiler = shutil.which(os.environ.get("CC", "cc"))
        source, self._library, self._file = (directory / n for n in ("clock.c", "clock.so", "clock.offset"))
        source.write_text(SHIM)
        self._file.write_bytes(struct.pack("=q", 0))
        words = [compiler or "cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)]
        if not compiler or subprocess.run(words, capture_output=True).returncode:
            raise NoCompilerError("the clock cannot jump here: no C compiler (set CC)")

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), OFFSET_FILE: str(self._file)}

    def jump(self, seconds: float) -> None:
        """The wall clock now differs from the machine's by ``seconds``."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", round(seconds)))
