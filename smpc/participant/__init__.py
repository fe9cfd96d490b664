"""A validator's pod: one operator's process with its identity, shares, own nodes and own rules."""

import smpc.host  # noqa: F401 - first: it quiets gRPC, whose core reads its verbosity while it is imported
