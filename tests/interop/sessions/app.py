"""What the suites of the SDKs want of a server: topics with everything switched on, tokens signed with "secret"."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from tests.interop.installed import node_modules
from tests.project.files import ROOT
from tidewire import CallError, Identity, Live, Log, Tokens, Welcome, run

live = Live(tokens=Tokens(secret="secret"))


@live.topic("smallhistory:{name}", policy=Log(keep=2), publish=True)
async def small(name: str) -> None: ...


@live.topic("{name}", policy=Log(keep=100, ttl_s=300), publish=True, join_leave=True)
async def everything(name: str) -> None: ...


@live.on_connect
async def connect(identity: Annotated[Identity, Depends(live.identity)]) -> Welcome:
    return Welcome(topics=[f"#{identity.user}"] if identity.user else [])


@live.call("echo")
async def echo(value: int) -> dict[str, int]:
    return {"value": value}


@live.call("sold.out")
async def sold_out() -> None:
    raise CallError(409, "sold out")


app = FastAPI(openapi_url=None)
# the suites have the URL of a server of their own in them
app.include_router(live.router, prefix="/connection")
app.mount("/sdk", StaticFiles(directory=node_modules(ROOT / "tests/interop/sessions/package.json") / "node_modules"))


@app.get("/page")
async def page(sdk: str) -> HTMLResponse:
    return HTMLResponse(f"<!doctype html><title>sdk</title><script src='/sdk/{sdk}'></script>")


def main() -> None:
    run(app, port=0, on_listening=lambda url: print(f"listening on {url}", flush=True), access_log=False)


if __name__ == "__main__":
    main()
