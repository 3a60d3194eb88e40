"""Streaming: run() returns at once, and the text of one variable is read piece by piece while it is generated."""

import sgrun as sg


@sg.function
def explain(s: sg.ProgramState, question: str) -> None:
    s += sg.system("You are a helpful assistant. Answer in one short sentence.")
    s += sg.user(question)
    s += sg.assistant(sg.gen("answer", max_tokens=40, temperature=0))


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = explain.run("Why is the sky blue?", stream=True, backend=engine)
    num_pieces = 0
    for piece in state.text_iter("answer"):
        print(piece, end="", flush=True)
        num_pieces += 1
    print(f"\n({num_pieces} pieces)")
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
