"""Who hears it, in this process. The hub knows no socket, header or path."""
