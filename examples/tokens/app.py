"""Ask, and the answer comes token by token; reload the page in the middle of it, and nothing is missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from tidewire import Live, Log, TooManyRuns

from .model import tokens

ID = r"^[0-9a-f]{16}$"
live = Live()
app = FastAPI(title="Tokens that survive a reload")
app.include_router(live.router, prefix="/live")
producer_runs: Counter[str] = Counter()  # shown on the page; a real application has no need of it


@live.topic("answers/{id}", policy=Log(keep=2000, ttl_s=3600), payload="json")
async def answers(id: str) -> None:
    """Whoever knows the id may read. A real application would ask here (with Depends) who that is."""


class Question(BaseModel):
    """The page chooses the id: sent twice, because the network failed, it is still answered once."""

    id: str = Field(pattern=ID)
    text: str = Field(min_length=1, max_length=300)


async def produce(question: Question) -> AsyncIterator[dict[str, Any]]:
    """What is published: the question, then the tokens of the answer."""
    producer_runs[question.id] += 1
    yield {"question": question.text}
    async for token in tokens(question.text):
        yield {"token": token}


@app.post("/ask")
async def ask(question: Question) -> dict[str, Any]:
    """Begin the answer, or join it; the run goes on when this request, and the page, are gone."""
    try:
        run = live.publish_from(f"answers/{question.id}", produce(question), run_id=question.id)
    except TooManyRuns as error:
        raise HTTPException(503, str(error)) from None
    return {"topic": run.topic, "started": run.started}


@app.get("/runs/{id}")
async def look(id: Annotated[str, InPath(pattern=ID)]) -> dict[str, Any]:
    """How often the producer of this answer has run, and how far it is."""
    run = live.run_of(id)
    if run is None:
        raise HTTPException(404, "This answer is not known here any more: ask again")
    return {"producer_runs": producer_runs[id], "published": run.published, "done": run.done}


@app.post("/runs/{id}/stop", status_code=204)
async def stop(id: Annotated[str, InPath(pattern=ID)]) -> None:
    """Close the producer; all readers are told that the answer is not complete."""
    if run := live.run_of(id):
        run.cancel()


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """One plain HTML file."""
    return FileResponse(Path(__file__).with_name("page.html"))
