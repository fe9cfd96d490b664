"""What every process needs around the pure core: configuration, logs, TLS, gRPC, SQLite, signals."""

import os

# gRPC's C core reads this once, while it is imported, and otherwise writes a line for every broken handshake: a port
# scan must not flood a log. Importing any module of this package before `grpc` is enough.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Nor does it take part in forks: we fork only to exec, and its handlers make a child of a process with open channels
# crash, about every fifth one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from smpc.host.lean_import import import_without

# Only for coloured tracebacks on a terminal.
import_without("structlog", ["rich"])
