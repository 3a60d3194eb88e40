"""Chat: roles follow the model's own template, and a second turn computes only its new tokens."""

import sgrun as sg


@sg.function
def talk(s: sg.ProgramState, first: str, second: str) -> None:
    s += sg.system("You are a helpful assistant. Answer in one short sentence.")
    s += sg.user(first)
    s += sg.assistant(sg.gen("first", max_tokens=32, temperature=0))
    with s.user():  # the same role as a block
        s += second
    with s.assistant():
        s += sg.gen("second", max_tokens=32, temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = talk.run("What is the capital of France?", "And the capital of Italy?", backend=engine)
    for message in state.messages():
        print(f"{message['role']}: {message['content']}")
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
