"""A stand-in for a model call: it understands nothing, and says the same words to the same question."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator

PAUSE_S = 0.06

OPENINGS = (
    "Good question. I am not a model, only a stand-in for one, so here is what I can say about “{question}”.",
    "You asked “{question}”. No model was called for this: a small program of this example picks its sentences.",
)
SENTENCES = (
    "Every word you see is one message of a topic, and every message has a position.",
    "The words are produced by a task of the server, not by the request that asked for them.",
    "Reload this page now: it reads the topic from the beginning, and nothing is missing.",
    "Cut the network for a while: the browser comes back by itself and asks for what it missed.",
    "Open a second window: both read the same topic, and the producer does not run again.",
    "A question that is sent twice with the same id joins the run that is there, so it is not paid for twice.",
    "Press Stop and the producer is closed, and everybody who reads is told that the answer is not complete.",
    "If the producer failed, you would be told so, too, instead of waiting for a word that never comes.",
)
CLOSING = "That was all. Replace this function by the call of a real model, and keep the rest."


def answer_to(question: str) -> str:
    """The whole answer, the same for the same question."""
    choice = random.Random(question)
    middle = choice.sample(SENTENCES, 6)
    opening = choice.choice(OPENINGS).format(question=question)
    return "\n\n".join([opening, " ".join(middle[:3]), " ".join(middle[3:]), CLOSING])


async def tokens(question: str) -> AsyncIterator[str]:
    """The answer word by word, each with the white space before it, as models give it."""
    for word in re.findall(r"\s*\S+", answer_to(question)):
        await asyncio.sleep(PAUSE_S)
        yield word
