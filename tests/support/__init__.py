"""What tests stand on: real programs started for them."""
