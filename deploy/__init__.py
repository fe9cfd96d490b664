"""Set-up and deployment: nothing here is imported by the bridge."""
