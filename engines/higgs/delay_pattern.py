"""The delay pattern: codebook k of a frame stands k rows later, between BOS and EOS codes.

As `build_delay_pattern` of transformers' HiggsAudioV2Processor; `Generation.add_rows` undoes it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.higgs.generation import CODEBOOKS

STREAM_BOS = 1024  # transformers, HiggsAudioV2Config.audio_stream_bos_id
STREAM_EOS = 1025


def delay(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
    """Return the rows of a reference: int [8, frames] codes to int16 [frames + 9, 8]."""
    frames = codes.shape[1]
    rows = np.full((frames + CODEBOOKS + 1, CODEBOOKS), STREAM_EOS, np.int16)
    for book in range(CODEBOOKS):
        rows[: book + 1, book] = STREAM_BOS
        rows[book + 1 : book + 1 + frames, book] = codes[book]
    return rows
