"""The command line of `speech-gateway doctor`, which writes one JSON and one HTML report."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

import httpx

from engines.doctor.bandwidth import bandwidth_limit, cards_here
from engines.doctor.examination import Doctor
from engines.doctor.report import Report, write_html

TIMEOUT_SECONDS = 300.0
SAMPLES = {
    "English": "Please remember to bring your umbrella: it is going to rain this afternoon.",
    "German": "Guten Morgen! Der Zug nach München fährt heute von Gleis sieben ab.",
    "Chinese": "今天天气很好。我们一起去公园散步吧。",
    "Dialogue": "[SPEAKER0] Did you hear that?\n[SPEAKER1] Hear what? It is only the wind.",
}


async def examine(arguments: argparse.Namespace) -> tuple[Report, dict[str, bytes]]:
    """Ask everything, printing as it goes."""
    headers = {"Authorization": f"Bearer {arguments.api_key}"} if arguments.api_key else {}
    # No connection is kept: httpx looks at every idle one for each request, which at 128 streams
    # would measure the client.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=arguments.url, headers=headers, timeout=TIMEOUT_SECONDS, limits=limits
    ) as client:
        doctor = Doctor(client)
        await doctor.introduce()
        report = Report(arguments.url, capabilities=doctor.capabilities, cards=cards_here())
        for check in doctor.checks():
            name = (check.__doc__ or "").split("\n")[0]
            try:
                await check()
                report.checks[name] = "ok"
            except (AssertionError, httpx.HTTPError) as error:
                report.checks[name] = str(error) or type(error).__name__
            print(f"{report.checks[name]:>4}  {name}")
        for streams in arguments.streams:
            report.speeds.append(await doctor.speed(streams, arguments.tokens))
            print(report.speeds[-1])
        precision = str(doctor.capabilities.get("precision", "bf16"))
        report.limit_tokens_per_second = bandwidth_limit(report.cards, precision)
        samples = {}
        for name, text in SAMPLES.items():
            try:
                samples[name] = await doctor.audio(text)
            except AssertionError as error:
                report.checks[f"Sample: {name}"] = str(error)
    return report, samples


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway doctor`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the engine's address")
    parser.add_argument("--api-key", help="bearer key of the engine")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8], help="loads to measure")
    parser.add_argument("--tokens", type=int, default=508, help="audio tokens of each stream")
    parser.add_argument(
        "--golden",
        metavar="MODEL",
        help="instead: load these weights and compare greedy codes with transformers' own test",
    )
    parser.add_argument("--precision", default="bf16", help="of --golden")
    parser.add_argument("--device", default="auto", help="of --golden")
    parser.add_argument(
        "--recogniser",
        metavar="MODEL",
        help="name or folder of a faster-whisper model: word errors",
    )
    parser.add_argument(
        "--against", type=Path, metavar="JSON", help="report to compare --recogniser with"
    )
    parser.add_argument("--report", type=Path, default=Path("doctor"), help="name of both files")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Examine an engine; 1 where a check failed, 2 where it does not answer."""
    if arguments.golden:
        from engines.doctor import golden  # noqa: PLC0415  (with torch, which only this needs)

        share = golden.matching_codes(
            arguments.golden,
            revision=None,
            precision=arguments.precision,
            device=arguments.device,
        )
        print(f"{share:.0%} of the codes that transformers' test expects")
        return int(share < 1)
    try:
        report, samples = asyncio.run(examine(arguments))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        print(f"speech-gateway: {arguments.url} is no engine: {error}", file=sys.stderr)
        return 2
    if arguments.recogniser:
        from engines.doctor import recognition  # noqa: PLC0415  (an optional library)

        try:
            report.word_errors, compared = recognition.listen(
                arguments.recogniser, samples, SAMPLES, arguments.against
            )
        except (OSError, ValueError) as error:
            print(f"speech-gateway: {error}", file=sys.stderr)
            return 2
        report.checks |= compared
        print(f"word errors: {report.word_errors}")
    arguments.report.with_suffix(".json").write_text(json.dumps(asdict(report), indent=1))
    write_html(report, samples, arguments.report.with_suffix(".html"))
    print(f"Written: {arguments.report}.json, {arguments.report}.html")
    return 1 if report.failed else 0
