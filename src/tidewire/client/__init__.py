"""Clients: read a topic, publish to one. Import from the modules; the public names are ``tidewire``'s."""
