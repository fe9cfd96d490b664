"""The coordinator: finds work, builds transactions, relays ceremonies, broadcasts. Trusted with nothing but liveness."""

import smpc.host  # noqa: F401 - first: it quiets gRPC, whose core reads its verbosity while it is imported
