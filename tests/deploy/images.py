"""The images that the stack is made of: this checkout's, and stand-ins for those of others.

A stand-in is made of Debian packages that are installed on this machine.
"""

from __future__ import annotations

import json
import shutil
import textwrap
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engines.voice import PRESETS
from tests.deploy.docker_host import BASE_IMAGE, ROOT, Docker, call

PREFIX = "speech-gateway-test"
HUB_VERSION = "0.34.3"  # of the time of the engine's image
TOOLS = ("prometheus", "prometheus-alertmanager", "haproxy")
# Where the real images let their user write, and what they run.
STAND_INS = {
    # Nor an exporter of the GPU: it needs a driver.
    "GPU_EXPORTER_IMAGE": ("/figures", 'CMD ["python3", "-m", "http.server", "9835"]'),
    "PROMETHEUS_IMAGE": ("/prometheus", 'ENTRYPOINT ["prometheus"]'),
    "ALERTMANAGER_IMAGE": ("/alertmanager", 'ENTRYPOINT ["prometheus-alertmanager"]'),
    # There is no Grafana to be had: this one only shows that the service starts as it is written.
    "GRAFANA_IMAGE": ("/var/lib/grafana", 'CMD ["python3", "-m", "http.server", "3000"]'),
    "HAPROXY_IMAGE": (
        "/var/lib/haproxy",
        'CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
    ),
}
CONTAINER_TESTS = ROOT / "tests" / "engines" / "container"


def build_own(docker: Docker, base: str) -> dict[str, str]:
    """Build both images of the Dockerfile; return the variables that name them."""
    names = {"SPEECH_GATEWAY_IMAGE": "gateway", "SPEECH_GATEWAY_CPU_IMAGE": "cpu"}
    for target in names.values():
        docker.build(
            f"{PREFIX}/{target}",
            "--file",
            ROOT / "deploy" / "Dockerfile",
            "--target",
            target,
            "--build-arg",
            f"PYTHON_IMAGE={base}",
            ROOT,
        )
    return {variable: f"{PREFIX}/{target}" for variable, target in names.items()}


def import_packages(docker: Docker, name: str, folder: Path, *packages: str) -> None:
    """Make an image of installed Debian packages."""
    archive = folder / "rootfs.tar"
    call(ROOT / "scripts" / "docker-rootfs", archive, *packages)
    certificates = "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
    docker.run("import", "--change", certificates, archive, name)
    archive.unlink()


def build_stand_ins(docker: Docker, folder: Path) -> dict[str, str]:
    """Prometheus, Alertmanager and HAProxy of this machine, and what holds Grafana's place."""
    tools = f"{PREFIX}/tools"
    import_packages(docker, tools, folder, "python3", *TOOLS)
    variables = {}
    for variable, (data, program) in STAND_INS.items():
        variables[variable] = f"{PREFIX}/{variable.removesuffix('_IMAGE').lower()}"
        dockerfile = f"""
            FROM {tools}
            RUN mkdir -p {data} && chown 65534:65534 {data}
            USER 65534:65534
            {program}
        """
        docker.build(variables[variable], "-", text=textwrap.dedent(dockerfile))
    return variables


def build_engine(docker: Docker, folder: Path, base: str, python: str) -> dict[str, str]:
    """What stands in for the GPU engine's image: its checks and presets, then a simulated engine.

    It has huggingface_hub, as the image has, and a hub for the tests that need one.
    """
    presets = folder / "vllm" / "entrypoints" / "bosonai" / "voice_presets"
    presets.mkdir(parents=True)
    (folder / "vllm" / "__init__.py").write_text("raise ImportError('there is no GPU')\n")
    for name in PRESETS:
        with wave.open(str(presets / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(24_000)
            file.writeframes(bytes(4800))
    listing = {name: {"transcript": name, "audio_file": f"{name}.wav"} for name in PRESETS}
    (presets / "config.json").write_text(json.dumps(listing))
    for name in ("fake_engine.py", "hub.py"):
        shutil.copyfile(CONTAINER_TESTS / name, folder / name)
    (folder / "Dockerfile").write_text(
        textwrap.dedent(f"""
            FROM {python} AS library
            RUN python3 -m venv /venv && /venv/bin/pip install -q --target /packages \
                huggingface_hub=={HUB_VERSION}
            FROM {base}
            USER 0
            COPY --from=library /packages /packages
            COPY vllm /packages/vllm
            COPY fake_engine.py hub.py /
            ENV PYTHONPATH=/packages
            ENTRYPOINT ["python3", "/fake_engine.py"]
        """),
    )
    docker.build(f"{PREFIX}/engine", folder)
    return {"HIGGS_IMAGE": f"{PREFIX}/engine"}


def build_all(docker: Docker, folder: Path) -> dict[str, str]:
    """Every image that the stack needs; return the variables that name them."""
    base, others = BASE_IMAGE, None
    with ThreadPoolExecutor(1) as thread:
        if not docker.pulls(BASE_IMAGE):
            base = f"{PREFIX}/python"
            import_packages(docker, base, folder, "python3", "python3-venv", "libstdc++6")
            # The build of our own images mostly waits for packages.
            others = thread.submit(build_stand_ins, docker, folder)
        variables = build_own(docker, base)
    (folder / "engine").mkdir()
    variables |= build_engine(
        docker, folder / "engine", variables["SPEECH_GATEWAY_CPU_IMAGE"], base
    )
    return variables | (others.result() if others else {})


def remove_own(docker: Docker) -> None:
    """Remove the images that the tests built."""
    names = docker.run("image", "ls", "--quiet", "--filter", f"reference={PREFIX}/*").split()
    if names:
        docker.run("image", "rm", "--force", *dict.fromkeys(names))


def image_bytes(docker: Docker, name: str) -> int:
    """Size of an image on disk."""
    return int(docker.run("image", "inspect", "--format", "{{.Size}}", name))
