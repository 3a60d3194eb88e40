"""Async: the same programs as `async def`, awaited side by side on the caller's own event loop."""

import asyncio

import sgrun as sg


@sg.function
async def capital(s: sg.ProgramState, country: str) -> str:
    s += "Country: Japan. Capital: Tokyo.\nCountry: Italy. Capital: Rome.\n"
    s += f"Country: {country}. Capital:" + sg.gen("capital", max_tokens=8, stop=".", temperature=0)
    answer = await s.aget("capital")
    return f"{answer.strip()} is the capital of {country}."


async def gather(engine: sg.Engine) -> list[sg.ProgramState]:
    countries = ("France", "Egypt", "Germany")
    return await asyncio.gather(*(capital.arun(country, backend=engine) for country in countries))


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    states = asyncio.run(gather(engine))
    for state in states:
        print(state.ret_value)
    return states[:1]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
