"""Names of the weights in saved students."""

from __future__ import annotations

from teacher_case import teacher_config

from fcot_vl.models import COMPRESSORS, FCoTVLConfig, build_compressor


def test_weights_keep_their_names() -> None:
    """A renamed part would leave saved students unreadable."""
    names = {}
    for name in COMPRESSORS:
        compressor = build_compressor(FCoTVLConfig.from_teacher(teacher_config(), 4, name))
        names[name] = {part.split(".")[0] for part, _ in compressor.named_parameters()}
    assert names == {
        "conv": {"weight", "bias"},
        "pooling": set(),
        "qformer": {"norm", "queries", "q_proj", "k_proj", "v_proj", "out_proj"},
        "conv2d": {"conv"},
        "c_abstractor": {"norm", "enter", "before", "after", "leave", "readout"},
        "ldpv2": {"norm", "enter", "leave", "neighbours"},
        "token_packer": {"norm", "q_proj", "k_proj", "v_proj", "out_proj"},
    }
