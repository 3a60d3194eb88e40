"""Tool use: the model writes an action, Python carries it out, and its observation goes on in the same sequence."""

import operator
import re
from collections.abc import Callable

import sgrun as sg

EXAMPLE = """Question: A box holds 12 pens. How many pens do 15 boxes hold?
Action: 12 * 15
Observation: 180
Next: Answer
Answer: 180 pens
"""
OPERATORS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def calculate(expression: str) -> int:
    match = re.fullmatch(r"(\d+) ([-+*]) (\d+)", expression)
    assert match is not None  # the constraint below lets nothing else through
    left, sign, right = match.groups()
    return OPERATORS[sign](int(left), int(right))


@sg.function
def solve(s: sg.ProgramState, question: str, max_steps: int = 3) -> None:
    s += EXAMPLE + f"\nQuestion: {question}\n"
    for _ in range(max_steps):
        s += "Action: " + sg.gen("action", regex=r"\d{1,4} [-+*] \d{1,4}\n", max_tokens=16, temperature=0)
        s += f"Observation: {calculate(s['action'].strip())}\n"
        s += "Next: " + sg.select("next", ["Answer", "Action"]) + "\n"
        if s["next"] == "Answer":
            break
    s += "Answer:" + sg.gen("answer", max_tokens=8, stop="\n", temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = solve.run("A train has 17 cars. How many seats are there if a car has 64 seats?", backend=engine)
    print("action:", state["action"].strip())
    print("answer:", state["answer"].strip())
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
