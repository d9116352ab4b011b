import pytest

from seallm_jax.data.formats import MalformedRecordError, to_conversation, to_preference
from seallm_jax.data.message import Message
from seallm_jax.data.records import Record

U, A, S, TOOL = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system", "tool"))
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
OWN_TAGS = {
    "formatting": "sharegpt",
    "columns": {"messages": "talk", "system": "rules"},
    "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "orang", "assistant_tag": "mesin"},
}


@pytest.mark.parametrize(
    ("value", "layout", "expected"),
    [
        ({"messages": MESSAGES}, {}, [U("q"), A("a")]),
        ({"messages": [*MESSAGES, {"role": "user", "content": "unanswered"}]}, {}, [U("q"), A("a")]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, MESSAGES[1]]},
            {},
            [U("q"), A("a")],
        ),
        ({"conversations": SHAREGPT, "system": "s"}, {}, [S("s"), U("q"), A("a")]),
        (
            {
                "conversations": [
                    *SHAREGPT,
                    {"from": "function_call", "value": "f"},
                    {"from": "observation", "value": "o"},
                    SHAREGPT[1],
                ]
            },
            {},
            [U("q"), A("a"), A("f"), TOOL("o"), A("a")],
        ),
        ({"instruction": "do", "input": "", "output": "a"}, {}, [U("do"), A("a")]),
        ({"instruction": "do", "input": "this", "output": "a"}, {}, [U("do\nthis"), A("a")]),
        (
            {"instruction": "q2", "output": "a2", "system": "s", "history": [["q1", "a1"]]},
            {},
            [S("s"), U("q1"), A("a1"), U("q2"), A("a2")],
        ),
        ({"prompt": "q", "completion": "a"}, {}, [U("q"), A("a")]),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, {}, [U("q"), A("a")]),
        (
            {"talk": [{"who": "orang", "says": "q"}, {"who": "mesin", "says": "a"}], "rules": "s"},
            OWN_TAGS,
            [S("s"), U("q"), A("a")],
        ),
        (
            {"ask": "q", "more": "x", "reply": "a", "before": [["q0", "a0"]]},
            {"columns": {"prompt": "ask", "query": "more", "response": "reply", "history": "before"}},
            [U("q0"), A("a0"), U("q\nx"), A("a")],
        ),
    ],
)
def test_formats_of_instructions(value, layout, expected):
    assert list(to_conversation(Record(value, "f:1", layout)).messages) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {
            "prompt": MESSAGES[:1],
            "chosen": {"role": "assistant", "content": "good"},
            "rejected": [{"from": "gpt", "value": "bad"}],
        },
        {
            "conversations": SHAREGPT[:1],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {
            "chosen": [*MESSAGES[:1], {"role": "assistant", "content": "good"}],
            "rejected": [*MESSAGES[:1], {"role": "assistant", "content": "bad"}],
        },
        {
            "prompt": "q",
            "chosen": [*MESSAGES[:1], {"role": "assistant", "content": "good"}],
            "rejected": [*MESSAGES[:1], {"role": "assistant", "content": "bad"}],
        },
    ],
)
def test_formats_of_preferences(value):
    pair = to_preference(Record(value, "f:1"))
    assert (list(pair.prompt), pair.chosen, pair.rejected) == ([U("q")], A("good"), A("bad"))


def test_language_and_position_are_kept():
    assert to_conversation(Record({"messages": MESSAGES, "lang": "km"}, "f:7")).language == "km"
    assert to_conversation(Record({"messages": MESSAGES, "language": "lo"}, "f:7")).position == "f:7"
    layout = {"columns": {"prompt": "x", "response": "y"}}
    assert to_conversation(Record({"x": "q", "y": "a", "lang": "th"}, "f:7", layout)).language == "th"
    assert to_conversation(Record({"messages": MESSAGES}, "f:7")).text == "q\na"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "unreadable"),
        ({"text": "running text"}, "unknown format"),
        ({"messages": MESSAGES[:1]}, "no reply"),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": "  "}]}, "no reply"),
        ({"messages": [{"role": "narrator", "content": "q"}]}, "unknown role"),
        ({"messages": [{"role": "user", "content": None}]}, "content is not text"),
        ({"messages": ["q", "a"]}, "turns are not objects"),
        ({"instruction": "q"}, "no reply"),
        ({"instruction": "q", "output": "a", "history": ["x"]}, "history is not made of pairs"),
    ],
)
def test_what_is_no_conversation_says_why(value, reason):
    with pytest.raises(MalformedRecordError, match=reason):
        to_conversation(Record(value, "f:1"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"prompt": "q", "chosen": "good"}, "no chosen or no rejected"),
        ({"prompt": "q", "chosen": "same", "rejected": "same"}, "equal replies"),
        ({"prompt": "q", "chosen": " ", "rejected": "bad"}, "empty reply"),
        ({"chosen": "good", "rejected": "bad"}, "no prompt"),
        ({"prompt": "q", "chosen": MESSAGES, "rejected": "bad"}, "more than one turn"),
    ],
)
def test_what_is_no_pair_says_why(value, reason):
    with pytest.raises(MalformedRecordError, match=reason):
        to_preference(Record(value, "f:1"))
