"""The demonstration: money both ways on a devnet, told step by step, through the same commands a user has."""
