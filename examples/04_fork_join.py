"""Fork and join: branches share the tokens before them, run side by side, and come back as lists."""

import sgrun as sg

FIELDS = ("capital", "language", "continent")


@sg.function
def profile(s: sg.ProgramState, country: str) -> None:
    s += "Country: Italy. Capital: Rome. Language: Italian. Continent: Europe.\n"
    s += "Country: Japan. Capital: Tokyo. Language: Japanese. Continent: Asia.\n"
    s += f"Country: {country}."
    forks = s.fork(len(FIELDS))
    for fork, field in zip(forks, FIELDS, strict=True):
        fork += f" {field.capitalize()}:" + sg.gen("value", max_tokens=8, stop=[".", "\n"], temperature=0)
    forks.join()  # s["value"] is a list with one item for each fork
    for field, value in zip(FIELDS, s["value"], strict=True):
        s += f" {field.capitalize()}:{value}."
    s += f" Neighbours of {country}:" + sg.gen("neighbours", max_tokens=12, stop=[".", "\n"], temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = profile.run("Egypt", backend=engine)
    for field, value in zip(FIELDS, state["value"], strict=True):
        print(f"{field}: {value.strip()}")
    print("neighbours:", state["neighbours"].strip())
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
