"""Docker's own words, turned into what somebody can do about them."""

from __future__ import annotations

import pytest
from docker.errors import APIError, ImageNotFound

from engines.container.docker_engine import not_pulled, translated
from engines.container.plan import ContainerError, make_plan

PLAN = make_plan({"HIGGS_PORT": "8000"})


NO_TOOLKIT = 'could not select device driver "" with capabilities: [[gpu]]'
NO_DRIVER = (
    "failed to create task for container: OCI runtime create failed: nvidia-container-cli: "
    "initialization error: load library failed: libnvidia-ml.so.1"
)
TAKEN = (
    "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:8000 "
    "failed: port is already allocated"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (NO_TOOLKIT, "install the NVIDIA Container Toolkit"),
        (NO_DRIVER, "`nvidia-smi` must work on the host first"),
        (TAKEN, "Port 8000 of this machine is taken"),
        ("something else\nin two lines", "Docker: something else in two lines"),
    ],
)
def test_each_failure_of_the_engine_is_one_sentence(said: str, told: str) -> None:
    """The texts are those of Docker 20 to 28."""
    with pytest.raises(ContainerError, match=told) as told_error, translated(PLAN):
        raise APIError("500 Server Error", explanation=said)
    assert "\n" not in str(told_error.value)


def test_an_image_that_is_nowhere_is_named() -> None:
    """A typing error in HIGGS_IMAGE, or no network."""
    with pytest.raises(ContainerError, match=r"vllm:v0.8.3-250730.*HIGGS_IMAGE"), translated(PLAN):
        raise ImageNotFound("404", explanation="no such image")


def test_a_tag_that_the_registry_does_not_have_gets_the_one_line_to_set() -> None:
    """One public report names the tag: it may be gone."""
    said = "manifest for bosonai/higgs-audio-vllm:v0.8.3-250730 not found: manifest unknown"
    told = not_pulled(PLAN, said)
    assert told.endswith("set HIGGS_IMAGE=bosonai/higgs-audio-vllm:latest")
    assert "toomanyrequests" in not_pulled(PLAN, "toomanyrequests: rate limit")
