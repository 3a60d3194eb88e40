"""Programs as people write them, each against a script of what the model would say."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import sgrun as sg
from sgrun.lang.scripted import ScriptedBackend
from sgrun.types import ChatFormat, JsonSchemaSpec, RegexSpec, SamplingParams

CAPITALS = {"Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi"}


def capital(prompt: str, params: SamplingParams) -> str:
    country = re.findall(r"capital of (\w+)", prompt)[-1]
    return f" {CAPITALS[country]}\nQ: next"


@sg.function
def few_shot(s: sg.ProgramState, country: str) -> None:
    s += "Q: What is the capital of France?\nA: Paris\n"
    s += f"Q: What is the capital of {country}?\nA:" + sg.gen("answer", stop="\n", temperature=0)


def test_few_shot_batch_stops_at_the_line_end() -> None:
    with ScriptedBackend(capital) as backend:
        states = few_shot.run_batch([{"country": country} for country in CAPITALS], backend=backend)
        assert [state["answer"].strip() for state in states] == list(CAPITALS.values())
        assert states[0].text().endswith("A: Tokyo")


def test_conversation_remembers_its_turns(chat_format: ChatFormat) -> None:
    def answer(prompt: str, params: SamplingParams) -> str:
        return f"{prompt.count('<|im_start|>user')} questions"

    @sg.function
    def chat(s: sg.ProgramState, questions: list[str]) -> None:
        s += sg.system("You count.")
        for number, question in enumerate(questions):
            with s.user():
                s += question
            s += sg.assistant(sg.gen(f"answer_{number}"))

    with ScriptedBackend(answer, chat_format=chat_format) as backend:
        state = chat.run(["one?", "two?"], backend=backend)
        assert (state["answer_0"], state["answer_1"]) == ("1 questions", "2 questions")
        assert len(state.messages()) == 5


def test_tool_loop_selects_until_it_is_done() -> None:
    def score(prompt: str, choice: str) -> list[float]:
        return [-1.0 if (choice == "finish") == ("Result:" in prompt) else -5.0]

    def answer(prompt: str, params: SamplingParams) -> str:
        return " 17*3) then more"

    @sg.function
    def agent(s: sg.ProgramState, task: str) -> str:
        s += f"Task: {task}\n"
        for _ in range(5):
            s += "Action: " + sg.select("action", ["calculate", "finish"])
            if s["action"] == "finish":
                return s["result"]
            s += " (" + sg.gen("expression", stop=")") + ")\n"
            left, right = s["expression"].split("*")
            s["result"] = str(int(left) * int(right))
            s += f"Result: {s['result']}\n"
        raise AssertionError("the agent does not finish")

    with ScriptedBackend(answer, score=score) as backend:
        state = agent.run("17 times 3", backend=backend)
        assert state.ret_value == "51"
        assert state.text().endswith("Result: 51\nAction: finish")


def test_tree_of_thought_forks_forks() -> None:
    def answer(prompt: str, params: SamplingParams) -> str:
        return str(sum(map(ord, prompt)) % 7)

    @sg.function
    def think(s: sg.ProgramState, depth: int, width: int) -> list[str]:
        def grow(state: sg.ProgramState, level: int) -> list[str]:
            if level == depth:
                return [state.text()]
            forks = state.fork(width)
            forks += lambda index: f" {level}.{index}:" + sg.gen("thought")
            leaves = [leaf for fork in forks for leaf in grow(fork, level + 1)]
            forks.join()
            return leaves

        s += "Problem."
        return grow(s, 0)

    with ScriptedBackend(answer) as backend:
        leaves = think.run(3, 3, backend=backend).ret_value
        assert len(set(leaves)) == 27
        assert all(re.fullmatch(r"Problem\.( \d\.\d:\d){3}", leaf) for leaf in leaves)
        assert sum(call.name == "generate" for call in backend.calls) == 3 + 9 + 27


def test_parallel_tips_by_child_programs() -> None:
    @sg.function
    def expand(s: sg.ProgramState, tip: str) -> None:
        s += f"Expand: {tip}\n" + sg.gen("paragraph")

    @sg.function
    def tips(s: sg.ProgramState, topic: str) -> None:
        s += f"Tips on {topic}: 1. Sleep. 2. Walk.\n"
        children = [expand.run(tip=tip) for tip in ("sleep", "walk")]
        for child in children:
            s += child["paragraph"] + "\n"
        s += "In summary" + sg.gen("summary")

    def answer(prompt: str, params: SamplingParams) -> str:
        return prompt.split()[1] if prompt.startswith("Expand") else ", all is well."

    with ScriptedBackend(answer) as backend:
        state = tips.run("health", backend=backend)
        assert state.text().endswith("sleep\nwalk\nIn summary, all is well.")
        assert isinstance(state["summary"], str)


def test_experts_answer_in_parallel_and_a_judge_selects() -> None:
    def answer(prompt: str, params: SamplingParams) -> str:
        return " as " + prompt.rsplit("[", 1)[1].rstrip("]")

    @sg.function
    def panel(s: sg.ProgramState, question: str) -> None:
        s += question
        forks = s.fork(3)
        forks += lambda index: f" [expert {index}]" + sg.gen("opinion")
        forks.join()
        for index, opinion in enumerate(s["opinion"]):
            s += f"\n{index}:{opinion}"
        s += "\nBest: " + sg.select("best", ["0", "1", "2"], choices_method=sg.joint_likelihood)

    with ScriptedBackend(answer, score=lambda prompt, choice: [-abs(int(choice) - 1)]) as backend:
        state = panel.run("Why?", backend=backend)
        assert state["opinion"] == [" as expert 0", " as expert 1", " as expert 2"]
        assert state["best"] == "1"


def test_record_is_decoded_field_by_field() -> None:
    answers = iter(['"Paris"', "2100000\n", "2.5 ", "True"])

    @sg.function
    def city(s: sg.ProgramState) -> None:
        s += "A city:\n"
        with s.var_scope("record"):
            s += '{"name": ' + sg.gen_string("name") + ', "people": ' + sg.gen_int("people")
            s += ', "score": ' + sg.gen(dtype=float) + "}"
        s += sg.gen("capital", dtype=bool)

    with ScriptedBackend(lambda prompt, params: next(answers)) as backend:
        state = city.run(backend=backend)
        assert json.loads(state["record"]) == {"name": "Paris", "people": 2100000, "score": 2.5}
        assert (state["name"], state["people"], state["capital"]) == ("Paris", 2100000, True)


def test_constraints_reach_the_backend() -> None:
    @sg.function
    def constrained(s: sg.ProgramState) -> None:
        s += "x" + sg.gen("ip", regex=r"\d+\.\d+") + sg.gen("j", json_schema={"type": "integer"})

    with ScriptedBackend() as backend:
        constrained.run(backend=backend).sync()
        grammars = [call.value[1] for call in backend.calls if call.name == "generate"]
        assert grammars == [
            RegexSpec(r"\d+\.\d+"),
            JsonSchemaSpec('{"type":"integer"}', open_objects=False, plain_integers=True),
        ]


def test_same_program_as_def_and_async_def(chat_format: ChatFormat) -> None:
    @sg.function
    def plain(s: sg.ProgramState, topic: str) -> Any:
        s += sg.user(topic)
        s += sg.assistant(sg.gen("draft"))
        forks = s.fork(2)
        for fork in forks:
            fork += sg.user("Improve.") + sg.assistant(sg.gen("better"))
        forks.join()
        return [s["draft"], *s["better"]]

    @sg.function
    async def coroutine(s: sg.ProgramState, topic: str) -> Any:
        s += sg.user(topic)
        s += sg.assistant(sg.gen("draft"))
        forks = s.fork(2)
        for fork in forks:
            fork += sg.user("Improve.") + sg.assistant(sg.gen("better"))
        forks.join()
        return [await s.aget("draft"), *await s.aget("better")]

    def answer(prompt: str, params: SamplingParams) -> str:
        return f"v{prompt.count('Improve.')}"

    with ScriptedBackend(answer, chat_format=chat_format) as backend:
        calls = []
        for program in (plain, coroutine):
            backend.calls.clear()
            assert program.run("sea", backend=backend).ret_value == ["v0", "v1", "v1"]
            calls.append(
                [(call.name, repr(call.value)) for call in backend.calls if call.name in ("append", "generate")]
            )
        assert calls[0] == calls[1]
        assert asyncio.run(coroutine.arun("sea", backend=backend)).ret_value == ["v0", "v1", "v1"]
