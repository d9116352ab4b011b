"""What `seallm plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seallm_jax.cli.tables import print_table

if TYPE_CHECKING:
    from seallm_jax.planning.generation import GenerationPlan
    from seallm_jax.planning.plan import Plan
    from seallm_jax.planning.search import Search, Trial
    from seallm_jax.planning.step_time import StepTime

GIB = 2**30


def show_plan(title: str, plan: Plan) -> None:
    """Memory of a device, and where it fits the predicted time."""
    print_table(title, [{"": name, "value": value} for name, value in [*_setting(plan), *_memory(plan)]])
    if plan.time is not None:
        print_table("predicted time of a step (no TPU has run it)", [*_time(plan.time)])
        rows = _rates(plan, plan.time)
        print_table("predicted speed", [{"": name, "value": value} for name, value in rows])
        print(f"error: {plan.time.error}\n")
    elif plan.time_missing:
        print(f"no prediction of the time: {plan.time_missing}\n")


def show_search(search: Search, stage: str) -> None:
    """What was compiled, the fastest that fits, and how to set a config to it."""
    own = search.trials[0].candidate.batch_rows
    best, best_own = search.best(), search.best(own)
    ranked = sorted(search.trials, key=lambda trial: (not trial.fits, -_speed(trial)))
    print_table("compiled, times are predictions", [_trial(trial, trial is best) for trial in ranked])
    if best is None:
        print("none of them fits")
        return
    if best_own is not None:
        _paste(f"best with {own} rows a step", best_own, stage, search.trials[0])
    if best is not best_own:
        _paste("faster, with more rows a step, which changes what the optimizer sees", best, stage, search.trials[0])


def show_remedy(search: Search, stage: str, larger: str | None) -> None:
    """What would fit where the config does not."""
    tried, fitting = search.trials[1:], search.best()
    if tried:
        print_table("compiled to find what fits", [_trial(trial, trial.fits) for trial in tried])
    if fitting is not None:
        _paste("this fits", fitting, stage, search.trials[0])
    elif not tried:
        print("by rules of thumb no mesh, remat policy or accumulation fits on this slice")
    if larger is not None:
        print(f"{'also' if fitting else 'not compiled, but'} should fit: --topology={larger}")
    print("--search compiles more of what could fit\n")


def show_generation(title: str, plan: GenerationPlan) -> None:
    """Memory of generation, and its predicted speed."""
    rows = [
        ("topology", f"{plan.topology}, {plan.devices} devices"),
        ("mesh", _mesh(plan.mesh)),
        ("prompts", f"{plan.rows} of {plan.positions} tokens, and {plan.new_tokens} new tokens each"),
        ("parameters", gib(plan.parameter_bytes)),
        ("cache", gib(plan.cache_bytes)),
        *_verdict(plan),
    ]
    if plan.prefill is not None and plan.decode is not None and plan.tokens_per_second is not None:
        prompt_tokens = plan.rows * plan.positions / plan.prefill.seconds
        rows += [
            ("reading the prompts, predicted", f"{seconds(plan.prefill.seconds)}, {prompt_tokens:,.0f} tokens/s"),
            (
                "a token for each, predicted",
                f"{seconds(plan.decode.seconds)}, {plan.rows / plan.decode.seconds:,.0f} tokens/s",
            ),
            ("new tokens, all in all, predicted", f"{plan.tokens_per_second:,.0f} tokens/s"),
        ]
    rows.append(("compiled in", f"{plan.compile_seconds:.1f} s"))
    print_table(title, [{"": name, "value": value} for name, value in rows])
    if plan.decode is not None:
        print_table("where the time of a token goes, predicted", [*_time(plan.decode)])
        print(f"error: of generation nothing was compared; of training, {plan.decode.error}\n")
    elif plan.time_missing:
        print(f"no prediction of the time: {plan.time_missing}\n")


def outcome(plan: Plan) -> str:
    """What came of a compilation, in a few words."""
    if not plan.fits:
        return f"does not fit, by {gib(plan.exceeds_bytes)}" if plan.exceeds_bytes else "does not fit"
    speed = f", {seconds(plan.time.seconds)} a step predicted" if plan.time is not None else ""
    return f"{gib(plan.peak_bytes)} of {gib(plan.capacity_bytes)}{speed}"


def gib(size: float) -> str:
    """Bytes as text."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"


