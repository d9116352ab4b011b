"""The page: every section when there is data, none without, and no text that can break it."""

import dataclasses
import html.parser
import math
import re

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.manifest import installed_versions
from seallm_jax.evaluation.report import ReportData, build_report, cell, column_cells, duration, percent

EVIL = '<script>alert("x")</script> & </pre></div> {{ 7 * 7 }} \u202e \x00 \x1b \ud800 \ufffe ﷽ ကြီး 🙂'
VOID = {"meta", "img", "source", "br", "link"}


class Checker(html.parser.HTMLParser):
    """Counts elements, collects text and addresses, and insists that tags are closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.ids, self.addresses, self.links, self.text = [], [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.addresses += [values[key] for key in ("src", "srcset") if key in values]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.stack[-1:] == ["style"] else data


def check(path):
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.stack == [] and "script" not in checker.tags
    assert all(address.startswith("data:image/svg+xml;base64,") for address in checker.addresses)
    assert not re.search(r"https?://|url\(|@import", page)
    assert sorted(checker.links) == sorted(f"#{name}" for name in checker.ids)
    return checker


def accuracy(value, error=0.05):
    return {"value": value, "standard_error": error}


def lines(codes, metrics=()):
    return [
        {
            "step": step,
            "tokens": step * 10_000,
            "loss": None if step == 3 else 3.0 / step,
            "loss_by_language": {code: 2.0 / step for code in codes if step % 2 or code == "en"},
            "learning_rate": 1e-3 / step,
            "tokens_per_second": 512.0,
            "skipped_updates": 0,
            "metrics": dict.fromkeys(metrics, 0.5 + step / 100),
            "seconds": 12.5 * step,
        }
        for step in range(1, 8)
    ]


def full_data():
    codes = ["en", "km", "lo", "my", "xx"]
    fertility = {"documents": 3, "characters": 900, "bytes": 2000, "base_tokens": 800, "extended_tokens": 400}
    fertility |= {"base_tokens_per_byte": 0.4, "extended_tokens_per_byte": 0.2, "ratio": 0.5, "unchanged": 0.25}
    stages = {"base": 1.0, "pretrain": 0.5, "preference": 0.6}
    preference = {"pairs": 40, "accuracy": accuracy(0.5), "accuracy_normalized": accuracy(0.6), "margin": 0.1}
    choice = {"items": 20, "chance": 0.25, "accuracy": accuracy(0.3), "accuracy_normalized": accuracy(0.4)}
    return ReportData(
        name="a run",
        date="2026-01-01",
        config_digest="0123456789abcdef" * 4,
        config={"name": "a run", "seed": 0},
        versions=installed_versions(),
        seconds={"corpus": 4.0, "pretrain": 3671.0},
        command="seallm run --config=configs/a.py --workdir=run",
        corpus=[{"language": "km", "name": "Khmer", "kept": 1200, "KB kept": 34.5, "label confirmed": "97%"}],
        dropped=[{"reason": "near duplicate", "documents": 7, "languages": "km 7", "which begins": "…"}],
        fertility=[
            {"language": c, "name": c, "base_relative": 2.0, "extended_relative": 1.0} | fertility for c in codes
        ],
        mixture=[
            {"stage": stage, "source": "text/km", "tokens": 1_000_000, "share": 0.125, "epochs": 1.5, "notes": notes}
            for stage, notes in (("adapt", "text/ban was capped."), ("anneal", ""))
        ],
        training={"pretrain": lines(codes), "preference": lines(["en"], ("rewards/accuracies", "rewards/margins"))},
        bits_per_byte={
            stage: {
                code: {"bits_per_byte": factor * (1 + index), "bytes": 500, "standard_error": 0.1 if index else None}
                for index, code in enumerate(codes)
            }
            for stage, factor in stages.items()
        },
        choices={
            "base": [choice | {"task": task, "language": "km"} for task in ("xcopa", "quiz")],
            "final": [choice | {"task": "quiz", "language": code} for code in ("km", "lo")],
        },
        preferences={
            "sft": {"km": preference | {"implicit_accuracy": None}},
            "preference": {code: preference | {"implicit_accuracy": accuracy(0.8)} for code in ("km", "en")},
        },
        generations=[{"language": "km", "prompt": "សួស្តី", "outputs": {"base": "…", "final": "ជំរាបសួរ"}}],
        export={"path": "run/export", "dtype": "bfloat16", "parameters": 21_300_000},
    )


SECTIONS = ("corpus", "fertility", "mixture", "training", "bits", "choices", "preferences", "generations", "use")


def test_a_full_report(tmp_path):
    checker = check(build_report(full_data(), tmp_path))
    assert checker.ids == [*SECTIONS, "reproduce"]
    assert "ជំរាបសួរ" in checker.text and "near duplicate" in checker.text
    text = " ".join(checker.text.split())
    # (2 + 3 + 4 + 5) / 4 = 3.5 goes to 60 %, and so does English
    assert "Bits per byte went from 3.50 to 2.10 on average over 4 languages other than English (−40.0%)" in text
    assert "English −40.0%" in text and "1 h 01 min in all" in text
    assert "seallm run --config=configs/a.py" in text and 'from_pretrained("run/export")' in text


def test_the_same_data_give_the_same_page(tmp_path):
    first = build_report(full_data(), tmp_path / "first").read_bytes()
    assert first == build_report(full_data(), tmp_path / "second").read_bytes()


def test_stages_that_were_not_run_are_left_out(tmp_path):
    checker = check(build_report(ReportData(name="empty"), tmp_path))
    assert checker.ids == [] and "h2" not in checker.tags and "table" not in checker.tags
    full = full_data()
    fields = {field.name for field in dataclasses.fields(ReportData)} - {"name", "mixture_plot"}
    for name in sorted(fields):
        empty = type(getattr(full, name))() if not isinstance(getattr(full, name), str) else None
        only = dataclasses.replace(ReportData(name="one"), **{name: getattr(full, name)})
        check(build_report(only, tmp_path))
        check(build_report(dataclasses.replace(ReportData(name="none"), **{name: empty}), tmp_path))


def test_a_single_stage_has_no_change(tmp_path):
    data = full_data()
    single = dataclasses.replace(
        ReportData(name="single"),
        bits_per_byte={"base": data.bits_per_byte["base"]},
        choices={"base": data.choices["base"]},
        preferences={"sft": data.preferences["sft"]},
    )
    checker = check(build_report(single, tmp_path))
    assert checker.ids == ["bits", "choices", "preferences"] and "went from" not in checker.text


def test_no_text_breaks_the_page(tmp_path):
    data = dataclasses.replace(
        full_data(),
        name=EVIL,
        date=EVIL,
        command=EVIL,
        config={EVIL: EVIL},
        versions={EVIL: EVIL},
        seconds={EVIL: 1.0},
        corpus=[{"language": EVIL, EVIL: EVIL}],
        dropped=[{"reason": EVIL, "which begins": EVIL}],
        mixture=[full_data().mixture[0] | {"stage": EVIL, "source": EVIL, "notes": EVIL}],
        generations=[{"language": EVIL, "prompt": EVIL, "outputs": {EVIL: EVIL, "empty": " "}}],
        training={"$x$": lines(["$\\frac"])},
        export={"path": EVIL, EVIL: EVIL},
    )
    checker = check(build_report(data, tmp_path))
    assert checker.text.count('alert("x")') > 10 and "49" not in checker.text
    assert "(nothing)" in checker.text and "\ufffd" in checker.text
    assert not set("\x00\x1b\ufffe") & set(checker.text)


def test_long_generations_are_cut(tmp_path):
    long = [{"language": "th", "prompt": "ก", "outputs": {"final": "ข" * 100_000}}]
    path = build_report(dataclasses.replace(ReportData(name="long"), generations=long), tmp_path)
    assert 4000 <= check(path).text.count("ข") < 5000


def test_the_mixture_plot_is_embedded(tmp_path):
    plot = tmp_path / "mixture.svg"
    plot.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    checker = check(build_report(ReportData(name="m", mixture_plot=plot), tmp_path / "report"))
    assert checker.ids == ["mixture"] and len(checker.addresses) == 1
    with pytest.raises(SeallmError, match="cannot read the mixture plot"):
        build_report(ReportData(name="m", mixture_plot=tmp_path / "none.png"), tmp_path)
    with pytest.raises(SeallmError, match="must be an .svg or a .png"):
        build_report(ReportData(name="m", mixture_plot=tmp_path / "mixture.pdf"), tmp_path)


def test_heat_grows_with_the_change(tmp_path):
    page = build_report(dataclasses.replace(full_data(), name="heat"), tmp_path).read_text(encoding="utf-8")
    strengths = [int(found) for found in re.findall(r"--strength: (\d+)", page)]
    assert set(strengths) == {0, 83, 67}  # unchanged, 50 % and 40 % of the 60 % that have the strongest colour


def test_numbers_as_people_write_them():
    assert [cell(value) for value in (1234567, 0.12345, 1e-5, 1234.5, None, math.nan, True)] == [
        "1,234,567",
        "0.123",
        "1e-05",
        "1,234",
        "–",
        "–",
        "yes",
    ]
    assert [percent(value, sign=True) for value in (0.5, -0.031, -0.0001, None)] == ["+50.0%", "−3.1%", "0.0%", "–"]
    assert [duration(value) for value in (4.13, 200, 3725, None)] == ["4.1 s", "3 min 20 s", "1 h 02 min", "–"]
    rows = [{"a": value} for value in (836.0, 1454.7, 0.5)]
    assert column_cells(rows, "a") == ["836.0", "1,454.7", "0.5"]
    assert column_cells([{"a": 1 / 3}, {"a": 2}, {}], "a") == ["0.333", "2", ""]


def test_the_dark_plots_have_other_colours(tmp_path):
    checker = check(build_report(full_data(), tmp_path))
    pairs = list(zip(checker.addresses[0::2], checker.addresses[1::2], strict=True))
    assert pairs and all(light != dark for light, dark in pairs)
