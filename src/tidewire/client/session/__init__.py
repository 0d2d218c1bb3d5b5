"""``tidewire.Client``: a session of many topics on one connection (Centrifuge client protocol v2)."""
