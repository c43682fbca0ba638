#!/bin/bash
# Start the engine and the gateway in one rented container whose image is bosonai/higgs-audio-vllm,
# or, with SPEECH_GATEWAY_ENGINE=higgs, any image with Python 3.11 and a driver for CUDA 13.
# It checks the GPU, installs the gateway beside the engine and downloads the weights at the first
# start, and then runs `speech-gateway serve --engine-command ...` until it is told to stop. See
# README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

say() { printf 'on-start: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

# Values of vllm.env, unless the container's own environment has them.
read_settings() {
    local line name
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line%%=*}
        case $line in
        HIGGS_*=* | GATEWAY_*=*) ;;
        *) continue ;;
        esac
        [ -n "${!name+set}" ] || export "$name=${line#*=}"
    done <"$1"
}

read_settings "${SPEECH_GATEWAY_ENV_FILE:-$here/../vllm.env}"
export GATEWAY_HOST=${GATEWAY_HOST:-0.0.0.0}
python=${SPEECH_GATEWAY_PYTHON:-python3}
venv=${SPEECH_GATEWAY_VENV:-/opt/speech-gateway}
package=${SPEECH_GATEWAY_PACKAGE:-$repository}
engine=${SPEECH_GATEWAY_ENGINE:-container}
every=${SPEECH_GATEWAY_GPU_LOG_SECONDS:-60}

check_keys() {
    case $GATEWAY_HOST in
    127.* | localhost | ::1) return ;;
    esac
    [ -n "${GATEWAY_API_KEYS:-}${GATEWAY_API_KEYS_FILE:-}" ] ||
        fail "the port of a rented machine is public: set GATEWAY_API_KEYS=name=key" \
            "or GATEWAY_API_KEYS_FILE"
}

query_gpu() { nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits; }

# The image has code for compute capability 5.0 to 9.0; Blackwell begins with 10.0.
check_gpu() {
    local name capability total cards
    command -v nvidia-smi >/dev/null ||
        fail "nvidia-smi is missing: this container has no NVIDIA GPU, or no driver in it"
    cards=$(query_gpu name,compute_cap,memory.total) || fail "nvidia-smi failed: $cards"
    [ -n "$cards" ] || fail "nvidia-smi lists no GPU"
    while IFS=, read -r name capability total; do
        capability=${capability// /}
        say "GPU: $name, compute capability $capability, ${total// /} MiB"
        [ "$engine" = higgs ] || [ "${capability%%.*}" -lt 10 ] ||
            fail "$name has compute capability $capability (Blackwell or later): this image is" \
                "built for 5.0 to 9.0 and cannot run on it; set SPEECH_GATEWAY_ENGINE=higgs, or" \
                "rent an RTX 3090, RTX 4090, A100, L40S or H100"
    done <<<"$cards"
}

# The engine's own Python packages are left alone.
install_gateway() {
    [ "$engine" != higgs ] || package="$package[gpu]"
    [ ! -x "$venv/bin/speech-gateway" ] || return 0
    say "installing the gateway into $venv"
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        # Without ensurepip, which Debian and Ubuntu keep in a package of its own.
        "$python" -m venv --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install --quiet \
            --constraint "$repository/constraints.txt" "$package"
    elif command -v uv >/dev/null; then
        uv venv --quiet --python 3.11 "$venv"
        uv pip install --quiet --python "$venv/bin/python" \
            --constraint "$repository/constraints.txt" "$package"
    else
        fail "$python is older than 3.11: install uv, or name another in SPEECH_GATEWAY_PYTHON"
    fi
}

# The folder replaces the image's own presets, so it must hold them first.
seed_voices() {
    [ -n "${GATEWAY_VOICES_DIR:-}" ] || return 0
    mkdir -p "$GATEWAY_VOICES_DIR"
    [ "$engine" != higgs ] || return 0 # it takes a folder without voices
    "$python" "$here/../../engines/container/seed_voices.py" "$GATEWAY_VOICES_DIR" "$(id -u)"
}

# By commit, with the image's own huggingface_hub; the engine then needs no hub, and gets folders.
fetch_weights() {
    [ "$engine" != higgs ] || return 0 # it fetches its own, of another layout
    "$python" "$here/../../engines/container/fetch_weights.py"
    snapshots=${HF_HOME:-$HOME/.cache/huggingface}/snapshots
    export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1
}

# As the engine's makers start it. Its own port stays inside: whoever reached it would need no key.
engine_command() {
    local words
    if [ "$engine" = higgs ]; then
        read -ra words <<<"${HIGGS_ENGINE_OPTIONS:-}"
        words=("$venv/bin/speech-gateway" engine --voice higgs --port "$HIGGS_PORT"
            --served-model-name "$HIGGS_SERVED_MODEL_NAME" --model "$HIGGS_MODEL" "${words[@]}")
        [ -z "${GATEWAY_VOICES_DIR:-}" ] || words+=(--voice-presets-dir "$GATEWAY_VOICES_DIR")
        printf '%q ' "${words[@]}"
        return
    fi
    read -ra words <<<"${HIGGS_ENGINE_PROGRAM:-python3 -m vllm.entrypoints.bosonai.api_server}"
    words+=(
        --served-model-name "$HIGGS_SERVED_MODEL_NAME"
        --model "$snapshots/$HIGGS_MODEL_REVISION"
        --audio-tokenizer-type "$snapshots/$HIGGS_AUDIO_TOKENIZER_REVISION"
        --limit-mm-per-prompt "$HIGGS_LIMIT_MM_PER_PROMPT"
        --max-model-len "$HIGGS_MAX_MODEL_LEN"
        --host 127.0.0.1
        --port "$HIGGS_PORT"
        --gpu-memory-utilization "$HIGGS_GPU_MEMORY_UTILIZATION"
        --disable-mm-preprocessor-cache
        --disable-log-requests # it would log every text
    )
    [ -z "${GATEWAY_VOICES_DIR:-}" ] || words+=(--voice-presets-dir "$GATEWAY_VOICES_DIR")
    printf '%q ' "${words[@]}"
}

# A line for each GPU now and then, until the pipe on standard input ends with this script.
watch_gpu() {
    local index used total busy
    while :; do
        while IFS=, read -r index used total busy; do
            say "GPU ${index// /}: ${used// /} of ${total// /} MiB in use, ${busy// /} % busy"
        done < <(query_gpu index,memory.used,memory.total,utilization.gpu || true)
        read -r -t "$every" _ || [ $? -gt 128 ] || return 0
    done
}

check_keys
check_gpu
seed_voices
install_gateway
fetch_weights
exec {alive}> >(watch_gpu)
# The gateway does not hold the pipe: it ends with this script.
export GATEWAY_UPSTREAMS="${GATEWAY_UPSTREAMS:-http://127.0.0.1:$HIGGS_PORT}"
"$venv/bin/speech-gateway" serve --engine-command "$(engine_command)" {alive}>&- &
gateway=$!
trap 'kill -TERM "$gateway" 2>/dev/null || true' TERM INT HUP
status=0
while :; do
    # A signal interrupts the wait; the gateway then finishes what it has begun.
    wait "$gateway" && status=0 || status=$?
    kill -0 "$gateway" 2>/dev/null || break
done
[ "$status" -le 128 ] || { wait "$gateway" && status=0 || status=$?; }
[ "$status" -ne 127 ] || status=0
exit "$status"