def seconds(value: float) -> str:
    """A duration as text."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _setting(plan: Plan) -> list[tuple[str, str]]:
    micro = f" in {plan.accumulation} micro-batches" if plan.accumulation > 1 else ""
    return [
        ("topology", f"{plan.topology}, {plan.devices} devices"),
        ("mesh", _mesh(plan.mesh)),
        ("step", f"{plan.batch_rows} rows x {plan.sequence_length} positions{micro}, remat={plan.remat}"),
    ]


def _memory(plan: Plan) -> list[tuple[str, str]]:
    rows = [
        ("parameters", gib(plan.parameter_bytes)),
        ("optimizer state", gib(plan.optimizer_bytes)),
        ("batch", gib(plan.batch_bytes)),
    ]
    if plan.fits:
        rows += [(name, gib(size)) for name, size in plan.memory().items() if name not in dict(rows)]
    else:
        rows.append(("gradients", gib(plan.gradient_bytes)))
    if plan.host_bytes:
        rows.append(("host memory, for each device", gib(plan.host_bytes)))
    rows += _verdict(plan)
    return [
        *rows,
        ("model FLOPs", f"{plan.model_flops / 1e12:.4g} TFLOP per device and step"),
        ("compiled in", f"{plan.compile_seconds:.1f} s"),
    ]


def _verdict(plan: Plan | GenerationPlan) -> list[tuple[str, str]]:
    if plan.fits:
        share = plan.peak_bytes / plan.capacity_bytes
        return [("peak", f"{gib(plan.peak_bytes)} of {gib(plan.capacity_bytes)} ({share:.0%})"), ("verdict", "fits")]
    needed = "more memory" if plan.needed_bytes is None else gib(plan.needed_bytes)
    verdict = f"does not fit, by {gib(plan.exceeds_bytes)}" if plan.exceeds_bytes else "does not fit"
    return [("needed", f"{needed} of {gib(plan.capacity_bytes)}"), ("verdict", verdict)]


def _time(time: StepTime) -> list[dict[str, str]]:
    parts = sorted(time.parts.items(), key=lambda part: -part[1])
    rows = [
        {"part": name.replace("_", " "), "time": seconds(value), "share": _share(value, time)} for name, value in parts
    ]
    total = {"part": "whole step", "time": seconds(time.seconds), "share": ""}
    hidden = {"part": "collectives behind other work", "time": seconds(time.hidden_collective_seconds), "share": ""}
    bounds = [
        {"part": "whole step, by roofline alone", "time": seconds(time.roofline_seconds), "share": ""},
        {"part": "whole step, by the compiler alone", "time": seconds(time.compiler_seconds), "share": ""},
    ]
    return [*rows, total, hidden, *bounds]


def _share(value: float, time: StepTime) -> str:
    return f"{value / time.seconds:.1%}"


def _rates(plan: Plan, time: StepTime) -> list[tuple[str, str]]:
    from seallm_jax.data.plot import format_tokens

    tokens = plan.step_tokens / time.seconds
    rows = [
        ("tokens/s", f"{tokens:,.0f}, {tokens / plan.devices:,.0f} a device"),
        ("tokens per day", format_tokens(86_400 * tokens)),
    ]
    if plan.peak_flops:
        causal, full = plan.utilization(causal=True) or 0.0, plan.utilization(causal=False) or 0.0
        executed = time.executed_flops / time.seconds / plan.peak_flops
        rows.append(("MFU", f"{causal:.1%} with causal attention, {full:.1%} with full attention"))
        rows.append(("matrix units in use", f"{executed:.1%}, recomputation included"))
    if plan.days is not None:
        length = f"{plan.days:,.1f} days" if plan.days >= 2 else f"{24 * plan.days:,.1f} hours"
        rows.append(("whole stage", f"{format_tokens(plan.schedule_tokens)} tokens in {length} of steps"))
    return rows


def _trial(trial: Trial, chosen: bool) -> dict[str, str]:
    candidate, plan = trial.candidate, trial.plan
    row = {
        "": "best" if chosen else "",
        "mesh": _mesh({axis: getattr(candidate.mesh, axis) for axis in ("data", "fsdp", "context", "tensor")}),
        "remat": candidate.remat,
        "rows": f"{candidate.batch_rows:,}",
        "on a device": f"{candidate.accumulation} x {candidate.rows_on_a_device}",
        "memory": "",
        "step": "",
        "tokens/s": "",
        "MFU": "",
    }
    if plan is None:
        return row | {"memory": "refused", "step": trial.refused[:60]}
    if not plan.fits:
        return row | {"memory": f"over by {gib(plan.exceeds_bytes)}" if plan.exceeds_bytes else "too large"}
    row["memory"] = gib(plan.peak_bytes)
    if plan.time is not None:
        row["step"], row["tokens/s"] = seconds(plan.time.seconds), f"{plan.tokens_per_second:,.0f}"
        row["MFU"] = f"{plan.utilization(causal=True) or 0:.1%}"
    return row


def _speed(trial: Trial) -> float:
    return (trial.plan.tokens_per_second if trial.plan is not None else None) or 0.0


def _paste(title: str, trial: Trial, stage: str, first: Trial) -> None:
    plan = trial.plan
    assert plan is not None
    gain = ""
    if plan.tokens_per_second and first.plan is not None and first.plan.tokens_per_second and trial is not first:
        gain = f", {plan.tokens_per_second / first.plan.tokens_per_second:.2f} x the config as it is"
    speed = f", {plan.tokens_per_second:,.0f} tokens/s predicted{gain}" if plan.tokens_per_second else ""
    print(f"{title}: {gib(plan.peak_bytes)}{speed}")
    overrides = trial.candidate.overrides(stage, first.candidate)
    print("  " + (" ".join(overrides) or "the config as it is") + "\n")


def _mesh(mesh: dict[str, int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "one device"
