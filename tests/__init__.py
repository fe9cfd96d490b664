"""Everything that shows the bridge works: unit, property, contract, simulation, integration."""
