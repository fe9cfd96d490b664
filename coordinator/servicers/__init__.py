"""The coordinator's gRPC face: what users and its operator call."""
