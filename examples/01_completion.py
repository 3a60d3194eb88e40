"""Completion: plain text, two generations, and Python that reads the first before it goes on."""

import sgrun as sg


@sg.function
def capital(s: sg.ProgramState, country: str) -> None:
    s += "Country: Japan. Capital: Tokyo.\nCountry: Italy. Capital: Rome.\n"
    s += f"Country: {country}. Capital:" + sg.gen("capital", max_tokens=8, stop=".", temperature=0)
    city = s["capital"].strip()  # waits for this value only
    s += f".\n{city} is famous for" + sg.gen("fame", max_tokens=24, stop=[".", "\n"], temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = capital.run(country="France", backend=engine)
    print("capital:", state["capital"].strip())
    print("fame:", state["fame"].strip())
    print("finish reason:", state.get_meta_info("capital")["finish_reason"])
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
