"""Runs LiteLLM's proxy in front of another speech server: `python litellm_server.py PORT URL`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    port, rear = sys.argv[1:3]
    parameters = {"model": "openai/kokoro", "api_base": rear + "/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "tts-kokoro", "litellm_params": parameters}],
        "general_settings": {"master_key": "sk-local-test"},
    }
    Path("litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    sys.argv = ["litellm", "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", port]
    importlib.import_module("litellm").run_server()
