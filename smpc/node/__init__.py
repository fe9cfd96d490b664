"""The Node Interface: adapters that turn Bitcoin and the consensus layer into questions, events and broadcasts."""

import smpc.host  # noqa: F401 - first: it quiets gRPC, whose core reads its verbosity while it is imported
from smpc.host.lean_import import import_without

# Only for its command line.
import_without("httpx", ["click"])
