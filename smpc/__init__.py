"""What participants trust: types, primitives, protocol, and the pod itself."""
