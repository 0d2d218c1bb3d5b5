"""Sockets: the link under a connection, on our uvicorn classes and on any other ASGI server."""
