"""What every process needs around the pure core: configuration, logs, TLS, gRPC, SQLite, signals."""

import os

# gRPC's C core reads this once, while it is imported, and otherwise writes a line for every broken handshake: a port
# scan must not flood a log. Importing any module of this package before `grpc` is enough.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
