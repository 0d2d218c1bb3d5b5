"""A simulated options chain: a random walk, a volatility smile, Black-Scholes-Merton prices. No market is behind it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from math import erfc, exp, log, pi, sqrt
from typing import Any

RATE, DIVIDEND = 0.04, 0.012
DAYS = 30
CENTRE, STEP, STRIKES = 480.0, 5, 41
WALK = 0.0004
"""Standard deviation of the spot's relative move in a second: far wilder than a market, to have something to see."""
PULL_PER_S = 1 / 300
NEAR = 8
"""Strikes on each side of the spot that are quoted anew on every step; the others take turns."""
TURNS = 3


def normal_cdf(x: float) -> float:
    """Probability that a standard normal variable is at most x; exact in the tails too."""
    return 0.5 * erfc(-x / sqrt(2))


def normal_pdf(x: float) -> float:
    """Density of the standard normal distribution."""
    return exp(-0.5 * x * x) / sqrt(2 * pi)


@dataclass(frozen=True, slots=True)
class Value:
    """What an option is worth. Theta is per day, vega per point of volatility (1 %)."""

    price: float
    delta: float
    gamma: float
    theta: float
    vega: float


def value_options(spot: float, strike: float, years: float, volatility: float) -> tuple[Value, Value]:
    """Black-Scholes-Merton value of the call and the put. All arguments positive; raises ValueError otherwise."""
    if min(spot, strike, years, volatility) <= 0:
        raise ValueError(f"spot, strike, years, volatility must be positive: {spot}, {strike}, {years}, {volatility}")
    root = volatility * sqrt(years)
    d1 = (log(spot / strike) + (RATE - DIVIDEND + 0.5 * volatility**2) * years) / root
    d2 = d1 - root
    carry, discount = exp(-DIVIDEND * years), exp(-RATE * years)
    density = carry * normal_pdf(d1)
    decay = -spot * density * volatility / (2 * sqrt(years))

    def one(sign: int) -> Value:
        stock, cash = carry * normal_cdf(sign * d1), discount * normal_cdf(sign * d2)
        return Value(
            price=max(0.0, sign * (spot * stock - strike * cash)),
            delta=sign * stock,
            gamma=density / (spot * root),
            theta=(decay + sign * (DIVIDEND * spot * stock - RATE * strike * cash)) / 365,
            vega=spot * density * sqrt(years) / 100,
        )

    return one(1), one(-1)


def quote(value: Value, volatility: float) -> dict[str, float]:
    """Bid and ask around the value, on ticks of 0.05 (below 3) or 0.10, with the greeks rounded for display."""
    tick = 0.05 if value.price < 3 else 0.1
    half = max(tick / 2, 0.006 * value.price)
    greeks = {name: round(number, 4) for name, number in asdict(value).items() if name != "price"}
    bid = max(0.0, (value.price - half) // tick * tick)
    ask = max(bid + tick, -((value.price + half) // -tick) * tick)
    return {"bid": round(bid, 2), "ask": round(ask, 2), "iv": round(volatility, 4), **greeks}


class Market:
    """The simulation: `step` moves it on and says which rows were quoted anew. Chance is an argument."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._turn = 0  # which third of the far strikes is next
        self.spot = CENTRE * chance.uniform(0.995, 1.005)
        self.opened = self.spot
        self.level = 0.18  # volatility at the money
        first = CENTRE - STEP * (STRIKES // 2)
        self.strikes = [int(first + STEP * n) for n in range(STRIKES)]
        self._noise = dict.fromkeys(self.strikes, 0.0)  # each strike's own deviation from the smile

    def step(self, elapsed_s: float) -> list[dict[str, Any]]:
        """Moves the spot and the smile by this much time. Returns the rows that changed, the spot's own row first."""
        gauss = self._chance.gauss
        pull = PULL_PER_S * elapsed_s
        self.spot *= 1 + pull * (CENTRE / self.spot - 1) + WALK * sqrt(elapsed_s) * gauss(0, 1)
        self.level += 4 * pull * (0.18 - self.level) + 0.0012 * sqrt(elapsed_s) * gauss(0, 1)
        self._turn = (self._turn + 1) % TURNS
        return [self.underlying(), *(self.row(strike) for strike in self._quoted_now(elapsed_s))]

    def all_rows(self) -> list[dict[str, Any]]:
        """Every row as it stands, for the first publication."""
        return [self.underlying(), *(self.row(strike) for strike in self.strikes)]

    def underlying(self) -> dict[str, Any]:
        """The row with the spot; its id is `spot`."""
        return {"id": "spot", "spot": round(self.spot, 2), "change": round(self.spot - self.opened, 2), "days": DAYS}

    def row(self, strike: int) -> dict[str, Any]:
        """One strike's row: the call and the put, each with bid, ask, iv and greeks."""
        volatility = self.volatility(strike)
        call, put = value_options(self.spot, strike, DAYS / 365, volatility)
        return {"id": strike, "call": quote(call, volatility), "put": quote(put, volatility)}

    def volatility(self, strike: int) -> float:
        """The smile: a level, a downward skew, a curve, and the strike's own noise."""
        moneyness = log(strike / self.spot) / (0.18 * sqrt(DAYS / 365))
        return max(0.03, self.level * (1 - 0.055 * moneyness + 0.022 * moneyness**2) + self._noise[strike])

    def _quoted_now(self, elapsed_s: float) -> list[int]:
        chosen = []
        for index, strike in enumerate(self.strikes):
            if abs(strike - self.spot) <= NEAR * STEP or index % TURNS == self._turn:
                shock = 0.0003 * sqrt(elapsed_s) * self._chance.gauss(0, 1)
                self._noise[strike] = self._noise[strike] * (1 - min(1.0, elapsed_s)) + shock
                chosen.append(strike)
        return chosen
