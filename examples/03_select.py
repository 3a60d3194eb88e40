"""Select: one of given choices, scored by the model instead of sampled, and Python that branches on it."""

import sgrun as sg


@sg.function
def judge(s: sg.ProgramState, review: str) -> None:
    s += f"Review: {review}\nSentiment:"
    s += sg.select("sentiment", [" positive", " negative"])
    if s["sentiment"] == " negative":
        s += "\nWhat disappointed the viewer was" + sg.gen("reason", max_tokens=16, stop=[".", "\n"], temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    states = [
        judge.run("I loved every minute of it.", backend=engine),
        judge.run("Boring and far too long.", backend=engine),
    ]
    for state in states:
        scores = state.get_meta_info("sentiment")["normalized_prompt_logprobs"]
        print("sentiment:", state["sentiment"].strip(), "| mean log-probabilities:", [round(x, 2) for x in scores])
    print("reason:", states[1]["reason"].strip())
    return states


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
