"""Which environment variables a model's process gets: those known to be useful there, and no others.

The rest of a worker's environment is not for a model's library to read: credentials of queues and stores, tokens, and
the keys of `http` models. A list of what to remove would not do: variables of keys may have any name.
"""

from collections.abc import Mapping
from typing import Final

_NAMES: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_COLOR", "FORCE_COLOR", "TERM"),
        *("DARKROOM_MODELS_FILE", "DARKROOM_WORKER_TORCH_THREADS", "DARKROOM_LOG_LEVEL", "DARKROOM_LOG_FORMAT"),
        "DARKROOM_LOG_MODEL_ERRORS",
    }
)
_FAMILIES: Final = (
    *("LC_", "XDG_", "PYTHON", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "ROCM_", "HSA_"),
    *("TORCH", "PYTORCH_", "TRITON_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "SAFETENSORS_"),
    *("TOKENIZERS_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
)


def of_a_model(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the worker's environment that a model's process gets."""
    return {name: value for name, value in environment.items() if name in _NAMES or name.startswith(_FAMILIES)}
