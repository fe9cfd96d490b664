"""Recovery: what an epoch holds whose W cannot sign moves by V and E to the active epoch (design.md section 6)."""
