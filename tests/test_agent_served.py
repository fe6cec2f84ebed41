"""A language model plans: budgets, refusals, retries, endless loops, "cannot tell".

The server is scripted, everything on this side of it is real: the client, LangChain's loop, the
tools, the embedded model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("langchain_openai")

from avqa_llm.agent import Agent, Report, Step
from avqa_llm.agent.served import Budget
from avqa_llm.asking import SAMPLES
from avqa_llm.cli import main
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AgentError, AVQAError
from avqa_llm.media import Clip
from tests.scripted_server import Handler, Reply

QUESTION = "Is the violin louder than the guzheng?"


class Plan:
    """What the server says, turn after turn; `verdict` where a reply is wanted in a shape."""

    def __init__(self, *turns: Any, verdict: Any = None) -> None:
        self.turns = list(turns)
        self.verdict = verdict or {"answer": "no", "cannot_tell": False, "because": "compare"}
        self.finish = "stop"
        self.faults: list[Reply | float] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.delay_s = 0.0
        self.lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> Reply:
        if "response_format" in body:
            text = self.verdict if isinstance(self.verdict, str) else json.dumps(self.verdict)
            return 200, {}, self._completion({"role": "assistant", "content": text})
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        if isinstance(turn, str):
            return 200, {}, self._completion({"role": "assistant", "content": turn})
        calls = [
            {
                "id": f"call{len(self.bodies)}_{n}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for n, (name, arguments) in enumerate(turn)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return 200, {}, self._completion(message)

    def _completion(self, message: dict[str, Any]) -> dict[str, Any]:
        finish = "tool_calls" if message.get("tool_calls") else self.finish
        choice = {"index": 0, "message": message, "finish_reason": finish}
        used = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "planner"} | {
            "choices": [choice],
            "usage": used,
        }

    def told(self) -> list[str]:
        """Contents of the tool messages of the last request."""
        return [m["content"] for m in self.bodies[-1]["messages"] if m["role"] == "tool"]


class Server:
    """A server whose plan can be exchanged."""

    def __init__(self) -> None:
        self.handler = type("Scripted", (Handler,), {"script": Plan("nothing")})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def follows(self, plan: Plan) -> Plan:
        self.handler.script = plan  # type: ignore[attr-defined]
        return plan


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine.load("tiny")


@pytest.fixture(scope="module")
def duo(engine: LocalEngine) -> Clip:
    return engine.read(SAMPLES / "duo.mp4")


def run(
    engine: LocalEngine, clip: Clip, server: Server, plan: Plan, **budget: Any
) -> tuple[list[Step], Report]:
    server.follows(plan)
    agent = Agent.served(
        engine, base_url=server.url, llm="planner", key="secret", budget=Budget(**budget)
    )
    *steps, report = agent.run(clip, QUESTION)
    assert isinstance(report, Report) and report.steps == tuple(steps)
    return steps, report  # type: ignore[return-value]


COMPARE = ("compare", {"quantity": "loudness", "one": "violin", "other": "guzheng"})


def test_tools_are_called_and_an_answer_is_given(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan(
        [("describe_clip", {})],
        [COMPARE, ("measure", {"quantity": "loudness", "start_s": 0, "end_s": 1})],
        "done",
    )
    steps, report = run(engine, duo, server, plan)
    assert [step.tool for step in steps] == ["describe_clip", "compare", "measure"]
    assert [step.kind for step in steps] == ["model", "model", "measured"]
    assert (report.answer.answer, report.answer.label) == ("no", "no")
    assert (report.planner, report.calls, report.extra["ended"]) == ("planner", 3, "done")
    assert report.answer.evidence and report.answer.consumed
    assert all(
        {name.lower(): value for name, value in sent.items()}["authorization"] == "Bearer secret"
        for sent in plan.headers
    )


def test_no_media_leave(engine: LocalEngine, duo: Clip, server: Server) -> None:
    plan = Plan([("describe_clip", {}), ("ask", {"question": QUESTION})], "done")
    run(engine, duo, server, plan)
    sent = json.dumps(plan.bodies)
    assert "data:" not in sent and len(sent) < 60_000
    assert {type(m["content"]) for b in plan.bodies for m in b["messages"] if m.get("content")} == {
        str
    }


def test_the_shape_is_asked_for_only_at_the_end(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan([COMPARE], "done")
    run(engine, duo, server, plan)
    assert ["response_format" in body for body in plan.bodies] == [False, False, True]
    assert ["tools" in body for body in plan.bodies] == [True, True, False]


def test_it_may_say_that_it_cannot_tell(engine: LocalEngine, duo: Clip, server: Server) -> None:
    verdict = {"answer": "yes", "cannot_tell": True, "because": "nothing says it"}
    _, report = run(engine, duo, server, Plan([COMPARE], "done", verdict=verdict))
    assert (report.answer.answer, report.answer.label) == ("cannot tell", "no_answer")


def test_a_tool_that_refuses_is_told_to_the_planner(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    wrong = ("listen", {"start_s": 50, "end_s": 60, "question": "What is it?"})
    plan = Plan([wrong, ("find", {"what": "joy"})], [COMPARE], "done")
    steps, report = run(engine, duo, server, plan)
    assert [step.failed for step in steps] == [True, True, False]
    assert all("refused: " in text for text in plan.told()[:2])
    assert "give 0 <= start < end <= " in plan.told()[0]
    assert report.answer.label == "no"


@pytest.mark.parametrize(
    "call", [("explode", {}), ("measure", {"quantity": 5}), ("listen", {"start_s": "soon"})]
)
def test_tools_and_arguments_that_do_not_exist_end_nothing(
    engine: LocalEngine, duo: Clip, server: Server, call: tuple[str, dict[str, Any]]
) -> None:
    plan = Plan([call], "done")
    steps, report = run(engine, duo, server, plan)
    assert steps == [] and len(plan.told()) == 1
    assert report.answer.label == "no"


def test_an_endless_loop_ends_with_its_budget(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan([COMPARE])
    steps, report = run(engine, duo, server, plan, calls=5)
    assert (report.calls, report.extra["ended"]) == (5, "budget")
    assert [step.failed for step in steps] == [False, False, True, True, True]
    assert len(plan.bodies) <= 5 + 3


def test_a_loop_of_unknown_tools_ends_too(engine: LocalEngine, duo: Clip, server: Server) -> None:
    plan = Plan([("explode", {})])
    _, report = run(engine, duo, server, plan, calls=3)
    assert report.extra["ended"] == "budget" and len(plan.bodies) <= 3 + 3


def test_many_calls_at_once_do_not_pass_the_budget(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    many = [("measure", {"quantity": "level", "start_s": n / 4, "end_s": 9}) for n in range(20)]
    plan = Plan(many, "done")
    _, report = run(engine, duo, server, plan, calls=4)
    assert report.calls == 4
    assert len(plan.told()) == 20  # no call is left without a word, which servers refuse
    assert sum("budget" in text for text in plan.told()) == 16


def test_when_time_is_up_the_model_answers_itself(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan([("describe_clip", {})], [COMPARE], "done")
    plan.delay_s = 0.3
    steps, report = run(engine, duo, server, plan, seconds=0.5)
    assert report.extra["ended"] == "budget"
    assert steps[-1].tool == "ask"
    assert any("this is the model's own" in warning for warning in report.answer.warnings)
    assert report.answer.label == engine.answer(duo, [QUESTION])[0].label


@pytest.mark.parametrize("verdict", ["no idea", '{"answer": 5}', '["no"]', '{"answer": "no"}'])
def test_an_answer_in_no_shape_is_not_guessed_at(
    engine: LocalEngine, duo: Clip, server: Server, verdict: str
) -> None:
    _, report = run(engine, duo, server, Plan([COMPARE], "done", verdict=verdict))
    assert report.extra["ended"] == "unreadable"
    assert any("not in the shape" in warning for warning in report.answer.warnings)


def test_an_answer_that_is_cut_off_is_not_guessed_at(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan([COMPARE], "done", verdict='{"answer": "no", "cannot_tell": fal')
    plan.finish = "length"
    _, report = run(engine, duo, server, plan)
    assert report.extra["ended"] == "unreadable" and report.steps[-1].tool == "ask"


def test_a_request_that_fails_is_sent_again(engine: LocalEngine, duo: Clip, server: Server) -> None:
    plan = Plan([COMPARE], "done")
    plan.faults = [(503, {}, {"error": {"message": "busy"}})]
    _, report = run(engine, duo, server, plan, retries=1)
    assert report.answer.label == "no" and len(plan.bodies) == 4


def test_a_server_that_refuses_is_one_sentence(
    engine: LocalEngine, duo: Clip, server: Server
) -> None:
    plan = Plan([COMPARE], "done")
    plan.faults = [(401, {}, {"error": {"message": "wrong key"}})]
    with pytest.raises(AVQAError, match="planner cannot be asked .*wrong key.*check --base-url"):
        run(engine, duo, server, plan)


@pytest.mark.parametrize("budget", [{"calls": 0}, {"seconds": 0.0}, {"retries": -1}])
def test_a_budget_of_nothing_is_refused(budget: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="give at least one call"):
        Budget(**budget)


def test_the_command_asks_a_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.follows(Plan([COMPARE], "done"))
    arguments = ["agent", str(SAMPLES / "duo.mp4"), QUESTION, "--base-url", server.url]
    assert main([*arguments, "--llm", "planner"]) == 0
    said = capsys.readouterr().out
    assert "compare(loudness, violin, guzheng)" in said and "planned by planner" in said
