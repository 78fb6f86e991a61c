"""A DDS domain that no other demo or test of this machine uses.

The lock is a bound UDP port on loopback: it ends with its process, however that dies. Domains 1 to 99 keep
clear of domain 0, where a station's own nodes live, and of ports in the ephemeral range.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

_LOCK_PORT = 6100  # + domain; below the DDS ports (7400 + 250 * domain)


class NoDomainError(RuntimeError):
    """Every domain is taken."""


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Hold a free domain id, 1 to 99. Raises NoDomainError when all are taken."""
    domains = list(range(1, 100))
    random.shuffle(domains)
    for domain in domains:
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind(("127.0.0.1", _LOCK_PORT + domain))
        except OSError:
            lock.close()
            continue
        with lock:
            yield domain
        return
    raise NoDomainError("no free DDS domain from 1 to 99: set ROS_DOMAIN_ID")
