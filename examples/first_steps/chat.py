"""A chat for everybody who opens the page. Who comes back, or comes late, gets what was said."""

import sys

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import tidewire
from tidewire import Live, Log

PORT = int(sys.argv[1]) if sys.argv[1:] else 8000
PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title><h1>Chat</h1>
<ul id="said"></ul><form id="form"><input id="line" autofocus></form>
<script>
new EventSource("/live/chat?since=-1").onmessage = (event) => {
  said.append(Object.assign(document.createElement("li"), { textContent: event.data }));
};
form.onsubmit = (event) => {
  event.preventDefault();
  fetch("/live/chat", { method: "POST", body: line.value });
  line.value = "";
};
</script>"""
live = Live()
app = FastAPI()
app.include_router(live.router, prefix="/live")


@live.topic("chat", policy=Log(keep=100), publish=True)
async def chat() -> None:
    """Everybody may read and write."""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


if __name__ == "__main__":
    tidewire.run(app, port=PORT)
