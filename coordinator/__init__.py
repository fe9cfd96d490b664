"""The coordinator: finds work, builds transactions, relays ceremonies, broadcasts; trusted with liveness alone."""

import smpc.host  # noqa: F401 - first: it quiets gRPC, whose core reads its verbosity while it is imported
