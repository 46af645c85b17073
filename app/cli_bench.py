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
