"""The command line: ``tidewire run | serve | sub | pub | cat | echo``."""
