"""Batch: one program on many inputs at once; results come in order, and a failing item leaves the others alone."""

import sgrun as sg


@sg.function
def translate(s: sg.ProgramState, word: str) -> None:
    if not word.isalpha():
        raise ValueError(f"{word!r} is no word")
    s += "The opposite of up is down. The opposite of big is small. The opposite of early is late. "
    s += f"The opposite of {word} is" + sg.gen("opposite", max_tokens=4, stop=[".", ","], temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    words = ["hot", "fast", "7", "open", "light", "rich"]
    states = translate.run_batch([{"word": word} for word in words], progress_bar=True, backend=engine)
    for word, state in zip(words, states, strict=True):
        error = state.error()
        print(f"{word}: {state['opposite'].strip() if error is None else error}")
    return states[:3]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
