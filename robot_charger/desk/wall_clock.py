"""A wall clock that can jump, for processes of a desk: a shim before the C library's own clock functions.

Nobody may set the clock of a machine that others use, and not everybody could. So a few lines of C, compiled for the
run, add an offset from a shared file to CLOCK_REALTIME; CLOCK_MONOTONIC passes through. What waits until a moment of
that clock is let wait until the kernel's moment of it (DDS does so). A wait that had begun before is not moved.
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
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
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

/* Absolute times: those of CLOCK_MONOTONIC are far below. The condition variables of today have this version. */
static struct timespec of_kernel(const struct timespec *t) {
    struct timespec real = *t;
    if (real.tv_sec > 1000000000) real.tv_sec -= offset();
    return real;
}

static void *next(const char *name) {
    static const char *const versions[] = {"GLIBC_2.3.2", "GLIBC_2.17"};
    for (int i = 0; i < 2; ++i) {
        void *found = dlvsym(RTLD_NEXT, name, versions[i]);
        if (found) return found;
    }
    return dlsym(RTLD_NEXT, name);
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t) {
    static int (*call)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!call) call = next("pthread_cond_timedwait");
    struct timespec real = of_kernel(t);
    return call(c, m, &real);
}

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock, const struct timespec *t) {
    static int (*call)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!call) call = next("pthread_cond_clockwait");
    struct timespec real = of_kernel(t);
    return call(c, m, clock, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *t) {
    static int (*call)(pthread_mutex_t *, const struct timespec *);
    if (!call) call = next("pthread_mutex_timedlock");
    struct timespec real = of_kernel(t);
    return call(m, &real);
}

int sem_timedwait(sem_t *s, const struct timespec *t) {
    static int (*call)(sem_t *, const struct timespec *);
    if (!call) call = next("sem_timedwait");
    struct timespec real = of_kernel(t);
    return call(s, &real);
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
        words = [compiler or "cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"]
        if not compiler or subprocess.run(words, capture_output=True).returncode:
            raise NoCompilerError("the clock cannot jump here: no C compiler (set CC)")

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), OFFSET_FILE: str(self._file)}

    def jump(self, seconds: float) -> None:
        """The wall clock now differs from the machine's by ``seconds``."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", round(seconds)))
