"""The commands `hearth bench …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hearth.cli_options import DataDirOption, JsonOption, ModelOption, SpeechModelOption
from hearth.terminal import aside, one_line, print_json

DIGITS = 6  # of seconds and bytes in JSON

bench = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Measure a model on this machine.")
TokensOption = Annotated[
    int | None, typer.Option("--tokens", metavar="N", min=16, help="Tokens of the prompt; as fits if left out.")
]


@bench.command("engine")
def bench_engine(
    model: ModelOption = None, tokens: TokensOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Tokens a second: reading a prompt, answering, answering several chats together."""
    from hearth.bench import bench_engine as measure
    from hearth.settings import Settings

    result = measure(Settings(model=model, data_dir=data_dir), tokens, _say)
    if as_json:
        print_json(_rounded(asdict(result)))
        return
    typer.echo(f"{result.model}, KV {result.kv_type}")
    typer.echo(f"reading        {result.prefill_tokens_per_s:10.1f} tokens/s   ({result.prompt_tokens:,} tokens)")
    typer.echo(f"answering      {result.decode_tokens_per_s:10.1f} tokens/s   ({result.decoded_tokens:,} tokens)")
    typer.echo(f"{f'{result.parallel} together':<14} {result.parallel_tokens_per_s:10.1f} tokens/s")
    typer.echo(f"own time       {result.step_overhead_us:10.1f} µs a token")


@bench.command("kv")
def bench_kv(
    model: ModelOption = None, tokens: TokensOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """What a chat costs after a restart, read from disk instead of computed again."""
    from hearth.bench import bench_kv as measure
    from hearth.settings import Settings

    result = measure(Settings(model=model, data_dir=data_dir), tokens, _say)
    if as_json:
        print_json(_rounded(asdict(result)))
        return
    theory = result.theoretical_bytes_per_token
    typer.echo(f"{result.model}, KV {result.kv_type}, a chat of {result.prefix_tokens:,} tokens")
    typer.echo(f"first token, computed        {result.cold_ttft_s:9.3f} s")
    typer.echo(f"first token, after a restart {result.restart_ttft_s:9.3f} s   ({result.ratio:.4f} of it)")
    typer.echo(f"restored from disk           {result.restored_tokens:9,} tokens")
    typer.echo(f"identical answer             {result.identical_tokens:9,} of {result.compared_tokens} tokens")
    typer.echo(
        f"on disk                      {result.bytes_per_token:9,.0f} bytes a token"
        + (f"   (in theory {theory:,.0f})" if theory is not None else "")
    )
    if not result.restored_tokens:
        aside("nothing was saved: reading so short a chat again is as quick; try a larger --tokens")


@bench.command("quant")
def bench_quant(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF, best of F16, BF16 or F32.")],
    types: Annotated[
        str, typer.Option("--types", metavar="LIST", help="What to quantize it to, separated by commas.")
    ] = "Q8_0,Q4_K_M,Q4_0",
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="A text to read; a sample if left out.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=32, help="Of the text, at most.")] = 2048,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it, as PNG, SVG or PDF.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare quantizations of a model: size, speed, perplexity, and how near they stay to the original."""
    from hearth.bench_quant import bench_quant as measure
    from hearth.quant_plot import check_plot_path, draw

    if plot is not None:
        check_plot_path(plot)
    wanted = list(dict.fromkeys(kind.strip() for kind in types.split(",") if kind.strip()))
    result = measure(model.expanduser(), wanted, text=text, max_tokens=tokens, say=_say)
    if plot is not None:
        draw(result, plot)
    if as_json:
        print_json(_rounded(asdict(result)))
        return
    typer.echo(f"{one_line(result.model)}, {result.n_tokens:,} scored tokens of {one_line(result.text)}")
    typer.echo("type            MB  bits  reading/s  answering/s   perplexity          same first    KL, nats")
    for row in result.rows:
        perplexity = "–" if row.perplexity is None else f"{row.perplexity:,.3f} ± {row.perplexity_error or 0:,.3f}"
        kl = "–" if row.mean_kl is None else f"{row.mean_kl:.5f}"
        typer.echo(
            f"{row.type:<10} {row.size_bytes / 1e6:8.1f} {row.bits_per_weight:5.2f} {row.prefill_tokens_per_s:10.1f} "
            f"{row.decode_tokens_per_s:12.1f}   {perplexity:<20} {row.top1_agreement:9.1%}  {kl:>10}"
        )
    if result.is_original_quantized:
        aside("the original was quantized already: what it had lost before does not show here")


@bench.command("speech")
def bench_speech(
    audio: Annotated[
        Path | None, typer.Option("--audio", metavar="FILE", help="A recording; a sample if left out.")
    ] = None,
    speech_model: SpeechModelOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """How fast recordings are transcribed, by every program that is installed; the fastest is used from then on."""
    from hearth.bench_speech import bench_speech as measure
    from hearth.settings import Settings

    result = measure(Settings(speech_model=speech_model, data_dir=data_dir), audio, _say)
    if as_json:
        print_json({**asdict(result), "backends": [_rounded(asdict(one)) for one in result.backends]})
        return
    typer.echo(f"{one_line(result.model)}, {result.duration_s:.1f} s of {one_line(result.sound)}")
    for one in result.backends:
        factor = f"{one.transcribe_s:8.2f} s   {one.real_time_factor:6.3f} s a second of sound"
        typer.echo(f"{one.backend:<15}{factor}   (loading {one.load_s:.1f} s)   {one_line(one.text, 40)}")
    typer.echo(f"{'used':<15}{result.chosen}")


def _say(phase: str) -> None:
    aside(f"{phase} …")


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in fields.items()}
