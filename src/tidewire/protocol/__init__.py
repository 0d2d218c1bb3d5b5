"""What is said. Pure: no asyncio, socket, time, random or logging in this room."""
