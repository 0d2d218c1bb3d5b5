"""Sessions: many topics on one connection, in the Centrifuge client protocol v2."""
